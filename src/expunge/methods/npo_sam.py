"""NPO with sharpness-aware minimisation: forget where the weights would be after an attack.

Objective:
    theta' = theta + rho * g / ||g||,   g = grad L_F(theta) over all weights that move
    d = gamma * grad L_F(theta') + alpha * grad RETAIN(theta)

    L_F = mean_F( -(2 / beta) log sigmoid( -beta (logp_i - logp0_i) ) )

    theta' is the point near theta where the forget loss is highest, to first order: where a few
    steps of relearning would lead. To lower it there makes the forgetting flat, so that it survives
    such steps. The retain gradient is taken at theta itself. rho = 0 is NPO.

Reference: Towards LLM Unlearning Resilient to Relearning Attacks: A Sharpness-Aware Minimization
Perspective and Beyond, 2025; the variant as compared in LLM Unlearning Under the Microscope, 2025.

Departs from the paper:
    All three gradients are those of the whole step; the original code keeps only the last part of
    it. Weights come back from a copy, bit for bit. The preference loss is that on answers, where
    the original code takes means of a batch or single logits. Of its relatives there (smoothing,
    penalties on curvature and gradient norm) none is here. precision=bf16-masters is refused: in
    bfloat16 weights a shift by rho / sqrt(number of weights) is rounded away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean
from expunge.engine.nearby import shifted
from expunge.engine.preference import row_preference
from expunge.engine.projection import SMALLEST, length
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.step import Step

CARD = {
    "id": "npo-sam",
    "kind": "gradient",
    "summary": "NPO whose forget gradient is taken where a small attack would put the weights.",
    "paper": "Towards LLM Unlearning Resilient to Relearning Attacks: A Sharpness-Aware "
    "Minimization Perspective and Beyond (2025)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "2 forwards and backwards over forget and retain rows per step; 3 gradients and a copy "
    "of the weights that move held; the anchor is cached",
    "maturity": "beta",
    "version": 1,
    "loss_of": "npo",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sharpness of the preference, and how far to look."""

    rho: float = param(
        0.01, help="length of the step towards higher forget loss", paper=0.01, low=0.0
    )
    beta: float = param(
        0.1, help="sharpness of the preference", paper=[0.1, 0.015], low=1e-6, high=100.0
    )
    retain_weight: float = param(
        1.0, help="weight of the retain term (alpha)", paper=[1.0, 2.5, 2.25], low=0.0
    )

    def __post_init__(self) -> None:
        """Refuse weights that cannot show a small shift.

        Raises:
            ExpungeError: ``E-USE-006``.
        """
        if self.precision == "bf16-masters":
            raise ExpungeError(
                "E-USE-006",
                "npo-sam with precision=bf16-masters: bfloat16 weights do not move by as little as "
                "it shifts them.",
                "options that go together.",
                "Use --set precision=bf16, whose weights are float32.",
            )


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows of the negated log-odds of staying below the anchor."""
    return row_preference(step.forget, params.beta)


def combines(params: Params) -> bool:
    """Whether a step needs the gradients of its terms apart."""
    return params.rho > 0


def effort(params: Params) -> float:
    """How many plain steps a step takes: one here, one where the forget loss is higher."""
    return 2.0 if params.rho > 0 else 1.0


def combine(gradients: Gradients, state: Mapping[str, Any], params: Params) -> list[Tensor]:
    """The sum of both, the forget gradient taken where the forget loss is higher."""
    size = length(gradients.forget)
    if size >= SMALLEST:
        assert gradients.again is not None  # noqa: S101
        with shifted(gradients.again.parameters, gradients.forget, params.rho / size):
            there = gradients.again.gradients().forget
        gradients = replace(gradients, forget=there)
    return weighted_sum(gradients, state, params)
