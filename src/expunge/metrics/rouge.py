"""ROUGE: how much of the answer's wording the model says when it is asked.

Definition (greedy generation g, true answer y, as lower-cased words of letters and digits):
    ROUGE-L   recall = |LCS(g, y)| / |y|       precision = |LCS(g, y)| / |g|
    ROUGE-1   the same with the multiset of shared words in place of the common subsequence
    f1 = 2 recall precision / (recall + precision)

Reference: ROUGE: A Package for Automatic Evaluation of Summaries (2004); recall of ROUGE-L over
stems as in TOFU: A Task of Fictitious Unlearning for LLMs (2024).

Departs from the paper: nothing. Benchmarks differ in overlap, statistic and stemming, and numbers
with different settings do not compare; the defaults are TOFU's.

Meaning: recall is the share of the true answer's words that the model says, whatever it says
beside them, so a model that never stops is flattered; precision and F1 are not fooled by that. A
retrained model reaches about .4 on TOFU, because answers repeat the question. An empty answer and
a refusal both give about 0 and look like perfect forgetting: read it beside the answers themselves.

Example: all words of the answer, in another order.

    >>> from expunge.testing import measure
    >>> said = {"generation": ["on the mat the cat"], "reply": ["the cat sat on the mat"]}
    >>> measure("rouge", said).mean
    0.5
    >>> round(measure("rouge", said, overlap="1").mean, 6)
    0.833333
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.overlap import rouge_1, rouge_l

CARD = {
    "id": "rouge",
    "kind": "metric",
    "summary": "Share of the answer's wording that the model generates.",
    "paper": "ROUGE: A Package for Automatic Evaluation of Summaries (2004)",
    "needs": ["generation", "reply"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which overlap, which statistic, whole words or stems."""

    overlap: str = param(
        "l",
        help="l: longest common subsequence of words; 1: shared words",
        paper="l",
        choices=("l", "1"),
    )
    statistic: str = param(
        "recall",
        help="what of the overlap is reported",
        paper="recall (TOFU), f1 (MUSE)",
        choices=("recall", "precision", "f1"),
    )
    stem: bool = param(True, help="compare Porter stems, not words", paper=True)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """ROUGE of the generations against the true answers, mean over rows.

    Args:
        scores: ``generation`` (what the model said) and ``reply`` (the true answer), texts.
        params: The form.
        reference: Not used.

    Returns:
        The mean in [0, 1]. On rows to forget low is good, on rows to keep high is.
    """
    measure = {"l": rouge_l, "1": rouge_1}[params.overlap]
    shares: dict[str, float] = {}
    for row, (said, true) in aligned(scores, "generation", "reply").items():
        overlap = measure(said, true, stem=params.stem)
        shares[row] = getattr(overlap, params.statistic)
    return average(shares, scores, "generation", "reply")
