"""Membership by neighbours: is this very wording easier than others close to it?

Definition (y the text that was trained on, its end left out; y'_k the text, some words replaced):
    score = nll(y) - (1/K) sum_k nll(y'_k)
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: Membership Inference Attacks against Language Models via Neighbourhood Comparison (2023).

Departs from the paper: the paper lets a masked language model propose the replacements; here they
are words of the other rows, a number for a number and a name for a name, so that no second model is
needed and every model sees the same neighbours (INFERRED; cruder, as such words fit less well). The
prompt stays as it is.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target). The
neighbours take out what makes a text easy in general. Few neighbours make it noisy.

Example: the forget row is 2 nats a token easier than its neighbours, the hold-out row .2.

    >>> from expunge.testing import measure
    >>> forget = {"training_logp": [[-0.5]], "neighbour_nll": [[2.0, 3.0]]}
    >>> fresh = {"holdout.training_logp": [[-1.0]], "holdout.neighbour_nll": [[1.1, 1.3]]}
    >>> measure("mia-neighbour", {**forget, **fresh}).mean
    1.0
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.rng import generator
from expunge.numbers.membership import attacked, mean_nll, numbers

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row, Turn

CARD = {
    "id": "mia-neighbour",
    "kind": "metric",
    "summary": "Whether loss against reworded texts tells rows to forget from others (AUC).",
    "paper": (
        "Membership Inference Attacks against Language Models via Neighbourhood Comparison (2023)"
    ),
    "needs": [
        "training_logp",
        "neighbour_nll",
        "holdout.training_logp",
        "holdout.neighbour_nll",
    ],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "one forward pass a row and neighbour",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How the neighbours are made, and whether different rows may be compared."""

    neighbours: int = param(5, help="reworded texts a row", paper=100, low=1)
    share: float = param(0.3, help="share of the words that is replaced", low=0, high=1)
    seed: int = param(0, help="decides which words are replaced, and by what")
    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """Losses of each row's neighbours; rows without words have none."""
    from expunge.lm.membership import Words, for_both, perturbed, text_nll

    words = Words([row.training for of in (rows[""], rows["holdout"]) for row in of])

    def near(row: "Row") -> "list[Turn]":
        draw = generator(params.seed, "mia-neighbour", row.id)
        count = range(params.neighbours)
        made = [perturbed(row.training, words, params.share, draw) for _ in count]
        return [turn for turn in made if turn != row.training]

    def losses(some: "Sequence[Row]") -> list[list[float]]:
        turns = [near(row) for row in some]
        found = iter(text_nll(models.model, [turn for of_row in turns for turn in of_row]))
        return [[nll for _ in of_row if (nll := next(found)) is not None] for of_row in turns]

    return for_both(rows, "neighbour_nll", losses)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp`` and ``neighbour_nll`` (a list a row), also of the hold-out
            rows; or ready scores as ``score`` and ``holdout.score``, low for members.
        params: How the neighbours were made.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("training_logp", "neighbour_nll")
    return attacked(
        scores, reference, needs, loss_by_neighbours, allow_unmatched=params.allow_unmatched
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)


def loss_by_neighbours(token_logp: Sequence[float], neighbours: Sequence[float]) -> float:
    """How much harder a text is than the mean of its neighbours, in nats a token."""
    return mean_nll(token_logp) - fmean(neighbours)
