"""Gradients and moves by module: what is added and what is taken away in each class of nodes.

A module is a node, or the weights that several nodes of the circuits share (keys of a group of
heads, the undivided factor of an adapter); those are of the class all of their nodes are of, and
`SHARED` where they are not of one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from expunge.engine.projection import PIECE, SMALLEST
from expunge.engine.slots.combine import Again
from expunge.lm.node_weights import NOBODY, Owned, owners
from expunge.methods.cure.found import FORGET, RETAIN, SHARED, Classes

Gradient = Sequence[Tensor]


class Modules:
    """The modules of two circuits.

    Args:
        owned: For each trainable parameter whose it is; None: nobody's.
        classes: Of each module.
    """

    def __init__(self, owned: Sequence[Owned | None], classes: Sequence[str]) -> None:
        self._owned, self._classes = owned, classes

    @classmethod
    def of(cls, again: Again, classes: Classes) -> "Modules":
        """Those of the step of a combiner.

        Args:
            again: Knows the trainable parameters.
            classes: Of the nodes.
        """
        found = owners(again.task.model, classes)
        names = {id(weight): name for name, weight in again.task.model.named_parameters()}
        owned = [found.parameters.get(names.get(id(weight), "")) for weight in again.parameters]
        kinds = [{classes[node] for node in nodes} for nodes in found.modules]
        return cls(owned, [one.pop() if len(one) == 1 else SHARED for one in kinds])

    def ratios(self, gradient: Gradient, along: Gradient) -> Tensor:
        """[modules], ``<gradient, along> / <along, along>``; 0 where that has no direction."""
        squares = self._products(along, along)
        found = self._products(gradient, along) / squares.clamp(min=SMALLEST**2)
        return torch.where(squares >= SMALLEST**2, found, torch.zeros_like(found))

    def combined(
        self, forgets: Gradient, keeps: Gradient, *, gamma: float, alpha: float, turned: bool
    ) -> list[Tensor]:
        """The gradient of the step; 0 wherever no module is.

        F: gamma times what of g_f is at right angles to g_r. R: alpha g_r. S: both, g_f without
        what goes against g_r. Without ``turned`` g_f is left as it is.
        """
        ratios = self.ratios(forgets, keeps)
        taken = torch.where(self._are(SHARED), ratios.clamp(max=0), ratios)
        taken = taken if turned else torch.zeros_like(taken)
        on_f = torch.where(self._are(RETAIN), 0.0, gamma)
        on_r = torch.where(self._are(FORGET), 0.0, alpha) - on_f * taken
        pairs = zip(self._times(forgets, on_f), self._times(keeps, on_r), strict=True)
        return [f + r for f, r in pairs]

    def redirected(self, moves: Gradient, keeps: Gradient) -> list[Tensor]:
        """The moves without what the rows to be kept would pay for.

        F: the part at right angles to g_r. S: the same where the move goes up along g_r. R: as is.
        """
        ratios = self.ratios(moves, keeps)
        taken = torch.where(self._are(SHARED), ratios.clamp(min=0), ratios)
        taken = torch.where(self._are(RETAIN), 0.0, taken)
        pairs = zip(moves, self._times(keeps, taken), strict=True)
        return [move - part.to(move) for move, part in pairs]

    def _are(self, kind: str) -> Tensor:
        return torch.tensor([one == kind for one in self._classes], dtype=torch.bool)

    def _products(self, one: Gradient, other: Gradient) -> Tensor:
        """[modules], inner products in float64."""
        found = torch.zeros(len(self._classes) + 1, dtype=torch.float64)
        for owned, a, b in zip(self._owned, one, other, strict=True):
            if owned is not None:
                found.index_add_(0, owned.owner % len(found), _along(a, b, owned.axis))
        return found[:NOBODY]

    def _times(self, gradient: Gradient, factors: Tensor) -> list[Tensor]:
        """Every entry times the number of its module; 0 where it has none."""
        known = torch.cat([factors.double(), torch.zeros(1, dtype=torch.float64)])
        return [
            torch.zeros_like(one)
            if owned is None
            else one * owned.along(known[owned.owner], one).to(one.dtype)
            for owned, one in zip(self._owned, gradient, strict=True)
        ]


def _along(one: Tensor, other: Tensor, axis: int) -> Tensor:
    """[size of the axis], products of two tensors summed over all other axes, on the CPU."""
    lines = (one.movedim(axis, 0), other.movedim(axis, 0))
    size = max(1, PIECE * len(lines[0]) // max(1, one.numel()))
    pieces = zip(*(torch.split(line, size) for line in lines), strict=True)
    sums = [(a.double() * b.double()).reshape(len(a), -1).sum(1) for a, b in pieces]
    return torch.cat(sums).cpu()
