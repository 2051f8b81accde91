"""Membership by prefix: texts never seen, put in front, disturb what is known by heart.

Definition (P texts the model never saw; y the text that was trained on, its end left out):
    score = -nll(y | P) / nll(y)                 both over the same tokens
    AUC = P(score(hold-out) > score(forget))     ties one half; low scores look like members

Reference: ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods (2024).

Departs from the paper: the sign is turned, as in all attacks here: the paper's ratio is high for
members, whose log-likelihood a strange prefix lowers more. P are hold-out rows, drawn once and then
not scored themselves; where the model has too few positions, fewer of them.

Meaning: as for the loss (1 memorised, .5 alike, the retrained model's value the true target). Where
forget and hold-out rows differ in style, P helps the hold-out rows more than the others, and the
AUC rises without any memory; so it does for hold-out rows of an entity that stands in P.

Example: behind the prefix the forget row is four times as hard, the hold-out row hardly.

    >>> from expunge.testing import measure
    >>> forget = {"training_logp": [[-0.5]], "prefixed_logp": [[-2.0]]}
    >>> fresh = {"holdout.training_logp": [[-1.0]], "holdout.prefixed_logp": [[-1.1]]}
    >>> value = measure("mia-recall", {**forget, **fresh})
    >>> value.per_row["0"], value.beside["holdout"]["0"], value.mean
    (-4.0, -1.1, 1.0)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.rng import generator
from expunge.numbers.membership import attacked, mean_nll, numbers, quotient

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "mia-recall",
    "kind": "metric",
    "summary": "Whether a strange prefix disturbs rows to forget more than rows never seen (AUC).",
    "paper": "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods (2024)",
    "needs": [
        "training_logp",
        "prefixed_logp",
        "holdout.training_logp",
        "holdout.prefixed_logp",
    ],
    "better": "target",
    "target": 0.5,
    "range": [0.0, 1.0],
    "roles": ["holdout"],
    "access": "logits",
    "cost": "two forward passes a row, one of them longer by the prefix",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The prefix, and whether different rows may be compared."""

    shots: int = param(
        7, help="hold-out rows in the prefix; at most half of them", paper="1 to 12", low=1
    )
    seed: int = param(0, help="decides which hold-out rows stand in the prefix")
    allow_unmatched: bool = param(
        False, help="compare with a reference that was measured on other rows"
    )


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """Log-probabilities behind the prefix; the rows of the prefix have none."""
    from expunge.lm.membership import for_both, longest_of, prefix_of, prefixed, text_logp

    fresh = sorted(rows["holdout"], key=lambda row: row.id)
    order = generator(params.seed, "mia-recall").permutation(len(fresh))
    shots = [fresh[i] for i in order[: min(params.shots, len(fresh) // 2)]]
    if not shots:
        return {}
    used = {row.id for row in shots}
    scored = {"": rows[""], "holdout": [row for row in fresh if row.id not in used]}
    turns = [row.training for some in scored.values() for row in some]
    prefix = prefix_of(models.model, shots, longest_of(models.model, turns))

    def behind(some: "Sequence[Row]") -> list[list[float]]:
        return text_logp(models.model, [prefixed(row.training, prefix) for row in some])

    return for_both(scored, "prefixed_logp", behind)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """AUC of this score between hold-out rows and rows to forget.

    Args:
        scores: ``training_logp`` and ``prefixed_logp``, both also of the hold-out rows; or ready
            scores as ``score`` and ``holdout.score``, low for members.
        params: How the prefix was made.
        reference: The same of the retrained model, whose AUC is the true target.

    Returns:
        The AUC; TPR at 1% and 0.1% FPR where there are hold-out rows enough, and with a
        reference ``auc_reference`` and the closeness ``s`` to it, among the parts.

    Raises:
        ExpungeError: E-DATA-013 when the reference was measured on other rows.
    """
    needs = ("training_logp", "prefixed_logp")
    return attacked(
        scores, reference, needs, loss_behind_prefix, allow_unmatched=params.allow_unmatched
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """AUC and parts of the scores [n], beside those of hold-out rows and of the reference."""
    return numbers(rows, beside)


def loss_behind_prefix(token_logp: Sequence[float], prefixed_logp: Sequence[float]) -> float:
    """Minus the ratio of the losses behind the prefix and without it, over the same tokens.

    Without a prefix the first token of running text may have nothing to be predicted from; then
    it is left out behind the prefix too.
    """
    tokens = min(len(token_logp), len(prefixed_logp))
    return -quotient(mean_nll(prefixed_logp[-tokens:]), mean_nll(token_logp[-tokens:]))
