"""Value rate: how often an answer contains one of some values, over samples of the answer.

Definition (k samples g_i1..g_ik of the answer to row i, cut at the first line break; V_i values):
    rate = mean_i (1/k) sum_j [some v in V_i stands in g_ij as whole normalised words]
    forms        V_i: the accepted forms of the true value: an accuracy
    corrupted    V_i: the values that corrupted documents gave it

Reference: RESTOR: Knowledge Recovery in Machine Unlearning (2024).

Departs from the paper: answers are judged by alias match, not by a language model, so a correct
answer in other words is missed. Answers are greedy unless ``samples`` and ``temperature`` say
otherwise, and may be a single token long (the published script demands two).

Meaning:
    forms       the accuracy of a model on facts it should know; compare the clean, the corrupted
                and the unlearned model, because aliases miss as much in each
    corrupted   how far the false value is still said; 0 also for a model that says nothing, so
                read the two beside each other
    fooled by   an answer that lists many values

Example:
    Two samples of one answer, one of which names an accepted form; then none.

    >>> from expunge.testing import measure
    >>> said = {"sampled": [["Rome, Italy", "Oslo"], ["Bonn"]], "values": [["rome"], ["Bern"]]}
    >>> measure("value-rate", said).mean
    0.25
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.match import contains

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "value-rate",
    "kind": "metric",
    "summary": "How often sampled answers contain one of a fact's values.",
    "paper": "RESTOR: Knowledge Recovery in Machine Unlearning (2024)",
    "needs": ["sampled", "values"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "the given number of generations a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which values are looked for, and how answers are drawn."""

    values: str = param(
        "forms",
        help="forms: accepted forms of the true value; corrupted: meta['values']['corrupted']",
        choices=("forms", "corrupted"),
    )
    samples: int = param(1, help="answers drawn for each row", low=1)
    temperature: float = param(0.0, help="0 answers greedily", paper=1.0, low=0.0)
    new_tokens: int = param(32, help="longest answer, in tokens", low=1)
    seed: int = param(0, help="of the samples", paper=32, low=0)


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """The answers, and the values that are looked for; rows without values are left out."""
    wanted = {row.id: _values(row, params.values) for row in rows.get("", ())}
    # In the order of their names, so that samples do not depend on the order of the rows.
    chosen = sorted((row for row in rows.get("", ()) if wanted[row.id]), key=lambda row: row.id)
    answers = models.model.ask(
        [row.turn for row in chosen],
        new_tokens=params.new_tokens,
        samples=params.samples,
        temperature=params.temperature,
        seed=params.seed,
    )
    said = {
        row.id: [_first_line(text) for text in texts]
        for row, texts in zip(chosen, answers, strict=True)
    }
    return {"sampled": said, "values": wanted}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of answers that contain one of the values.

    Args:
        scores: ``sampled`` (a list of answers) and ``values`` (a list of texts).
        params: Only ``read`` looks at them.
        reference: Not used.

    Returns:
        The mean in [0, 1]; every row counts once, however many samples it has.
    """
    shares = {
        row: fmean(contains(said, values) for said in answers)
        for row, (answers, values) in aligned(scores, "sampled", "values").items()
    }
    return average(shares, scores, "sampled", "values")


def _first_line(text: str) -> str:
    """An answer up to its first line break, one space or break before it passed over."""
    return text[:1].strip() + text[1:].split("\n", maxsplit=1)[0]


def _values(row: "Row", which: str) -> list[str]:
    if which == "forms":
        return list(row.forms)
    return list(row.meta.get("values", {}).get("corrupted", ()))
