"""Surrogate stress: does a metric say "forgotten" of the fact, or of the wording only?

Definition (mu_f in [0, 1] how forgotten a metric calls a row, 1 wholly; D~(x) the row derived from
x: the same fact in other words, at a cosine between lo and hi; rows the original does not know, in
either wording, are dropped):
    IG = mean_x mu_f(x) - mu_f(D~(x))        illusion gap, -1 to 1
    the metric is unreliable on this model where the lower bound of the 95% interval is above .1

Meaning: a gap near 0 means that the metric says the same of the fact however it is put; it is about
the metric on this model, and says nothing of whether the model forgot. A model that refuses the
literal questions and knows all else has a gap near its whole score. A retrained model knows neither
wording: its gap, ``reference``, is what the wordings themselves make of the metric, and should be
near 0 (it is not for ROUGE where one wording repeats more of its question than the other). Rows in
which ``derived`` is high as well are forgotten, as far as this metric sees.

Example:
    Two facts. In the words of the forget set both are gone, in other words one is still told.

    >>> from expunge.testing import measure
    >>> scores = {"forgotten": [1.0, 1.0], "derived.forgotten": [0.0, 1.0],
    ...           "original:forgotten": [0.0, 0.0], "original:derived.forgotten": [0.0, 0.0]}
    >>> value = measure("surrogate-stress", scores)
    >>> value.mean, value.parts["forgotten"], value.parts["derived"]
    (0.5, 1.0, 0.5)

Reference: The Erasure Illusion: Stress-Testing the Generalization of LLM Forgetting Evaluation
(2025).

Departs from the paper: only its abstract and reviews were at hand. INFERRED: the band, the bar of
.1, what the original must know, and which derived row is the best (the one nearest to the middle
of the band). The paper writes its derived rows with a language model; here they are given (role
``derived``, ``meta.derived_from`` the forget row's id), or made of paraphrases and of the wordings
of other rows of the same attribute, and are compared by spelling unless ``embedder`` names a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import Units, interval, replicated
from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, average, table, unmeasurable

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.lm.subject import Subject
    from expunge.requests.rows import Row

CARD = {
    "id": "surrogate-stress",
    "kind": "metric",
    "summary": "Whether a metric calls the fact forgotten, or only its wording.",
    "paper": "The Erasure Illusion: Stress-Testing the Generalization of LLM Forgetting Evaluation "
    "(2025)",
    "needs": [
        "forgotten",
        "derived.forgotten",
        "original:forgotten",
        "original:derived.forgotten",
    ],
    "models": ["original"],
    "models_if_given": ["reference"],
    "better": "target",
    "target": 0.0,
    "range": [-1.0, 1.0],
    "access": "as the metric under stress",
    "cost": "four times the metric under stress, twice more with a reference",
    "maturity": "paper",
    "version": 1,
}

FOUR = (
    "forgotten",
    "derived.forgotten",
    "original:forgotten",
    "original:derived.forgotten",
)
"""The readings, in the order of the definition."""

BAR = 0.1
"""Lower bound of the gap above which a metric is unreliable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which metric is put under stress, and what it is asked about."""

    measure: str = param(
        "answer-containment",
        help="id of the metric: one value in [0, 1] a row, from one model alone",
        paper="seven metrics in turn",
    )
    low: float = param(0.3, help="least cosine of a row and its derived row", low=0.0, high=1.0)
    high: float = param(0.7, help="largest cosine", low=0.0, high=1.0)
    known: float = param(
        0.5, help="most that the original may have forgotten of a row", low=0.0, high=1.0
    )
    embedder: str = param(
        "hashing", help="hashing (spelling), or the folder of a static embedding model (model2vec)"
    )
    new_tokens: int = param(64, help="longest answer, in tokens", low=1)
    seed: int = param(0, help="of the interval")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """How forgotten the metric calls each row and its derived row, of every model given."""
    from expunge.requests.answers import with_answers
    from expunge.requests.derived import derived
    from expunge.text.embedding import embedder

    if models.original is None:
        return {}
    told = with_answers(rows[""])
    other = derived(
        told,
        rows.get("derived", ()),
        low=params.low,
        high=params.high,
        embedder=embedder(params.embedder),
    )
    sets = {"": told, "derived.": [other[row.id] for row in told if row.id in other]}
    subjects = {"": models.model, "original:": models.original, "reference:": models.reference}
    found: dict[str, dict[str, Any]] = {
        f"{who}{role}forgotten": _forgotten(subject, of, params)
        for who, subject in subjects.items()
        if subject is not None
        for role, of in sets.items()
    }
    return {**found, "entity": {row.id: row.subject for row in told}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The illusion gap, mean over rows.

    Args:
        scores: The readings of the card: row id -> how forgotten, in [0, 1]; those of derived rows
            under the id of the row they are derived from. Beside them ``reference:forgotten`` and
            ``reference:derived.forgotten``, and ``entity``: whom each row is about.
        params: What the original must know.
        reference: Not used: its readings stand among the scores.

    Returns:
        The mean in [-1, 1], with its interval over entities. ``parts``: ``forgotten`` and
        ``derived`` the two means, ``unreliable`` 1 where the metric is, else 0; ``reference`` the
        gap of the retrained model.
    """
    both = aligned(scores, *FOUR)
    known = {
        row: (literal, other)
        for row, (literal, other, *original) in both.items()
        if all(forgotten <= params.known for forgotten in original)
    }
    note = _left_out(len(asked(scores, FOUR[0])), len(both), len(known))
    if not known:
        return unmeasurable(note or "no row was read, and it takes the original to read them")
    gaps = {row: literal - other for row, (literal, other) in known.items()}
    value = average(gaps, {"gap": gaps}, "gap")
    if value.mean is None:
        return value
    beside = {
        "forgotten": {row: literal for row, (literal, _) in known.items()},
        "derived": {row: other for row, (_, other) in known.items()},
    }
    beside |= _floor(scores, gaps)
    drawn = replicated(gaps, {}, Units(table(scores, "entity"), params.seed))["mean"]
    bounds = interval(drawn) if len(gaps) > 1 else None
    parts = _parts(gaps, beside, params)
    parts["unreliable"] = float(bounds is not None and bounds[0] > BAR)
    return replace(value, beside=beside, interval=bounds, parts=parts, note=note)


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """The gap, what it lies between, and that of the reference."""
    found = {"mean": float(rows.mean())}
    return found | {name: float(values.mean()) for name, values in beside.items() if len(values)}


