"""What must be forgotten: rows, and which rows ask for the same thing.

Nothing here imports torch or transformers.
"""
