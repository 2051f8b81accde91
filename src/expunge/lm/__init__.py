"""A causal language model as this project needs it: load, ask, score, look inside, change bits."""
