"""Unlearning depth score: is the knowledge gone from the states, or only from what is said?

Definition (entity tokens y of a row; o, u, r: original, unlearned and retrained model; o[l <- m]:
the original with the output of block l taken from m at the positions that predict y):
    d_m(l) = log p_o(y) - log p_{o[l <- m]}(y)            mean over the tokens of y, nats
    UDS    = sum_l d_r clip(d_u / d_r, 0, 1) / sum_l d_r  over the layers with d_r > tau
    score  = mean of UDS over rows

Meaning:
    0: put the model's states into the original and it says the fact as ever, so the states still
    hold it; 1: they help it as little as those of a model that never saw the row. The parts are the
    mean shares of each layer. A model that only refuses has a low score, however little it says;
    one whose last block alone was changed has 0 in every layer below it. What fools it: states in
    ruins help nothing either and get 1, so read it beside utility; and it looks at the tokens that
    carry the fact only. The retrained model itself gets 1: the others are compared with it.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026).

Departs from the paper: its program takes the states of the last block after the final norm, which
is then applied twice; here they are taken before it. A row that no layer holds is left out, as
there.

Example:
    >>> from expunge.testing import measure
    >>> now = {"patch_drop": [[0.25, 1.5, 0.4]]}
    >>> value = measure("unlearning-depth", now, reference={"patch_drop": [[0.5, 1.0, 0.02]]})
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
    "id": "unlearning-depth",
    "kind": "metric",
    "summary": "How little the model's states help the original to say the fact.",
    "paper": "Measuring the Depth of LLM Unlearning via Activation Patching (2026)",
    "needs": ["patch_drop", "reference"],
    "models": ["original"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "activations",
    "cost": "a forward pass a row on each model; on the original half of one more a layer",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which tokens, and which layers count."""

    threshold: float = param(
        0.05, help="tau: nats that the reference's states must cost", paper=0.05, low=0.0
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
    """``patch_drop``: row id -> d_m [L]; None where a row does not hold its value.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when the two models do not fit each other.
    """
    from expunge.lm.representations import patch_drops, shared_spots

    assert models.original is not None  # noqa: S101
    places = shared_spots(models.original, models.model, rows[""], params.tokens)
    drops = patch_drops(models.original, models.model, places)
    return {"patch_drop": {row.id: drops.get(row.id) for row in rows[""]}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean depth over rows.

    Args:
        scores: ``patch_drop``: row id -> d_u [L], nats.
        params: tau.
        reference: ``patch_drop`` of the retrained model.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    return mean_depth(scores, reference, "patch_drop", params.threshold)
