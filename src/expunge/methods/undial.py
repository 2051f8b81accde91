"""UNDIAL: distil from a frozen teacher whose target token is demoted.

Objective:
    L = gamma * tokenmean_F( CE( q_t, p_t ) ) + alpha * RETAIN
    q_t = softmax( z0_t - beta * onehot(y_t) ),   z0 the anchor's logits

    The teacher does not move, so the loss has a fixed floor, the entropy of q, and no divergence.
    What is left above the floor, CE(q, p) - H(q), is reported as ``forget_excess``.

Reference: UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language
Models, 2024.

Departs from the paper:
    Only answer positions count; the original code also averages over prompt and padding. No retain
    term by default, as in the paper.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import log_softmax, one_hot

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "undial",
    "kind": "gradient",
    "summary": "Self-distillation from the frozen start with the target's logit lowered.",
    "paper": "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large "
    "Language Models (2024)",
    "needs": ["forget", "anchor-logits"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows per step; the anchor's hidden states are "
    "cached, its vocabulary projection is a copy unless an adapter is trained",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the demotion."""

    retain_term: str = param(
        "none", help="what keeps the rest", paper="none", choices=("none", "nll", "kl", "mse")
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=1e-4, low=0.0
    )
    beta: float = param(
        10.0, help="how far the target's logit is lowered", paper=[3, 10, 30], low=0.0
    )


def forget(step: Step, params: Params) -> Mean:
    """Token-mean cross-entropy to the adjusted teacher, nats."""
    view = step.forget
    target = one_hot(view.labels, view.logits.shape[-1])
    log_teacher = log_softmax(view.anchor.logits - params.beta * target, -1)
    teacher = log_teacher.exp()
    cross_entropy = -(teacher * log_softmax(view.logits, -1)).sum(-1)
    floor = -(teacher * log_teacher).sum(-1)
    step.report("forget_excess", mean_of(cross_entropy.detach() - floor))
    return mean_of(cross_entropy)
