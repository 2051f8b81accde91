"""Rules every room shares: errors, events, cards, parameters, random numbers, safe files.

Nothing here imports torch or transformers.
"""
