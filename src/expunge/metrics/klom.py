"""KLoM: divergence of the margins of many unlearned models from those of many retrained ones.

Definition (a row z, one margin m of it from each of N unlearned and N' retrained models):
    m       = logit_y - logsumexp_{c != y} logit_c     log-odds of the right answer, in [-100, 100]
    P, Q    = shares of the unlearned, of the retrained margins in 20 equal bins between the
              smallest and the largest of all; the last bin holds its upper edge
    KLoM(z) = sum_b P_b log(P_b / max(Q_b, 1e-5))      nats, 0 to ln(1e5) = 11.5129
    KLoM    = mean_z KLoM(z); beside it the 95th percentile over the rows

Meaning: 0 when the unlearned models are spread as the retrained ones are, 11.5129 when no
unlearned model lies where a retrained one does. It compares distributions, so it needs many models
of both kinds, each trained with its own seed; with few of them even two samples of the same models
stand apart (0.16 with 100 and 100). ``half_split`` is that distance between two halves of the
retrained models: what lies within it is noise. ``original`` is what doing nothing gives.

Example:
    Three models that agree with the retrained ones on one row and on another one are far from all.

    >>> from expunge.testing import measure
    >>> retrained = {"margin": {"a": [0.0, 1.0, 2.0], "b": [10.0, 10.0, 10.0]}}
    >>> unlearned = {"margin": {"a": [2.0, 0.0, 1.0], "b": [0.0, 0.0, 0.0]}}
    >>> value = measure("klom", unlearned, reference=retrained)
    >>> round(value.per_row["a"], 6), round(value.per_row["b"], 6)
    (0.0, 11.512925)

Reference: Attribute-to-Delete: Machine Unlearning via Datamodel Matching (2024).

Departs from the paper: its published function drops the margins at the upper edge and shares Q out
anew after the floor, so that all P at 0 and all Q at 10 gives 0 and the reverse no number. Here
the last bin is closed and nothing is shared out anew. INFERRED: the margin of an answer is the mean
(``over=sum``: the sum) of its tokens' margins, its end included; the paper's rows have one label.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, lacking, matched, table, unmeasurable

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "klom",
    "kind": "metric",
    "summary": "Divergence of the margins of many unlearned models from many retrained ones.",
    "paper": "Attribute-to-Delete: Machine Unlearning via Datamodel Matching (2024)",
    "needs": ["margin", "reference"],
    "better": "low",
    "range": [0.0, 11.513],
    "access": "logits",
    "cost": "one forward pass a row and model; some hundred models of both kinds",
    "maturity": "paper",
    "version": 1,
}

CLIP = 100.0
"""Margins are cut to this many nats on both sides."""

FLOOR = 1e-5
"""Least share of retrained models in a bin."""

FEWEST = 2
"""Models without which there is no distribution."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How margins are formed and compared."""

    bins: int = param(20, help="bins between the smallest and the largest margin", paper=20, low=2)
    over: str = param(
        "mean",
        help="margin of an answer: mean or sum over its tokens",
        choices=("mean", "sum"),
    )
    allow_unmatched: bool = param(
        False, help="compare rows that both have, where one side has others"
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, list[float]]]:
    """The margins of one model, a list of one for each row; see `pooled`."""
    from expunge.lm.margins import answer_margins

    form = fmean if params.over == "mean" else math.fsum
    found = answer_margins(models.model, rows[""])
    return {"margin": {row: [form(of_tokens)] for row, of_tokens in found.items()}}