def _parts(
    gaps: Mapping[str, float], beside: Mapping[str, Mapping[str, float]], params: Params
) -> dict[str, float]:
    import numpy as np

    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    found = aggregate(np.array(list(gaps.values())), arrays, params)
    return {name: number for name, number in found.items() if name != "mean"}


def _floor(scores: Mapping[str, Any], gaps: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The gap of the reference on the same rows, where it was read."""
    both = aligned(scores, "reference:forgotten", "reference:derived.forgotten")
    floor = {row: literal - other for row, (literal, other) in both.items() if row in gaps}
    return {"reference": floor} if floor else {}


def _left_out(rows: int, both: int, known: int) -> str:
    """How many rows the gap is not about, and why."""
    told = [f"{rows - both} of {rows} rows have no derived row in the band"] if rows > both else []
    if both > known:
        told.append(f"{both - known} of {both} rows are not known to the original")
    return "; ".join(told)


def _forgotten(subject: "Subject", rows: Sequence["Row"], params: Params) -> dict[str, float]:
    """How forgotten the metric calls each row, 1 wholly."""
    from expunge.core import registry
    from expunge.core.measuring import Measure
    from expunge.lm.gather import Gathered, Models
    from expunge.lm.readings import Asking

    _check_stressable(params.measure)
    asking = {"forget": Asking(new_tokens=params.new_tokens)}
    gathered = Gathered(Models(model=subject), {"forget": rows}, asking)
    scores = gathered.scores(Measure(metric=params.measure))
    settings = registry.metrics.params(params.measure, {})
    value: Value = registry.metrics.load(params.measure).compute(scores, settings)
    is_low = registry.metrics.card(params.measure).extra["better"] == "low"
    return {row: 1.0 - share if is_low else share for row, share in value.per_row.items()}


def _check_stressable(metric_id: str) -> None:
    """Check that a metric says of each row by itself how forgotten it is."""
    from expunge.core import registry
    from expunge.lm.readings import NAMES, TEXTS

    card = registry.metrics.card(metric_id)
    is_fit = (
        card.extra["better"] in ("low", "high")
        and card.extra["range"] == [0.0, 1.0]
        and set(card.needs) <= {*NAMES, *TEXTS}
    )
    if not is_fit:
        raise ExpungeError(
            "E-USE-006",
            f"measure = {metric_id!r}, put under stress.",
            "a metric with a value in [0, 1] for each row, read from one model: rouge, "
            "probability, answer-containment, extraction-strength.",
            "Choose another metric.",
        )
