"""FADE: how far what the model says is from what the retrained model says, both ways.

Definition (p_u the model, p_r the reference; x a prompt; answers a ~ p_u(.|x) and b ~ p_r(.|x)
drawn at temperature 1 from the whole distribution; |a| tokens, the end of the answer included):
    D_ur(x) = mean_a [log p_u(a|x) - log p_r(a|x)] / |a|     it says what the reference would not
    D_ru(x) = mean_b [log p_r(b|x) - log p_u(b|x)] / |b|     it misses what the reference says
    FADE    = mean_x (D_ur(x) + D_ru(x))                     nats a token
    ratio   = FADE / FADE(original, reference)               above 1: farther than doing nothing

Meaning: an estimate of the symmetric divergence of two models, 0 when they are the same. Low is
good. Two models retrained with other seeds do not reach 0 either; their distance is the floor,
and what lies within it is as good as retrained. A refusal is far from a reference that answers
something: it raises D_ur and D_ru alike. A model can be near on these prompts and far on others.
The estimate of a small distance may fall below 0 by chance.

Example:
    One prompt and one token to say, p_u = (.8, .2) and p_r = (.5, .5), drawn in exact proportion.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> scores = {
    ...     "own_rate": [[log(0.8)] * 4 + [log(0.2)]], "own_rate_by_reference": [[log(0.5)] * 5],
    ...     "reference_rate": [[log(0.5)] * 2], "reference_rate_by_model": [[log(0.8), log(0.2)]],
    ... }
    >>> value = measure("fade", scores)
    >>> round(value.mean, 4), round(value.parts["says_otherwise"], 4)
    (0.4159, 0.1927)

Reference: Reference-Specific Unlearning Metrics Can Hide the Truth (2025).

Departs from the paper: its text was not at hand, only its abstract and reviews. INFERRED: the
length normalisation, sampling without top-k or nucleus (with them the estimate is biased), the
number and length of the samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.lm.samples import Sample
    from expunge.lm.subject import Subject
    from expunge.requests.rows import Row

CARD = {
    "id": "fade",
    "kind": "metric",
    "summary": "Distance of what the model says from what the retrained model says, both ways.",
    "paper": "Reference-Specific Unlearning Metrics Can Hide the Truth (2025)",
    "needs": ["own_rate", "own_rate_by_reference", "reference_rate", "reference_rate_by_model"],
    "models": ["reference"],
    "models_if_given": ["original"],
    "better": "low",
    "range": [None, None],
    "access": "logits",
    "cost": "2 S sampled answers and 4 S forward passes a row; twice that with the original",
    "maturity": "paper",
    "version": 1,
}

DRAWN = ("own_rate", "own_rate_by_reference", "reference_rate", "reference_rate_by_model")
"""Readings: log-likelihood of each sample in nats a token, row id -> [S].

