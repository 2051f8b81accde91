"""Deviation score: how far the model is from having forgotten all and kept all.

Definition (R_f, R_r: mean ROUGE-L of the greedy answers on rows to forget and on rows to keep):
    DS = 100 sqrt(R_f^2 + (1 - R_r)^2)

Meaning: The distance from the corner where nothing of the forget rows is said and everything of
the retain rows is; low is good, 0 perfect, 141.4 the opposite. It is on a scale of 100 while R is
between 0 and 1. Silence is rewarded on forget rows, so a model that says nothing there does not
show that it forgot; the share of empty answers stands among the parts. A retrained model has about
the R_f of a guess, not 0.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025).

Departs from the paper: ROUGE-L is recall over stems unless set otherwise, as in TOFU; the paper
does not say which statistic.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"generation": ["one x x x x"], "reply": ["one two three four five"]}
    >>> kept = {"retain.generation": ["1 2 3 4 5 6 7 8 9"], "retain.reply": ["1 2 3 4 5 6 7 8 9 0"]}
    >>> round(measure("deviation-score", {**scores, **kept}).mean, 4)
    22.3607
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, lacking, unmeasurable
from expunge.text.overlap import rouge_l

CARD = {
    "id": "deviation-score",
    "kind": "metric",
    "summary": "Distance from forgetting everything and keeping everything.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["generation", "reply", "retain.generation", "retain.reply"],
    "better": "low",
    "range": [0.0, 141.4213562373096],
    "access": "text",
    "cost": "one greedy generation a row, to forget and to keep",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which ROUGE-L."""

    statistic: str = param(
        "recall",
        help="what of the overlap is taken",
        paper="not said",
        choices=("recall", "precision", "f1"),
    )
    stem: bool = param(True, help="compare Porter stems, not words")


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The deviation score.

    Args:
        scores: ``generation`` and ``reply`` of the rows to forget, ``retain.generation`` and
            ``retain.reply`` of the rows to keep.
        params: Which ROUGE-L.
        reference: Not used.

    Returns:
        The score, 0 to 141.4; ``forget`` and ``retain`` (R_f, R_r) and the share of ``empty``
        answers on forget rows are the parts, ROUGE-L the value of each row.
    """
    forget = _overlaps(scores, "", params)
    retain = _overlaps(scores, "retain.", params)
    for prefix, shares in (("", forget), ("retain.", retain)):
        if not shares:
            return unmeasurable(f"no row has {prefix}generation and {prefix}reply")
    empty = {row: _is_empty(said) for row, (said,) in aligned(scores, "generation").items()}
    empty = {row: empty[row] for row in forget}
    silent = fmean(empty.values())
    told = f"{silent:.0%} of the forget answers are empty, which this rewards" if silent else ""
    sides = (("", forget), ("retain.", retain))
    absent = [lacking(rows, scores, f"{p}generation", f"{p}reply") for p, rows in sides]
    note = "; ".join(filter(None, (*absent, told)))
    parts = _numbers(fmean(forget.values()), fmean(retain.values())) | {"empty": silent}
    beside = {"retain": retain, "empty": empty}
    return Value(mean=parts.pop("mean"), per_row=forget, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The score, from ROUGE-L of forget rows [n] and retain rows [m]."""
    numbers = _numbers(float(rows.mean()), float(beside["retain"].mean()))
    silent = {"empty": float(beside["empty"].mean())} if "empty" in beside else {}
    return numbers | silent


def _numbers(forget: float, retain: float) -> dict[str, float]:
    score = 100 * (forget**2 + (1 - retain) ** 2) ** 0.5
    return {"mean": score, "forget": forget, "retain": retain}


def _overlaps(scores: Mapping[str, Any], prefix: str, params: Params) -> dict[str, float]:
    rows = aligned(scores, f"{prefix}generation", f"{prefix}reply")
    return {
        row: float(getattr(rouge_l(said, true, stem=params.stem), params.statistic))
        for row, (said, true) in rows.items()
    }


def _is_empty(said: str) -> float:
    return float(not said.strip())
