"""Answer containment: how often the written answer holds the true one, word for word.

Definition (g the greedy answer; forms the accepted wordings; norm drops case, articles,
punctuation):
    containment = mean over rows of [some norm(form) stands in norm(g) as whole words]

Reference: none; it stands in for the entailment score of LLM Unlearning Under the Microscope (2025)
where no judge is at hand, and is no estimate of it.

Departs from the paper: the paper's judge also accepts an answer in other words; this does not, so
it is a lower bound of what the model tells. It also counts an answer that is named to be denied.

Meaning:
    retrained   close to 0 where answers are names and numbers; short common answers ("yes") are
                contained by accident
    fooled by   paraphrase, another language, and an answer that lists every candidate

Example:
    The first answer holds "Bern"; "Berner" in the second is another word.

    >>> from expunge.testing import measure
    >>> said = ["It is the town of Bern.", "The Berner hills."]
    >>> measure("answer-containment", {"generation": said, "forms": [["Bern"], ["Bern"]]}).mean
    0.5
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import aligned, average
from expunge.text.match import contains

CARD = {
    "id": "answer-containment",
    "kind": "metric",
    "summary": "How often the written answer holds the true one, word for word.",
    "paper": "LLM Unlearning Under the Microscope (2025), without its judge",
    "needs": ["generation", "forms"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of rows whose generation holds an accepted form.

    Args:
        scores: ``generation`` (what the model said) and ``forms`` (accepted forms of the answer).
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean in [0, 1]. On rows to forget low is good, on rows to keep high is.
    """
    shares = {
        row: float(contains(said, forms))
        for row, (said, forms) in aligned(scores, "generation", "forms").items()
    }
    return average(shares, scores, "generation", "forms")
