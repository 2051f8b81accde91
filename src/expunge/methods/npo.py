"""Negative preference optimisation: push forget answers below the frozen anchor.

Objective:
    L = gamma * mean_i f( logp_i - logp0_i ) + alpha * RETAIN
    f(r) = -(2 / beta) * log sigmoid( -beta * r )

    logp_i sums over the answer tokens of row i; logp0_i is the same under the anchor, the model as
    it was at the start of this request. The weight of a row, 2 sigmoid(beta r), is 1 at the start
    and fades as its answer becomes unlikely, so the ascent damps itself; beta -> 0 recovers
    gradient ascent on row sums.

    form=token:           L_F = tokenmean_F( f(r_t) ),   r_t = logp_t - logp0_t
    form=weighted-token:  L_F = tokenmean_F( sg(p_t ** power) * f(r_t) )

    The weighted form also damps tokens that the model itself holds unlikely, known or not.

Reference: Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning,
2024; the token forms as in Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go
Beyond, 2025.

Departs from the paper:
    The run stops at the level of rows the model never saw (``--stop-at``), where the paper runs a
    fixed number of epochs. The code of the token forms writes them as weights on the negative
    log-likelihood; ours have that gradient (without its 1e-5 under the fraction) and are losses.
"""

from dataclasses import dataclass
from typing import Literal

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import preference, row_preference
from expunge.engine.step import Step

CARD = {
    "id": "npo",
    "kind": "gradient",
    "summary": "Bounded, self-damping ascent against the frozen start of the model.",
    "paper": "Negative Preference Optimization: From Catastrophic Collapse to Effective "
    "Unlearning (2024)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; the anchor is cached",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sharpness of the preference, and what it is formed on."""

    beta: float = param(
        0.1,
        help="sharpness; towards 0 it becomes gradient ascent; the token forms were run with 4",
        paper=0.1,
        low=1e-6,
        high=100.0,
    )
    form: Literal["sequence", "token", "weighted-token"] = param(
        "sequence",
        help="whether answers or single tokens are compared with the anchor",
        paper="sequence",
        choices=("sequence", "token", "weighted-token"),
    )
    power: float = param(
        1.5, help="form weighted-token: exponent of the token's probability", paper=1.5, low=0.0
    )


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows, or tokens, of the negated log-odds of staying below the anchor."""
    view = step.forget
    if params.form == "sequence":
        return row_preference(view, params.beta)
    loss = preference(view.token_logp - view.anchor.token_logp, params.beta)
    if params.form == "token":
        return mean_of(loss)
    return mean_of((params.power * view.token_logp).exp().detach() * loss)
