"""Text mathematics that many rooms need: normalising, overlap, matching, refusals, gibberish.

Nothing here imports torch or transformers.
"""
