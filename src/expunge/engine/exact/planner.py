"""What an ensemble still has to give: deletions that are left, and what the next one costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from expunge.engine.exact.capacity import expected_hits, row_epochs, stage_rows
from expunge.engine.exact.scheme import Scheme
from expunge.engine.exact.state import Ensemble, kept


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What is left, and what it costs, in row-epochs.

    Attributes:
        cells: Slices that must all be hit until the ensemble is exhausted: of shards that were
            never trained anew from their first slice on, and of sequences that are left, the
            first slices. So many deletions are left in the worst case.
        expected: Deletions that are left on average, if each hits a row drawn anew; None where a
            cell is never hit.
        mean_cost: What the next deletion costs on average over all rows.
        largest_cost: What it costs at most.
        retraining: What one model trained anew on all rows costs.
        rebuilding: What building the whole ensemble anew costs.
    """

    cells: int
    expected: float | None
    mean_cost: float
    largest_cost: int
    retraining: int
    rebuilding: int

    def as_dict(self) -> dict[str, Any]:
        """The record of a change."""
        share = self.mean_cost / self.retraining if self.retraining else None
        return {
            "deletions_left": {"expected": self.expected, "worst": self.cells},
            "next_deletion": {
                "mean": round(self.mean_cost, 3),
                "largest": self.largest_cost,
                "share_of_retraining": None if share is None else round(share, 6),
            },
            "retraining": self.retraining,
            "rebuilding": self.rebuilding,
        }


def outlook(ensemble: Ensemble, scheme: Scheme) -> Outlook:
    """What is left of an ensemble.

    Args:
        ensemble: As it is.
        scheme: Its layout.
    """
    epochs = ensemble.passes
    cells = first_slices(ensemble)
    chances = [_chance(ensemble, scheme, *cell) for cell in cells]
    expected = expected_hits(chances)
    places = [(s, i) for s in range(len(ensemble.shards)) for i in range(ensemble.slices)]
    costs = {cell: _cost(ensemble, scheme, *cell, epochs) for cell in places}
    rows = len(ensemble.members)
    likely = {cell: ensemble.sizes[cell[0]][cell[1]] / rows for cell in places} if rows else {}
    return Outlook(
        cells=len(cells),
        expected=round(expected, 3) if isfinite(expected) else None,
        mean_cost=sum(share * costs[cell] for cell, share in likely.items()),
        largest_cost=max((costs[cell] for cell, share in likely.items() if share), default=0),
        retraining=epochs * rows,
        rebuilding=sum(cost_of(ensemble, s, [0] * len(c), epochs) for s, c in _numbered(ensemble)),
    )


def first_slices(ensemble: Ensemble) -> list[tuple[int, int]]:
    """The cells, shard and slice, that must all be hit until the ensemble is exhausted.

    A slice without rows is never hit: the next one in order stands for it.
    """
    found = set()
    for shard, chains in _numbered(ensemble):
        sizes = ensemble.sizes[shard]
        for chain, left in zip(chains, ensemble.left(shard), strict=True):
            if left and shard not in ensemble.lost:
                found.add((shard, next(i for i in chain.order if sizes[i])))
    return sorted(found)


def cost_of(ensemble: Ensemble, shard: int, first: Sequence[int], epochs: int) -> int:
    """What it costs to train the sequences of a shard, each from some stage on."""
    sizes = ensemble.sizes[shard]
    chains = zip(ensemble.shards[shard], first, strict=True)
    return sum(row_epochs(stage_rows(sizes, c.order), epochs, start) for c, start in chains)


def _cost(ensemble: Ensemble, scheme: Scheme, shard: int, slice: int, epochs: int) -> int:
    """What the deletion of one row of a slice costs."""
    chains, sizes = ensemble.shards[shard], list(ensemble.sizes[shard])
    if not sizes[slice]:
        return 0
    left = [kept(chain, (slice,)) for chain in chains]
    sizes[slice] -= 1
    alive = [
        n if any(sizes[i] for i in c.order[:n]) else 0 for c, n in zip(chains, left, strict=True)
    ]
    if not scheme.retrains(alive):
        return 0
    rows = [stage_rows(sizes, chain.order) for chain in chains]
    return sum(row_epochs(one, epochs, start) for one, start in zip(rows, left, strict=True))


def _chance(ensemble: Ensemble, scheme: Scheme, shard: int, slice: int) -> float:
    if scheme.chances is not None:
        return scheme.chances[slice] / scheme.shards
    return ensemble.sizes[shard][slice] / max(1, len(ensemble.members))


def _numbered(ensemble: Ensemble) -> list[tuple[int, Any]]:
    return list(enumerate(ensemble.shards))