Samples of the model by itself and by the reference, then those of the reference by itself and by
the model. With ``original:`` in front they are those of the original in the place of the model,
with ``floor:`` those of a second reference."""

Distances = dict[str, float]
"""Row id -> nats a token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much is drawn."""

    samples: int = param(16, help="answers drawn from each model for each prompt", low=8)
    new_tokens: int = param(64, help="longest answer drawn, in tokens", low=1)
    seed: int = param(0, help="decides the answers drawn")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """Draw from the model and the reference, and from the original where it is given."""
    from expunge.lm.samples import check_same_tokens

    if models.reference is None:
        return {}
    given = [each for each in (models.model, models.original) if each is not None]
    check_same_tokens(models.reference, *given)
    said = _drawn(models.reference, rows[""], params, "reference")
    found = between(models.model, models.reference, rows[""], params, said)
    if models.original is not None:
        other = between(models.original, models.reference, rows[""], params, said)
        found |= {f"original:{name}": values for name, values in other.items()}
    return found


def between(
    model: "Subject",
    reference: "Subject",
    rows: Sequence["Row"],
    params: Params,
    said: Sequence[Sequence["Sample"]] | None = None,
) -> dict[str, dict[str, Any]]:
    """The four readings of two models; of two references, those of the floor.

    Args:
        model: One model.
        reference: The other one.
        rows: What they are asked.
        params: How much is drawn.
        said: What the reference said to each row, where that is known.

    Returns:
        A name of `DRAWN` -> row id -> [S].
    """
    own = _drawn(model, rows, params, "model")
    other = said or _drawn(reference, rows, params, "reference")
    tables = ((own, model), (own, reference), (other, reference), (other, model))
    return {
        name: _rated(rows, samples, judge)
        for name, (samples, judge) in zip(DRAWN, tables, strict=True)
    }


def _drawn(
    subject: "Subject", rows: Sequence["Row"], params: Params, who: str
) -> list[list["Sample"]]:
    """Answers to every row; model and reference draw apart, so that equal models are no pair."""
    from expunge.core.rng import derive
    from expunge.lm.samples import draw

    return draw(
        subject,
        [row.turn for row in rows],
        samples=params.samples,
        new_tokens=params.new_tokens,
        seed=derive(params.seed, "fade", who),
    )


def _rated(
    rows: Sequence["Row"], samples: Sequence[Sequence["Sample"]], judge: "Subject"
) -> dict[str, list[float]]:
    from expunge.lm.samples import rates

    found = iter(rates(judge, [sample for of_row in samples for sample in of_row]))
    return {
        row.id: [next(found) for _ in of_row] for row, of_row in zip(rows, samples, strict=True)
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """FADE, mean over rows.

    Args:
        scores: The readings of `DRAWN`; with ``original:`` or ``floor:`` in front, the distances
            they are compared with.
        params: Not looked at.
        reference: Not used: the reference is in the readings.

    Returns:
        Nats a token. ``parts["says_otherwise"]`` and ``parts["misses"]`` are the two directions,
        ``parts["original"]``, ``parts["floor"]`` and ``parts["ratio"]`` what it is compared with,
        where that was read.

    Raises:
        ExpungeError: E-DATA-013 when the two likelihoods of a row are not of the same samples.
    """
    says, misses = _directions(scores, "")
    both = {row: says[row] + misses[row] for row in says}
    value = average(both, scores, *DRAWN)
    if value.mean is None:
        return value
    beside = {"says_otherwise": says, "misses": misses}
    for name in ("original", "floor"):
        if table(scores, f"{name}:{DRAWN[0]}"):
            one, other = _directions(scores, f"{name}:")
            beside[name] = {row: one[row] + other[row] for row in one}
    return replace(value, beside=beside, parts=_parts(value, beside, params))


def _parts(
    value: Value, beside: Mapping[str, Mapping[str, float]], params: Params
) -> dict[str, float]:
    import numpy as np

    arrays = {name: np.array(list(rows.values())) for name, rows in beside.items()}
    found = aggregate(np.array(list(value.per_row.values())), arrays, params)
    return {name: number for name, number in found.items() if name != "mean"}


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """The distance, its directions, and what it is compared with."""
    found = {"mean": float(rows.mean())}
    found |= {name: float(values.mean()) for name, values in beside.items() if len(values)}
    if found.get("original", 0.0) > 0.0:
        found["ratio"] = found["mean"] / found["original"]
    return found


def _directions(
    scores: Mapping[str, Any], prefix: str
) -> tuple[dict[str, float], dict[str, float]]:
    """D_ur and D_ru of each row."""
    names = [prefix + name for name in DRAWN]
    says: dict[str, float] = {}
    misses: dict[str, float] = {}
    for row, (own, by_reference, of_reference, by_model) in aligned(scores, *names).items():
        says[row] = _excess(row, own, by_reference)
        misses[row] = _excess(row, of_reference, by_model)
    return says, misses


def _excess(row: str, own: Sequence[float], other: Sequence[float]) -> float:
    """How much likelier a model finds its own samples than the other one does, nats a token."""
    if len(own) != len(other):
        raise ExpungeError(
            "E-DATA-013",
            f"Row {row!r}: {len(own)} samples by one model, {len(other)} by the other.",
            "the same samples scored by both models.",
            "Read the row again.",
        )
    return fmean(one - by_other for one, by_other in zip(own, other, strict=True))
