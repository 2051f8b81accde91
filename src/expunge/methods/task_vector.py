"""Task-vector negation: learn the forget rows harder, then step as far the other way.

Objective:
    theta_F = theta0 trained on tokenmean_F( nll ) until over-fitted
    theta   = theta0 - alpha * ( theta_F - theta0 )

    alpha = 0 is the original, alpha = -1 is theta_F. With alpha=auto the grid is climbed from the
    bottom: it ends at the stop level of the forget rows, or with the last alpha that keeps
    ``bar`` of the original's greedy token accuracy on retain rows, whichever comes first.

    Differences are taken in float32; tied weights are one weight. Of an adapter only one factor is
    turned round, so nothing is merged and the adapter can be taken off again.

Reference: Editing Models with Task Arithmetic, 2022; for forgetting text as in MUSE: Machine
Unlearning Six-Way Evaluation for Language Models, 2024.

Departs from the paper:
    The paper takes the largest alpha within the bar; ours stops at the level that rows the model
    never saw have (``--stop-at none`` for the paper's choice).
"""

from dataclasses import dataclass
from typing import Literal

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean
from expunge.engine.merge import climb, inside
from expunge.engine.step import Step

CARD = {
    "id": "task-vector",
    "kind": "merge",
    "summary": "Fine-tune on the forget rows, then subtract what that changed.",
    "paper": "Editing Models with Task Arithmetic (2022)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "fine-tuning on forget rows; then 1 pass over forget and retain rows per alpha tried",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters of the over-fitting, and those of the step back."""

    retain_term: str = param(
        "none", help="what is trained on beside the forget rows", paper="none", choices=("none",)
    )
    alpha: float | Literal["auto"] = param(
        "auto", help="how far the other way; auto climbs the grid", paper="auto"
    )
    grid: tuple[float, ...] = param(
        (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
         0.85, 0.9, 0.95, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0),
        help="values of alpha that auto tries, rising",
        paper="0 to 1 by .05; 0.1 to 10",
        low=0.0,
    )  # fmt: skip
    bar: float = param(
        0.95, help="share of the original's retain accuracy to keep", paper=0.95, low=0.0, high=1.0
    )
    scope: Literal["all", "mlp"] = param(
        "all", help="which of the learnt weights are turned round", choices=("all", "mlp")
    )


def forget(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the forget answers: they are learnt, at first."""
    return step.forget.nll


def finish(change: Finishing, params: Params) -> None:
    """Take the step the other way."""
    within = None if params.scope == "all" else inside(change.task.model, "mlp")
    if params.alpha == "auto":
        alpha = climb(change, params.grid, bar=params.bar, within=within)
    else:
        alpha = float(params.alpha)
        change.rescale(-alpha, within)
    change.record["alpha"] = alpha
