"""MEMO: how much of the rest a model says wherever its question or answer is broken off.

Definition (question q, answer a, both as characters; L = 1, 6, 11, ... below the length):
    prefix    prompt q[:L]              label q[L:] + " " + a      L < |q|
    suffix    prompt q + " " + a[:L]    label a[L:]                L < |a|
    MEMO(row) = mean_L ROUGE-1(greedy answer to the prompt, label)

Meaning: 1 when the model goes on as the row does from every place, near 0 when from none. Low is
good on rows to forget. A retrained model does not reach 0: short common words are shared by any
two texts, and what the question's words suggest is said by any model. Precision is high for a model
that says one right word and ends; recall for one that says much.

Example:
    An answer of eleven characters is broken off after one and after six of them.

    >>> from expunge.metrics.memo import windows
    >>> windows("Where?", "in the mill", "suffix")
    [('Where? i', 'n the mill'), ('Where? in the', ' mill')]
    >>> from expunge.testing import measure
    >>> measure("memo", {"window_said": [["n the well", " mill"]],
    ...                  "window_label": [["n the mill", " mill"]]}).mean
    0.8333333333333333

Reference: MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts (2024).

Departs from the paper: the paper says ROUGE-N; its code takes the precision of ROUGE-1 over stems,
which is the default. The code finds the new text by taking the prompt out of the whole; here only
what is new is looked at. A conversation is broken off in its last question (prefix) or in the
answer, behind the chat template (suffix).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.lm.breaks import breaks, windows
from expunge.requests.rows import Row
from expunge.text.overlap import rouge_1

if TYPE_CHECKING:
    from expunge.lm.gather import Models

CARD = {
    "id": "memo",
    "kind": "metric",
    "summary": "How much of the rest a model says wherever a row is broken off.",
    "paper": "MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts (2024)",
    "needs": ["window_said", "window_label"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy answer for every 5 characters of a row",
    "maturity": "paper",
    "version": 1,
}

__all__ = ["CARD", "Params", "compute", "read", "windows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where a row is broken off, and how the rest is compared."""

    mode: str = param(
        "suffix",
        help="what is broken off: the answer (suffix) or the question (prefix)",
        paper="both",
        choices=("suffix", "prefix"),
    )
    step: int = param(5, help="characters between two breaks", paper=5, low=1)
    new_tokens: int = param(200, help="longest answer, in tokens", paper=200, low=1)
    rouge: str = param(
        "precision",
        help="what of the overlap is reported",
        paper="precision in the code",
        choices=("precision", "recall", "f1"),
    )
    stem: bool = param(True, help="compare Porter stems, not words", paper=True)


def read(
    models: "Models", rows: Mapping[str, Sequence[Row]], params: Params
) -> dict[str, dict[str, list[str]]]:
    """Ask for all breaks of all rows at once."""
    subject = models.model
    has_template = subject.encoder.has_template
    broken = [
        (row.id, window)
        for row in rows[""]
        for window in breaks(
            row.turn, mode=params.mode, step=params.step, has_template=has_template
        )
    ]
    answers = subject.ask(
        [window.turn for _, window in broken],
        new_tokens=params.new_tokens,
        openings=[window.opening for _, window in broken],
    )
    said: dict[str, list[str]] = {row.id: [] for row in rows[""]}
    labels: dict[str, list[str]] = {row.id: [] for row in rows[""]}
    for (row_id, window), texts in zip(broken, answers, strict=True):
        said[row_id].append(texts[0])
        labels[row_id].append(window.label)
    return {"window_said": said, "window_label": labels}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """MEMO, mean over rows.

    Args:
        scores: ``window_said`` and ``window_label``: for each row the answers, and what the row
            itself goes on with; a row too short to be broken off has none.
        params: The statistic.
        reference: Not used.

    Returns:
        The mean in [0, 1].

    Raises:
        ExpungeError: E-DATA-013 when a row has not as many answers as labels.
    """
    shares: dict[str, float] = {}
    for row, (said, labels) in aligned(scores, "window_said", "window_label").items():
        if len(said) != len(labels):
            raise ExpungeError(
                "E-DATA-013",
                f"Row {row!r}: {len(said)} answers for {len(labels)} breaks.",
                "one answer for every break of a row.",
                "Ask for the row again.",
            )
        overlaps = [rouge_1(*pair, stem=params.stem) for pair in zip(said, labels, strict=True)]
        shares[row] = fmean(getattr(overlap, params.rouge) for overlap in overlaps)
    return average(shares, scores, "window_said", "window_label")
