"""What is known of the forget rows before training: sub-domain, and which tokens are low.

A row is known by its tokens. The table is plain JSON and stands in the task's state.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.engine.remembered import rows_of
from expunge.engine.view import View

ROWS, SIZES = "alter.rows", "alter.sizes"
"""Key of a row -> its sub-domain and a mark for each supervised token; low tokens of each
sub-domain over all forget rows."""

LOW, HIGH = "_", "^"


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """A view of forget rows, looked up.

    Attributes:
        domain: [B], sub-domain of each row.
        weights: [N] float64, how much each supervised token counts: 0 where it is high, else so
            much that all low tokens of a sub-domain together weigh the same as those of another.
        domains: Number of sub-domains.
    """

    domain: Tensor
    weights: Tensor
    domains: int


def told(view: View, state: Mapping[str, Any]) -> Told:
    """Look the rows of a view up; without a table all are one sub-domain of low tokens."""
    device = view.labels.device
    if ROWS not in state:
        rows = torch.zeros(len(view.row), dtype=torch.long, device=device)
        ones = torch.ones(len(view.labels), dtype=torch.float64, device=device)
        return Told(rows, ones, 1)
    table, sizes = state[ROWS], state[SIZES]
    found = [table[key_of(ids)] for ids, _ in rows_of(view.inputs)]
    domain = torch.tensor([at for at, _ in found], device=device)
    low = torch.tensor([mark == LOW for _, marks in found for mark in marks], device=device)
    even = sum(sizes) / len(sizes)
    shares = [even / size if size else 0.0 for size in sizes]
    share = torch.tensor(shares, dtype=torch.float64, device=device)
    return Told(domain, low * share[domain][view.inputs.batch_row], len(sizes))


def seats(view: View, domain: Tensor) -> Tensor:
    """The sub-domain [B] of each row at all of its positions, as the model gets to see them.

    Returns:
        [B, T]; [1, L] where the rows stand end to end.
    """
    real = view.inputs.attention_mask.bool()
    spread = domain[:, None].expand_as(real)
    return spread[real][None] if view.inputs.packing else spread


def marks(is_low: Sequence[bool]) -> str:
    """The marks of some tokens, in order."""
    return "".join(LOW if low else HIGH for low in is_low)


def key_of(ids: bytes) -> str:
    """The key of a row.

    Args:
        ids: Its token ids, as bytes of int64.
    """
    return hashlib.sha256(ids).hexdigest()[:24]
