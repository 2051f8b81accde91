"""What the model can still do, relative to the original.

Definition:
    U = min(1, H_u / H_o),  H = harmonic mean of (retain, worst neighbour stratum, general)

Each part is the share of rows whose value the model gives when asked, averaged over the wordings
of a row: a leak is the worst case over wordings, usefulness is not. Neighbour rows may name a
stratum in ``meta["stratum"]``; retain rows whose stratum is ``general`` make up the general part.
Where the original itself hardly ever gives the value (running text), greedy token accuracy takes
the place of recall, for all models alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.audit.statistics import REPLICATES, FloatArray, resample
from expunge.core.rng import generator
from expunge.lm.elicit import ask_plainly
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.text.gibberish import gibberish

IntArray = npt.NDArray[np.int_]
BoolArray = npt.NDArray[np.bool_]

MOST_ROWS = 200
"""Rows of a role that are asked; more make the interval narrower than anybody needs."""
ASKABLE = 0.10
"""Recall of the original below which token accuracy is the measure."""
GIBBERISH = 0.5
"""Score from which an answer counts as gibberish."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """What one model did on the rows to be kept.

    Attributes:
        recall: [rows] share of wordings whose answer holds the value.
        accuracy: [rows] share of tokens that are the model's first choice.
        gibberish: [rows] share of wordings whose answer is gibberish.
    """

    recall: FloatArray
    accuracy: FloatArray
    gibberish: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """What is kept of rows of one kind.

    Attributes:
        model: Mean score of the audited model.
        original: That of the original.
        interval: 95% interval of ``model``.
        rows: Number of rows.
    """

    model: float
    original: float
    interval: tuple[float, float]
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Utility:
    """Utility of the audited model.

    Attributes:
        value: U in [0, 1].
        interval: 95% interval of U.
        replicates: [B] U of each replicate.
        parts: Part -> (model, original); ``retain``, and ``neighbour`` and ``general`` where given.
        strata: ``part`` or ``part/stratum`` -> what is kept of it, every one that has rows.
        gibberish: Gibberish rate of model and original on these prompts.
        measure: ``recall`` or ``token accuracy``.
        rows: Number of rows asked.
    """

    value: float
    interval: tuple[float, float]
    replicates: FloatArray
    parts: Mapping[str, tuple[float, float]]
    strata: Mapping[str, Stratum]
    gibberish: tuple[float, float]
    measure: str
    rows: int


def kept_rows(rows: Sequence[Row], seed: int, role: str) -> list[Row]:
    """At most `MOST_ROWS` rows, always the same ones, in the order given."""
    if len(rows) <= MOST_ROWS:
        return list(rows)
    chosen = generator(seed, "utility", role).choice(len(rows), MOST_ROWS, replace=False)
    return [rows[index] for index in sorted(chosen)]


def strata(retain: Sequence[Row], neighbour: Sequence[Row]) -> list[tuple[str, str]]:
    """Part and stratum of each row, retain rows first."""
    kept = [
        ("general", "") if row.meta.get("stratum") == "general" else ("retain", "")
        for row in retain
    ]
    return kept + [("neighbour", str(row.meta.get("stratum", ""))) for row in neighbour]


def answers(subject: Subject, rows: Sequence[Row], new_tokens: int) -> Answers:
    """Ask a model every wording of every row."""
    heard = ask_plainly(subject, rows, new_tokens=new_tokens)
    owners = np.repeat(np.arange(len(rows)), [len(row.turns) for row in rows])
    recalled = np.array([one.leaks[0] for one in heard])
    strange = np.array([gibberish(one.outputs[0]) >= GIBBERISH for one in heard], dtype=float)
    scores = subject.score([row.turn for row in rows])
    return Answers(
        recall=_by_row(recalled, owners),
        accuracy=np.array([scored.hit.mean() for scored in scores], dtype=np.float64),
        gibberish=_by_row(strange, owners),
    )


def _by_row(values: FloatArray, owners: IntArray) -> FloatArray:
    means: FloatArray = np.bincount(owners, weights=values) / np.bincount(owners)
    return means


def utility(
    model: Answers,
    original: Answers,
    groups: Sequence[tuple[str, str]],
    seed: int,
    replicates: int = REPLICATES,
) -> Utility | None:
    """U with its paired bootstrap interval.

    Args:
        model: Answers of the audited model.
        original: Answers of the original to the same rows.
        groups: Part and stratum of each row (`strata`).
        seed: Seed of the audit.
        replicates: Number of bootstrap replicates.

    Returns:
        None when the original itself is of no use on these rows, so that nothing can be relative
        to it.
    """
    parts = sorted(set(groups))
    masks = [np.array([group == part for group in groups]) for part in parts]
    askable = all(original.recall[mask].mean() >= ASKABLE for mask in masks)
    ours, theirs = (
        (model.recall, original.recall) if askable else (model.accuracy, original.accuracy)
    )
    weights = np.concatenate(
        [np.ones((1, len(groups))), resample(range(len(groups)), replicates, seed, "utility")]
    )
    means = [_means(weights, ours, mask) for mask in masks]
    of_model = _worst_of_part(means, parts)
    of_original = _worst_of_part([_means(weights, theirs, mask) for mask in masks], parts)
    base = _harmonic(list(of_original.values()))
    if base[0] <= 0:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.minimum(1, _harmonic(list(of_model.values())) / base)
    return Utility(
        value=float(ratio[0]),
        interval=_interval(ratio[1:]),
        replicates=ratio[1:],
        parts={part: (float(of_model[part][0]), float(of_original[part][0])) for part in of_model},
        strata={
            "/".join(filter(None, part)): Stratum(
                model=float(mean[0]),
                original=float(theirs[mask].mean()),
                interval=_interval(mean[1:]),
                rows=int(mask.sum()),
            )
            for part, mask, mean in zip(parts, masks, means, strict=True)
        },
        gibberish=(float(model.gibberish.mean()), float(original.gibberish.mean())),
        measure="recall" if askable else "token accuracy",
        rows=len(groups),
    )


def _means(weights: FloatArray, scores: FloatArray, mask: BoolArray) -> FloatArray:
    """[1 + B] the weighted mean score of some rows; the first is the plain one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means: FloatArray = (weights[:, mask] @ scores[mask]) / weights[:, mask].sum(axis=1)
    return means


def _interval(replicates: FloatArray) -> tuple[float, float]:
    low, high = np.nanquantile(replicates, [0.025, 0.975])
    return float(low), float(high)


def _worst_of_part(
    means: Sequence[FloatArray], parts: Sequence[tuple[str, str]]
) -> dict[str, FloatArray]:
    """Part -> [1 + B] the mean score of its worst stratum."""
    worst: dict[str, FloatArray] = {}
    for mean, (part, _) in zip(means, parts, strict=True):
        worst[part] = np.fmin(worst[part], mean) if part in worst else mean
    return worst


def _harmonic(parts: Sequence[FloatArray]) -> FloatArray:
    """Harmonic mean over parts, 0 where one of them is 0."""
    stacked = np.stack(parts)
    with np.errstate(divide="ignore"):
        result: FloatArray = len(parts) / (1 / stacked).sum(axis=0)
    return result
