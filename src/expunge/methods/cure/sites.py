"""The tokens of a step that are asked for, and what is said there among the candidates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.engine.view import View

Table = Sequence[Sequence[Any]]
"""Item -> [place, candidates, reference] of each token of it that is asked for."""


@dataclass(frozen=True, slots=True)
class Sites:
    """All tokens asked for in a view.

    Attributes:
        logp: [S, C], log-probabilities among the candidates, the row's own first; 0 at padding.
        real: [S, C] bool, which are candidates and no padding.
        reference: [S, C], what somebody never trained on says; None where nobody was asked.
    """

    logp: Tensor
    real: Tensor
    reference: Tensor | None

    @classmethod
    def of(cls, view: View, table: Table | None) -> "Sites":
        """The sites of a view.

        Without a table it is the first token of each row against the likeliest other one.
        """
        starts = _starts(view)
        if table is None:
            where = starts[view.lengths > 0]
            own = view.labels[where][:, None]
            others = view.logits.detach()[where].scatter(1, own, -torch.inf)
            return cls._read(view, where, torch.cat([own, others.argmax(1, keepdim=True)], 1))
        found = [
            (start + place, ids, reference)
            for start, item in zip(starts.tolist(), view.row.tolist(), strict=True)
            for place, ids, reference in (table[item] if item < len(table) else ())
        ]
        width = max((len(ids) for _, ids, _ in found), default=1)
        device = view.labels.device
        where = torch.tensor([at for at, _, _ in found], dtype=torch.long, device=device)
        ids = _rectangle([ids for _, ids, _ in found], width, -1).long().to(device)
        made = cls._read(view, where, ids)
        told = _rectangle([reference for _, _, reference in found], width, 0.0)
        return cls(made.logp, made.real, told.to(made.logp))

    @classmethod
    def _read(cls, view: View, where: Tensor, ids: Tensor) -> "Sites":
        real = ids >= 0
        logits = view.logits[where].gather(1, ids.clamp(min=0))
        logp = logits.masked_fill(~real, -torch.inf).log_softmax(-1)
        return cls(logp.masked_fill(~real, 0.0), real, None)


def divergence(sites: Sites, kind: str) -> Tensor:
    """[S], nats; see the forget losses of the method."""
    real = sites.real.to(sites.logp)
    sizes = real.sum(1)
    if kind == "entropy":
        return sizes.log() + (real * sites.logp.exp() * sites.logp).sum(1)
    if kind == "teacher" and sites.reference is not None:
        told = sites.reference
        return (torch.xlogy(told, told) - told * sites.logp).sum(1)
    return -sizes.log() - sites.logp.sum(1) / sizes


def distance(logp: Tensor, reference: Tensor, real: Tensor) -> Tensor:
    """[S], Jensen-Shannon distance of both distributions, nats, from 0 to ln 2."""
    own = logp.exp() * real
    middle = (own + reference) / 2
    sides = [torch.xlogy(one, one) - torch.xlogy(one, middle) for one in (own, reference)]
    found: Tensor = (sides[0] + sides[1]).sum(1) / 2
    return found.clamp(0.0, math.log(2))


def _starts(view: View) -> Tensor:
    """[B], place of the first supervised token of each row among all of them."""
    return view.lengths.cumsum(0) - view.lengths


def _rectangle(rows: Sequence[Sequence[float]], width: int, filler: float) -> Tensor:
    padded = [[*row, *[filler] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.float64).reshape(len(rows), width)
