"""From rows to batches of tokens: reading, encoding, batching, choosing what to keep."""
