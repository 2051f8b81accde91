r"""Knowledge memorisation: does the model know the answer when it is shown how to answer?

Definition (g_i the greedy answer of at most 32 tokens after worked examples and the question, cut
at an empty line or the next question; y_i the true answer):
    KnowMem  = 100 mean_i F1 of ROUGE-L(g_i, y_i)          lower-cased words, not stemmed
    answered = 100 mean_i [all words of y_i stand in g_i, in order]
    answered_low, answered_high    its exact 95% interval over rows (Clopper and Pearson)

Reference: MUSE: Machine Unlearning Six-Way Evaluation (2024); the exact interval: The Use of
Confidence or Fiducial Limits Illustrated in the Case of the Binomial (1934).

Departs from the paper: nothing in KnowMem, which is its code's (OpenUnlearning stems the words:
``stem``, and can report recall). ``answered`` is ours (INFERRED): on 20 rows one answer is 5
percent, and an interval that assumes many rows would hide it.

Meaning: high where rows are to be kept, low where they are to be forgotten. A retrained model is
well above 0: years, nationalities and common names are guessed from the examples' pattern. An
unlearned model can copy an example's answer, which reads like forgetting and may be confusion;
look at the answers.

Example: a right answer that runs on into the next question, and a wrong one.

    >>> from expunge.testing import measure
    >>> said = ["In Oslo\nQuestion: Where was she born?", "In 1950"]
    >>> value = measure("knowledge-memorisation", {"generation": said, "reply": ["Oslo", "1948"]})
    >>> round(value.mean, 4), value.parts["answered"]
    (33.3333, 50.0)
    >>> round(value.parts["answered_low"], 4), round(value.parts["answered_high"], 4)
    (1.2579, 98.7421)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scipy.stats import binomtest

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table
from expunge.numbers.membership import READY
from expunge.text.few_shot import first_answer
from expunge.text.overlap import rouge_l

CARD = {
    "id": "knowledge-memorisation",
    "kind": "metric",
    "summary": "How well the model answers questions after worked examples, in percent.",
    "paper": "MUSE: Machine Unlearning Six-Way Evaluation (2024)",
    "needs": ["generation", "reply"],
    "better": "low",
    "range": [0.0, 100.0],
    "access": "text",
    "cost": "one greedy generation of 32 tokens a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which statistic of the overlap, whole words or stems."""

    statistic: str = param(
        "f1", help="what of the overlap is reported", paper="f1", choices=("f1", "recall")
    )
    stem: bool = param(
        False, help="compare Porter stems, as OpenUnlearning does, not words", paper=False
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Knowledge memorisation, mean over rows.

    Args:
        scores: ``generation`` (what the model said) and ``reply`` (the true answer), texts; or
            ready overlaps in [0, 1] as ``score``, as published logs hold them.
        params: The form.
        reference: Not used.

    Returns:
        The mean in percent, with ``answered`` and its exact interval among the parts where there
        are texts.
    """
    if READY in scores:
        return average({r: 100 * s for r, s in table(scores, READY).items()}, scores, READY)
    overlaps = {
        row: rouge_l(first_answer(said), true, stem=params.stem)
        for row, (said, true) in aligned(scores, "generation", "reply").items()
    }
    shares = {row: 100 * getattr(overlap, params.statistic) for row, overlap in overlaps.items()}
    value = average(shares, scores, "generation", "reply")
    if value.mean is None:
        return value
    answered = {row: 100.0 * (overlap.recall == 1) for row, overlap in overlaps.items()}
    low, high = clopper_pearson(sum(map(bool, answered.values())), len(answered))
    parts = {
        "answered": sum(answered.values()) / len(answered),
        "answered_low": 100 * low,
        "answered_high": 100 * high,
    }
    return replace(value, beside={"answered": answered}, parts=parts)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The means of the overlaps [n] and of the answered rows [n]."""
    return {"mean": float(rows.mean())} | {name: float(of.mean()) for name, of in beside.items()}


def clopper_pearson(hits: int, rows: int) -> tuple[float, float]:
    """The exact 95% interval of a share.

    Example:
        >>> [round(float(edge), 6) for edge in clopper_pearson(0, 20)]
        [0.0, 0.168433]
    """
    interval = binomtest(hits, rows).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)
