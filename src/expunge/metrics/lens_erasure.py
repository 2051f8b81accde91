"""Lens erasure: can the original's own output layer still read the fact out of the states?

Definition (entity tokens y of a row; h_m(l): states of model m after block l at the positions that
predict y; the original's final norm and head read them, whichever model they come from):
    d_m(l) = log p(y | h_o(l)) - log p(y | h_m(l))         mean over the tokens of y, nats
    row    = sum_l d_r clip(d_u / d_r, 0, 1) / sum_l d_r   over the layers with d_r > tau
    score  = mean over rows

Meaning:
    0: at every layer the fact is as plain to read as in the original; 1: as hard to read as in
    the retrained model. The parts are the mean shares of each layer. Changing the last block alone
    hides the fact there and leaves it to be read below, which keeps the score low. What fools it:
    the lens sees only what stands ready to be said, so a fact that later blocks would still have
    assembled is missed (unlearning-depth sees it), and states that were merely rotated look empty.
    A model in ruins gets 1: read it beside utility.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026), where this is a
baseline; "Interpreting GPT: the logit lens" (2020).

Departs from the paper: nothing. States are taken before the final norm, the last block's included.

Example:
    >>> from expunge.testing import measure
    >>> now = {"lens_drop": [[0.25, 1.5, 0.4]]}
    >>> value = measure("lens-erasure", now, reference={"lens_drop": [[0.5, 1.0, 0.02]]})
    >>> round(value.mean, 7)       # (.5 * .5 + 1 * 1) / 1.5; the third layer held nothing
    0.8333333
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.numbers.erasure import mean_depth

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "lens-erasure",
    "kind": "metric",
    "summary": "How little the original's output layer can read out of the model's states.",
    "paper": "Measuring the Depth of LLM Unlearning via Activation Patching (2026)",
    "needs": ["lens_drop", "reference"],
    "models": ["original"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "activations",
    "cost": "one forward pass a row on three models, and the output layer once a block",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which tokens, and which layers count."""

    threshold: float = param(
        0.05, help="tau: nats that the reference must lack", paper=0.05, low=0.0
    )
    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        paper="value",
        choices=("value", "answer"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, Any]]:
    """``lens_drop``: row id -> d_m [L]; None where a row does not hold its value.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when the two models do not fit each other.
    """
    from expunge.lm.representations import lens_logp, shared_spots

    original = models.original
    assert original is not None  # noqa: S101
    places = shared_spots(original, models.model, rows[""], params.tokens)
    before, now = (lens_logp(original, m, places) for m in (original, models.model))
    drops = {row: before[row] - now[row] for row in places}
    return {"lens_drop": {row.id: drops.get(row.id) for row in rows[""]}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean erasure over rows.

    Args:
        scores: ``lens_drop``: row id -> d_u [L], nats.
        params: tau.
        reference: ``lens_drop`` of the retrained model.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    return mean_depth(scores, reference, "lens_drop", params.threshold)
