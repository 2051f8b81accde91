"""Known choice accuracy: multiple choice, only on questions the original model answers rightly.

Definition (s_io(m) the log-score model m gives option i shown in order o; T_q the true options):
    picked(m, q)   the options with the largest mean over orders of s_io(m)
    right(m, q)    |picked and T_q| / |picked|
    accuracy       mean of right(model, q) over the questions q with right(original, q) = 1

Reference: FaithUn: Toward Faithful Forgetting in Language Models by Investigating the
Interconnectedness of Knowledge (2025).

Departs from the paper: its read-out was not published with its data; options shown under letters
are INFERRED, ``likelihood`` is offered beside them. Scores are averaged over the cyclic orders of
the options first, so that the original's accuracy on the questions it knows is exactly 1.

Meaning:
    chance      1 / options; on facts to forget a model that knows nothing ends there, so a value
                below it says that the model avoids the truth, which shows that it is still there
    retrained   near chance on forgotten facts, near 1 on all others
    fooled by   few known questions: an original that guesses right knows nothing either; the rows
                left out are counted in the note

Example:
    The original knows the first two questions only; the model answers one of them.

    >>> from expunge.testing import measure
    >>> truth, wrong = [[-0.1, -2.0]], [[-2.0, -0.1]]
    >>> scores = {
    ...     "choice_scores": [truth, wrong, truth],
    ...     "choice_correct": [[0], [0], [0]],
    ...     "original:choice_scores": [truth, truth, wrong],
    ... }
    >>> measure("known-choice-accuracy", scores).mean
    0.5
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, unmeasurable

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "known-choice-accuracy",
    "kind": "metric",
    "summary": "How often the true option is picked, where the original model picks it.",
    "paper": "FaithUn: Toward Faithful Forgetting in Language Models (2025)",
    "needs": ["choice_scores", "choice_correct", "original:choice_scores"],
    "models": ["original"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "for each of two models; letter: a forward pass for each order; likelihood: an option",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How the models are asked to choose."""

    by: str = param(
        "letter",
        help="letter of an option, likelihood of its text, or the mean of that over its tokens",
        choices=("letter", "likelihood", "mean-likelihood"),
    )
    rotate: bool = param(True, help="show the options under letters in all cyclic orders")


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """The scores of the options under both models, and which are true."""
    from expunge.lm.choices import read as read_choices

    if models.original is None:
        return {}
    own = rows.get("", ())
    before = read_choices(models.original, own, by=params.by, rotate=params.rotate)
    return {
        **read_choices(models.model, own, by=params.by, rotate=params.rotate),
        "original:choice_scores": before["choice_scores"],
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of the questions known to the original that the model answers rightly.

    Args:
        scores: ``choice_scores`` and ``original:choice_scores``: for each order the options'
            log-scores; ``choice_correct``: indices of the true options.
        params: Only ``read`` looks at them.
        reference: Not used.

    Returns:
        The mean in [0, 1]; not measurable without the original, or where it knows no question.
    """
    needs = ("choice_scores", "choice_correct", "original:choice_scores")
    if not scores.get(needs[-1]):
        return unmeasurable("without the original model nobody can tell which questions it knew")
    asked = aligned(scores, *needs)
    known = {
        row: right(orders, correct)
        for row, (orders, correct, before) in asked.items()
        if right(before, correct) == 1
    }
    if asked and not known:
        return unmeasurable(f"the original answers none of the {len(asked)} questions")
    value = average(known, scores, *needs)
    left_out = len(asked) - len(known)
    note = f"{left_out} of {len(asked)} questions left out: the original did not know them"
    return replace(value, note=note) if value.mean is not None and left_out else value


def right(orders: Sequence[Sequence[float]], correct: Sequence[int]) -> float:
    """Share of the picked options that are true: 1 or 0 where there is no tie."""
    if any(math.isnan(score) for order in orders for score in order):
        return math.nan
    means = [fmean(scores) for scores in zip(*orders, strict=True)]
    picked = [option for option, mean in enumerate(means) if mean == max(means)]
    return sum(option in correct for option in picked) / len(picked)
