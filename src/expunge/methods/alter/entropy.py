"""How sure a distribution is: the entropy of Tsallis, with Shannon's as its limit."""

import torch
from torch import Tensor

AT_ONCE = 1 << 24
"""Most probabilities that are held in float32 at a time."""


def tsallis(logits: Tensor, q: float) -> Tensor:
    """``(1 - sum_k p_k^q) / (q - 1)``; of q = 1 its limit ``-sum_k p_k log p_k``, nats.

    Args:
        logits: [..., V].
        q: Below 1 rare tokens count more, above 1 likely ones.

    Returns:
        [...], in at least float32.
    """
    flat = logits.reshape(-1, logits.shape[-1])
    rows = max(1, AT_ONCE // flat.shape[-1])
    parts = [_tsallis(part, q) for part in torch.split(flat, rows)]
    return torch.cat(parts).reshape(logits.shape[:-1])


def of_a_guess(vocabulary: int, q: float) -> float:
    """The entropy of a guess among all tokens, the largest there is."""
    return float(tsallis(torch.zeros(1, vocabulary, dtype=torch.float64), q))


def _tsallis(logits: Tensor, q: float) -> Tensor:
    logp = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    if q == 1:
        found: Tensor = torch.special.entr(logp.exp()).sum(-1)
        return found
    return (1 - (q * logp).exp().sum(-1)) / (q - 1)
