"""Agents in a small world, to see what forgetting does to what they do.

A scripted walker plans its way over grids of 5 x 5 cells from what it learned, what its memory says
and what its prompt forbids or takes from it; whatever it answers can be predicted, so that only the
forgetting makes a difference. An adversary asks it and guesses what it was told to forget.
"""
