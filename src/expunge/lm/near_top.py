"""The likeliest tokens: all that a rule may touch where it must not lift what nobody would say."""

import torch
from torch import Tensor


def near_top(logits: Tensor, rank: int, distance: float) -> Tensor:
    """Tokens no further from the likeliest one than a distance, and as many as a rank at least.

    Args:
        logits: [..., V]; what is compared is their distance, so they need no normalising.
        rank: So many of the likeliest are among them in any case, at least 1.
        distance: In nats, below 0.

    Returns:
        [..., V] bool.
    """
    best = logits.topk(max(1, rank), -1).values
    threshold = torch.minimum(best[..., -1:], best[..., :1] + distance)
    return logits >= threshold
