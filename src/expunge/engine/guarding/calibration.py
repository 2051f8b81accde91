"""Thresholds of the gate, set by what texts that are to be let through score.

Definition (n texts, m_i the highest score of text i over the whole store on a rung, sorted; r the
share of such texts that may fire, divided among the calibrated rungs):
    k         = ceil((n + 1) (1 - r))
    threshold = m_(k), never below the rung's ``least``
    promised  P(a further such text scores above m_(k)) <= r           (split conformal prediction)
    n < 1/r - 1 is too few for r: the threshold is then m_(n), which promises 1 / (n + 1)

The promise holds for texts like the given ones and for the store as it is. It is about the highest
score over the store, since a text is stopped by that: with a rate q for each of N targets, set on
targets one by one, P(any fires) = 1 - (1 - q)^N. Further targets raise the highest score: by the
time N has doubled, the rate has at most about doubled, if they are like the first ones. So
thresholds are set again when N has doubled, and when it has halved, since they are higher then
than they need be.

Texts on which a rung of whole matches fires are left out: they name a target, other rungs do not
decide about them, and would be set too high by them.

Reference: Distribution-Free Predictive Inference for Regression, 2018 (the quantile).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from expunge.core.rng import generator
from expunge.data.retain import neutral_rows
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.ladder import Ladder, Rung
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row
from expunge.requests.scope import placebo

RATE = 0.01
"""Share of texts to be let through that may be stopped, if nobody says otherwise."""

ENOUGH = 2000
"""Texts beyond which more of them are not looked at."""

OWN = 400
"""Rows of targets that are told of somebody invented, where there is nothing to be let through."""

Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What thresholds were set on.

    Attributes:
        targets: How many there were.
        texts: How many texts counted.
        left_out: How many did not, since they name a target.
        rate: Share of such texts that may fire, as promised; 1 where nothing can be promised.
        thresholds: Rung -> what was set.
    """

    targets: int
    texts: int
    left_out: int
    rate: float
    thresholds: dict[str, float]


def calibrate(
    ladder: Ladder, texts: Iterable[Texts], *, targets: int, rate: float = RATE
) -> Calibration:
    """Set the thresholds of a ladder's calibrated rungs.

    Args:
        ladder: Filled with the targets; without any it stays as it is.
        texts: Of each exchange to be let through what a gate looks at (`Exchange.texts`).
        targets: How many targets it holds.
        rate: Share of such exchanges that may be stopped by calibrated rungs.
    """
    rungs = [rung for rung in ladder.rungs if rung.is_calibrated]
    told, named = _parted(ladder, texts)
    if not rungs or not told or not targets:
        kept = {rung.name: rung.threshold for rung in rungs}
        return Calibration(targets, len(told), named, 1.0 if rungs else 0.0, kept)
    promised = 0.0
    for rung in rungs:
        quantile, share = threshold([highest(rung, one) for one in told], rate / len(rungs))
        rung.threshold = max(quantile, float(getattr(rung, "least", 0.0)))
        promised += share
    thresholds = {rung.name: rung.threshold for rung in rungs}
    return Calibration(targets, len(told), named, min(1.0, promised), thresholds)


def threshold(highest: Sequence[float], rate: float) -> tuple[float, float]:
    """A threshold, and the share of further texts above it that it promises.

    Args:
        highest: The highest score over the store of each text that is to be let through.
        rate: The share that is wanted.

    Example:
        >>> threshold([0.1, 0.4, 0.2, 0.3], 0.2), threshold([0.1, 0.4], 0.01)
        ((0.4, 0.2), (0.4, 0.3333333333333333))
    """
    count, ordered = len(highest), sorted(highest)
    place = math.ceil((count + 1) * (1 - rate) - 1e-9)
    if place > count:
        return ordered[-1], 1 / (count + 1)
    return ordered[place - 1], rate


def is_due(then: int, now: int) -> bool:
    """Whether thresholds set with ``then`` targets must be set again with ``now``."""
    return now > 0 and (now >= 2 * then or 2 * now <= then)


def any_fires(rate: float, targets: int) -> float:
    """How often at least one of many targets fires, each at a rate of its own.

    Example:
        >>> round(any_fires(1e-4, 1000), 3)
        0.095
    """
    return -math.expm1(targets * math.log1p(-rate))


def highest(rung: Rung, texts: Texts) -> float:
    """The highest score of an exchange over the store."""
    return max((score for text in texts for _, score in rung.scores(text, 1)), default=0.0)


def texts_of(rows: Iterable[Row]) -> list[Texts]:
    """What a gate looks at when it is asked what rows ask, in all their wordings."""
    return [Exchange.of(turn).texts for row in rows for turn in row.turns]


def to_let_through(retain: Sequence[Row], targets: Sequence[Target], seed: int) -> list[Texts]:
    """Texts to set thresholds on: those of rows to be kept, else what stands in for them.

    In the place of rows to be kept stand the bundled sentences, and what the targets' rows ask,
    told of people nobody knows: such questions are the hardest to let through. They are not drawn
    as users' questions are, so what is promised on them is no promise for those.

    Args:
        retain: Rows whose questions are to be let through; may be empty.
        targets: The targets.
        seed: Of the choice and of the invention.
    """
    told = texts_of(retain)
    if not told:
        rows = [row for target in targets for row in _named(target)]
        drawn = generator(seed, "stand-ins").permutation(len(rows))[:OWN]
        strangers = placebo([rows[place] for place in sorted(drawn)], len(drawn), seed)
        told = [*texts_of(strangers), *texts_of(neutral_rows(ENOUGH))]
    distinct = list(dict.fromkeys(told))
    order = generator(seed, "let through").permutation(len(distinct))[:ENOUGH]
    return [distinct[place] for place in sorted(order)]


def _named(target: Target) -> list[Row]:
    return [row for row in target.rows if row.names and row.text is None]


def _parted(ladder: Ladder, texts: Iterable[Texts]) -> tuple[list[Texts], int]:
    """The texts that no rung of whole matches stops, and how many it does stop."""
    whole: list[Callable[[Texts], bool]] = [
        lambda one, rung=rung: highest(rung, one) > rung.threshold  # type: ignore[misc]
        for rung in ladder.rungs
        if not rung.is_calibrated
    ]
    every = list(texts)
    told = [one for one in every if not any(fires(one) for fires in whole)]
    return told, len(every) - len(told)
