"""Edit success: whether the fact's own value or a rival of it is the likelier answer.

Definition (L = mean negative log-likelihood of a value's tokens after the prompt, end left out):
    p(v) = exp(-L(v)),    rival p(w) = max_j exp(-L(w_j))
    forget     success_i = [p(w) > p(y)]        efficacy, or of paraphrased prompts: generality
    keep       success_i = [p(y) > p(w)]        specificity, of neighbouring prompts
    success = mean_i success_i, a tie counts one half
    difference = mean_i of the winner's lead:  p(w) - p(y)  or  p(y) - p(w)

Reference: Locating and Editing Factual Associations in GPT (2022).

Departs from the paper: there the rival is the value that was written in; here nothing need be
written in, the true value only has to lose its lead. With several rivals the likeliest one counts.

Meaning:
    retrained   about .5 on rows to forget, where the rival is as plausible as the truth: a model
                that knows neither. Near 1 the rival was written in, or the truth was pushed away
    kept        near the original's value on neighbouring prompts, which is often far below 1
    fooled by   ruin: where every value is as unlikely the lead is decided by noise, so read
                ``difference`` and the probability of the truth, ``true``, beside it

Example:
    The truth has .2 and its rival .5; then .6 against .1: one success in two.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> scores = {"true_logp": [log(0.2), log(0.6)], "rival_logp": [[log(0.5)], [log(0.1)]]}
    >>> value = measure("edit-success", scores)
    >>> value.mean, round(value.parts["difference"], 6), round(value.parts["true"], 6)
    (0.5, -0.1, 0.4)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "edit-success",
    "kind": "metric",
    "summary": "How often a rival value is likelier than the true one, or the other way round.",
    "paper": "Locating and Editing Factual Associations in GPT (2022)",
    "needs": ["true_logp", "rival_logp"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass for each value of a row, the prompt shared",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Who should win."""

    rows: str = param(
        "forget",
        help="forget: the rival should be likelier; keep: the true value should",
        paper="forget for efficacy and generality, keep for specificity",
        choices=("forget", "keep"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, Mapping[str, Any]]:
    """Mean log-probability of a token of the true value, and of each rival."""
    from expunge.lm.phrases import grouped_logp

    asked = [(row, {"true": [row.reply], "rival": row.wrong}) for row in rows.get("", ())]
    found = grouped_logp(models.model, asked)
    return {
        "true_logp": {row: groups["true"][0] for row, groups in found.items()},
        "rival_logp": {row: groups.get("rival", []) for row, groups in found.items()},
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Share of rows on which the right one of the two is likelier.

    Args:
        scores: ``true_logp`` and ``rival_logp`` (one for each rival), nats a token.
        params: Who should win.
        reference: Not used.

    Returns:
        The share in [0, 1], and the parts ``difference`` and ``true`` as probabilities.
    """
    side = 1.0 if params.rows == "forget" else -1.0
    shares: dict[str, float] = {}
    lead: dict[str, float] = {}
    known: dict[str, float] = {}
    for row, (true, rivals) in aligned(scores, "true_logp", "rival_logp").items():
        rival = math.nan if any(map(math.isnan, rivals)) else max(rivals)
        known[row] = math.exp(true)
        lead[row] = side * (math.exp(rival) - known[row])
        # Compared as logarithms: probabilities of improbable values underflow to a tie.
        shares[row] = _won(side * (rival - true))
    value = average(shares, scores, "true_logp", "rival_logp")
    if value.mean is None:
        return value
    beside = {"difference": lead, "true": known}
    parts = {name: math.fsum(of.values()) / len(of) for name, of in beside.items()}
    return replace(value, beside=beside, parts=parts)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The means of the successes, of the leads and of the true values' probabilities."""
    return {"mean": float(rows.mean())} | {name: float(of.mean()) for name, of in beside.items()}


def _won(lead: float) -> float:
    if math.isnan(lead):
        return lead
    return 0.5 if lead == 0 else float(lead > 0)