def pooled(readings: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """The readings of several models as those of one metric.

    Args:
        readings: What `read` gave for each model.

    Returns:
        ``margin``: row id -> one value a model, in their order.

    Raises:
        ExpungeError: E-DATA-013 when the models were not read on the same rows.
    """
    tables = [table(reading, "margin") for reading in readings]
    for other in tables[1:]:
        matched(tables[0], other, allow_unmatched=False)
    rows = tables[0] if tables else {}
    return {"margin": {row: [margin for of in tables for margin in of[row]] for row in rows}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """KLoM, mean over rows.

    Args:
        scores: ``margin``: for each row the margins of the unlearned models, in nats;
            ``original:margin`` likewise for models that forgot nothing, where there are any.
        params: The bins.
        reference: ``margin`` of the retrained models.

    Returns:
        Nats. ``parts["percentile_95"]`` is over the rows; ``parts["half_split"]`` the distance of
        two halves of the retrained models (from four of them on); ``parts["original"]`` what
        models that forgot nothing have.

    Raises:
        ExpungeError: E-DATA-013 when the two sides have other rows, or rows of one side have not
            the same number of models.
    """
    if reference is None:
        return unmeasurable("the margins of retrained models are not given")
    ours, theirs = table(scores, "margin"), table(reference, "margin")
    if not ours or not theirs:
        return unmeasurable(f"no row has margins of {'retrained' if ours else 'unlearned'} models")
    matched(ours, theirs, allow_unmatched=params.allow_unmatched)
    fewest = min(_models(ours, "unlearned"), _models(theirs, "retrained"))
    if fewest < FEWEST:
        return unmeasurable("one model is no distribution: pool the margins of several models")
    distances = _distances(ours, theirs, params)
    value = average(distances, {"margin": ours}, "margin")
    if value.mean is None:
        return value
    beside = _beside(scores, theirs, params)
    note = lacking(distances, scores, "margin")
    return replace(value, beside=beside, parts=_parts(value, beside, params), note=note)


def klom(unlearned: Sequence[float], retrained: Sequence[float], bins: int = 20) -> float:
    """KLoM of one row.

    Args:
        unlearned: Margins of the unlearned models.
        retrained: Margins of the retrained models.
        bins: Number of bins.

    Example:
        >>> round(klom([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]), 6)
        0.143841
    """
    ours, theirs = ([min(max(m, -CLIP), CLIP) for m in side] for side in (unlearned, retrained))
    low, high = min(*ours, *theirs), max(*ours, *theirs)
    p, q = (_shares(side, low, high, bins) for side in (ours, theirs))
    return sum(share * math.log(share / max(q.get(b, 0.0), FLOOR)) for b, share in p.items())


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """Mean and 95th percentile over the rows, and the anchors."""
    import numpy as np

    found = {"mean": float(rows.mean()), "percentile_95": float(np.percentile(rows, 95))}
    return found | {name: float(values.mean()) for name, values in beside.items() if len(values)}


def _parts(
    value: Value, beside: Mapping[str, Mapping[str, float]], params: Params
) -> dict[str, float]:
    import numpy as np

    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    found = aggregate(np.array(list(value.per_row.values())), arrays, params)
    return {name: number for name, number in found.items() if name != "mean"}


def _beside(
    scores: Mapping[str, Any], theirs: Mapping[str, Any], params: Params
) -> dict[str, dict[str, float]]:
    """The anchors: retrained against retrained, and models that forgot nothing."""
    found: dict[str, dict[str, float]] = {}
    if _models(theirs, "retrained") >= 2 * FEWEST:
        halves = [{row: margins[at::2] for row, margins in theirs.items()} for at in (0, 1)]
        found["half_split"] = _distances(halves[0], halves[1], params)
    if original := table(scores, "original:margin"):
        matched(original, theirs, allow_unmatched=params.allow_unmatched)
        found["original"] = _distances(original, theirs, params)
    return found


def _distances(
    ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]], params: Params
) -> dict[str, float]:
    both = [row for row in ours if row in theirs]
    return {row: _distance(ours[row], theirs[row], params.bins) for row in both}


def _distance(ours: Sequence[float], theirs: Sequence[float], bins: int) -> float:
    """NaN where a margin is not a number, so that the whole is said not to be measurable."""
    if any(math.isnan(margin) for margin in (*ours, *theirs)):
        return math.nan
    return klom(ours, theirs, bins)


def _shares(values: Sequence[float], low: float, high: float, bins: int) -> dict[int, float]:
    """Share of the values in each bin that has any; the last bin holds its upper edge."""
    width = (high - low) / bins
    counts: dict[int, int] = {}
    for value in values:
        place = min(int((value - low) / width), bins - 1) if width > 0 else 0
        counts[place] = counts.get(place, 0) + 1
    return {place: count / len(values) for place, count in counts.items()}


def _models(margins: Mapping[str, Sequence[float]], which: str) -> int:
    """How many models the rows were read from."""
    numbers = {len(of_row) for of_row in margins.values()}
    if len(numbers) > 1:
        raise ExpungeError(
            "E-DATA-013",
            f"Rows with margins of {min(numbers)} and of {max(numbers)} {which} models.",
            "every row read from every model.",
            "Read the rows that lack some again.",
        )
    return numbers.pop()
