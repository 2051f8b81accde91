"""The loss around a text: how it changes from the text to its neighbours.

Definition (L the mean negative log-likelihood; x' the K variants, in K/2 opposite pairs x'+, x'-):
    mean, std, range    of L(x')                    nats a token
    change              mean |L(x') - L(x)|
    slope               mean |L(x') - L(x)| / d(x, x')
    curvature           mean L(x'+) + L(x'-) - 2 L(x)
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import fmean, pstdev
from typing import Any

from expunge.core.rng import generator
from expunge.data.encode import Encoded, by_length, collate
from expunge.lm.hooks import evaluating
from expunge.lm.neighbours import Neighbours, Pair
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject

Losses = Callable[[Sequence[Encoded]], Sequence[float]]
"""Texts -> their losses, in order."""


def losses_of(subject: Subject) -> Losses:
    """The losses of a model: mean over the supervised tokens, each text scored once."""

    def losses(items: Sequence[Encoded]) -> list[float]:
        distinct = {tuple(item.ids): item for item in items}
        keys, kept = list(distinct), list(distinct.values())
        found: dict[tuple[int, ...], float] = {}
        with evaluating(subject.model):
            for batch in by_length([len(item.ids) for item in kept], subject.batch_size):
                means = _means(subject, [kept[i] for i in batch])
                found |= {keys[i]: mean for i, mean in zip(batch, means, strict=True)}
        return [found[tuple(item.ids)] for item in items]

    return losses


def landscapes(
    losses: Losses,
    items: Mapping[str, Encoded],
    table: Neighbours,
    *,
    shares: Sequence[float],
    ranks: Sequence[int],
    pairs: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The loss around some texts.

    Args:
        losses: Texts -> losses.
        items: Row id -> text, prompt and supervised tokens.
        table: Which tokens may stand for which.
        shares: Probabilities with which a token is replaced.
        ranks: Ranks of the neighbours that take its place.
        pairs: Opposite pairs of variants of each text, for each share and rank.
        seed: Decides which tokens are replaced, row by row.

    Returns:
        Row id -> ``loss`` and ``tokens`` of the text, and ``cells``: "share/rank" -> the features
        named above. A text of which no token may be replaced, or whose variants all lie on it, is
        left out.
    """
    usable = {row: item for row, item in items.items() if table.places(item, ranks[0])}
    base = dict(zip(usable, losses(list(usable.values())), strict=True))
    found: dict[str, dict[str, Any]] = {
        row: {"loss": base[row], "tokens": len(item.spans), "cells": {}}
        for row, item in usable.items()
    }
    for share, rank in product(shares, ranks):
        drawn = {
            row: table.pairs(
                item,
                share=share,
                rank=rank,
                count=pairs,
                rng=generator(seed, "landscape", row, str(share), rank),
            )
            for row, item in usable.items()
        }
        texts = [v.item for of_row in drawn.values() for pair in of_row for v in pair]
        around = iter(losses(texts))
        for row, of_row in drawn.items():
            values = [(next(around), next(around)) for _ in of_row]
            found[row]["cells"][f"{share}/{rank}"] = features(base[row], values, of_row)
    return {row: of for row, of in found.items() if all(of["cells"].values())}


def features(
    loss: float, around: Sequence[tuple[float, float]], pairs: Sequence[Pair]
) -> dict[str, float]:
    """What the losses around a text are like.

    Args:
        loss: That of the text.
        around: Those of each pair of variants.
        pairs: The variants.

    Returns:
        Feature -> value; nothing where no variant lies at a distance.
    """
    losses = [value for both in around for value in both]
    distances = [variant.distance for pair in pairs for variant in pair]
    changes = [abs(value - loss) for value in losses]
    slopes = [c / d for c, d in zip(changes, distances, strict=True) if d > 0.0]
    if not slopes:
        return {}
    return {
        "mean": fmean(losses),
        "std": pstdev(losses),
        "range": max(losses) - min(losses),
        "change": fmean(changes),
        "slope": fmean(slopes),
        "curvature": fmean(there + back - 2 * loss for there, back in around),
    }


def _means(subject: Subject, items: Sequence[Encoded]) -> list[float]:
    packed = packed_logp(subject.model, collate(items, padding_id(subject.tokenizer)))
    sums = [0.0] * len(items)
    for row, logp in zip(packed.row.tolist(), packed.logp.double().tolist(), strict=True):
        sums[row] -= logp
    return [total / len(item.spans) for total, item in zip(sums, items, strict=True)]
