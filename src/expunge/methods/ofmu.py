"""OFMU: ascend on a forget objective whose gradient is turned away from the retain one, then mend.

Objective:
    inner, maximised:   Phi(theta) = gamma * L_f - beta * cos( grad L_f, grad L_r )
    outer, minimised:   J(theta) = alpha * L_r + rho * ||grad Phi||^2

    of each step:   T times  theta' <- theta' + eta_in * grad Phi(theta')      from the weights
                    then     d = grad J = alpha * grad L_r + 2 rho * (hess Phi) grad Phi
                    and      rho <- min( rho_growth * rho, rho_max )

    forget_loss=nll:  L_f = tokenmean_F( min( nll, cap ) )
    forget_loss=npo:  L_f = -mean_F( -(2 / beta_npo) log sigmoid( -beta_npo (logp_i - logp0_i) ) )

    d goes to the optimiser, from where the inner steps have led. L_r is the retain term. The second
    part of J asks the inner problem to be at rest; an L_f without a ceiling never is, hence the
    cap. The cosine goes down, also below 0, where ascent on L_f lowers L_r.

    hvp=exact:   derivatives of gradients by autograd
    hvp=finite:  by central differences of gradients, epsilon to either side
    hvp=none:    the inner steps as with finite, and J = alpha * L_r

    inner=plain:  the inner steps as written above
    inner=adam:   grad Phi through an Adam of the inner steps' own, new in each step

Reference: OFMU: Optimization-Driven Framework for Machine Unlearning, 2025.

Departs from the paper:
    Only its abstract, reviews and a reading note were read. INFERRED: beta, rho, its growth and the
    bound on it, T = 5, that d is taken where the inner steps end (``outer_at=start``: where they
    began), the cap, the weights gamma and alpha, a constant rate without warm-up, and what hvp=none
    leaves out. Adam moves every weight by about eta_in however small its gradient. With eta_in at
    the learning rate, the naive form, T inner steps undo more than one outer step mends, and the
    retain rows are lost; so all inner steps together are as long as an outer one
    (``inner_rate=auto``). The criterion on ||grad Phi|| is off (``tolerance``); the stop level ends
    a run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine import rates
from expunge.engine.mean import Mean, mean_of
from expunge.engine.nearby import derivative, hessian_product, move
from expunge.engine.preference import row_preference
from expunge.engine.projection import cosine, cosine_slopes, length
from expunge.engine.slots.combine import Again, Gradients
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Task

CARD = {
    "id": "ofmu",
    "kind": "gradient",
    "summary": "Inner ascent decorrelated from the retain gradient, outer steps that mend.",
    "paper": "OFMU: Optimization-Driven Framework for Machine Unlearning (2025)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "per step T + 1 forwards and backwards over forget and retain rows, T double backwards "
    "and 1 triple one, over the graph of the whole step at once",
    "maturity": "paper",
    "version": 1,
    "loss_of": "grad-diff",
}

RHO, RATE, REST = "ofmu.rho", "ofmu.rate", "ofmu.rest"

UNKNOWN = -1.0
"""Length of grad Phi before the first step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and those of both levels."""

    forget_loss: Literal["nll", "npo"] = param(
        "nll", help="what the inner steps raise (L_f)", paper="nll", choices=("nll", "npo")
    )
    beta: float = param(
        0.1, help="weight of the cosine of both gradients in the inner objective", low=0.0
    )
    beta_npo: float = param(
        0.1, help="forget_loss=npo: sharpness of the preference", low=1e-6, high=100.0
    )
    cap: float | Literal["auto", "none"] = param(
        "auto",
        help="forget_loss=nll: nats from which a token is raised no further; auto: 2 ln V",
        paper="none",
        low=0.0,
    )
    inner_steps: int = param(5, help="ascent steps within each step (T)", paper=[5, 10], low=1)
    inner_rate: float | Literal["auto"] = param(
        "auto",
        help="size of an ascent step (eta_in); auto: the learning rate / inner_steps",
        paper=1e-5,
        low=0.0,
    )
    inner: Literal["adam", "plain"] = param(
        "adam",
        help="how ascent steps are made of their gradient",
        choices=("adam", "plain"),
    )
    outer_at: Literal["inner", "start"] = param(
        "inner",
        help="where the outer gradient is taken: after the ascent, or before it",
        choices=("inner", "start"),
    )
    rho: float = param(0.01, help="weight of ||grad Phi||^2 in the first step", low=0.0)
    rho_growth: float = param(1.1, help="factor on rho after each step", low=1.0)
    rho_max: float = param(1.0, help="bound on rho", low=0.0)
    hvp: Literal["exact", "finite", "none"] = param(
        "exact",
        help="how derivatives of gradients are formed",
        paper="exact",
        choices=("exact", "finite", "none"),
    )
    epsilon: float = param(
        0.01, help="hvp=finite or none: how far differences reach, over all weights", low=1e-12
    )
    tolerance: float = param(
        0.0, help="length of grad Phi at which the run ends; 0: never", low=0.0
    )
    schedule: Literal["linear", "cosine", "constant"] = param(
        "constant",
        help="how the outer rate goes after the warm-up; the inner one is constant",
        choices=("linear", "cosine", "constant"),
    )
    warmup: int | Literal["auto"] = param(
        0, help="optimiser steps over which the outer rate rises; the inner one does not", low=0
    )
    precision: Literal["auto", "float32"] = param(
        "float32", help="differences of gradients need it", choices=("float32",)
    )

    def __post_init__(self) -> None:
        """Refuse what has no derivative of a gradient.

        Raises:
            ExpungeError: ``E-USE-006``.
        """
        if self.hvp == "exact" and (self.checkpointing or self.base_bits is not None):
            raise ExpungeError(
                "E-USE-006",
                "ofmu with hvp=exact and checkpointing or base_bits: their backward passes have no "
                "derivatives.",
                "options that go together.",
                "Use --set hvp=finite, or leave the other out.",
            )


def prepare(task: Task, params: Params) -> None:
    """Settle the inner rate; see that attention can be differentiated twice."""
    if params.hvp == "exact":
        _refuse_single_derivatives(task)
    task.state.update({RHO: params.rho, RATE: inner_rate(task, params), REST: UNKNOWN})
    task.record["inner_rate"] = task.state[RATE]


def inner_rate(task: Task, params: Params) -> float:
    """``inner_rate``, or so much that all inner steps together are as long as an outer one."""
    if params.inner_rate != "auto":
        return float(params.inner_rate)
    size = sum(parameter.numel() for parameter in task.model.parameters())
    adapted = hasattr(task.model, "peft_config")
    return rates.learning_rate(params, size, adapter=adapted, card=CARD) / params.inner_steps


def forget(step: Step, params: Params) -> Mean:
    """``-L_f``: what goes down as the forget rows are forgotten."""
    for name in (RHO, REST):
        if name in step.state:
            told = torch.tensor([step.state[name]], dtype=torch.float64)
            step.report(name.removeprefix("ofmu."), mean_of(told))
    if params.forget_loss == "npo":
        return row_preference(step.forget, params.beta_npo)
    nll = -step.forget.token_logp
    if params.cap == "none":
        return -mean_of(nll)
    cap = 2 * math.log(step.forget.logits.shape[-1]) if params.cap == "auto" else params.cap
    return -mean_of(nll.clamp(max=cap))


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """T steps up Phi, which stay; then the gradient of J."""
    again = gradients.again
    assert again is not None  # noqa: S101
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivatives
        before = outer(again, state, params) if params.outer_at == "start" else None
        ascend(again, state, params)
        made = before or outer(again, state, params)
    state[RHO] = min(params.rho_growth * state[RHO], params.rho_max)
    return made


def effort(params: Params) -> float:
    """How many plain steps a step takes, by its passes; a second derivative counts as one more."""
    slope = 2 if params.hvp == "exact" else 5 if params.beta else 1
    outer = {"exact": 4, "finite": 3 * slope + 1, "none": 1}[params.hvp]
    return 1 + params.inner_steps * slope + outer


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether the inner problem was as good as at rest one step ago."""
    return 0 <= history[-1].terms.get("rest", UNKNOWN) <= params.tolerance and params.tolerance > 0


def ascend(again: Again, state: dict[str, Any], params: Params) -> None:
    """The inner steps: the weights end up where they lead."""
    weights, rate = list(again.parameters), state[RATE]
    adam = torch.optim.Adam(weights, lr=rate, maximize=True)
    for _ in range(params.inner_steps):
        up = slope(again, params)
        if params.inner == "plain":
            move(weights, up, rate)
            continue
        for weight, direction in zip(weights, up, strict=True):
            weight.grad = direction
        adam.step()
        adam.zero_grad()


def slope(again: Again, params: Params) -> list[Tensor]:
    """Gradient of Phi at the weights as they are."""
    return taken(again, params)[1] if params.hvp == "exact" else differenced(again, params)


def outer(again: Again, state: dict[str, Any], params: Params) -> list[Tensor]:
    """Gradient of J at the weights as they are; notes how far the inner problem is from rest."""
    alpha, rho = params.retain_weight, state[RHO]
    if params.hvp == "exact":
        kept, up = taken(again, params, graph=True)
        state[REST] = length(up)
        penalty = torch.stack([(u * u).sum() for u in up]).sum()
        return derivative(alpha * kept + rho * penalty, again.parameters, graph=False)
    keeps = again.gradients().retain
    if params.hvp == "none":
        return [alpha * r for r in keeps]
    up = differenced(again, params)
    state[REST] = length(up)
    curved = hessian_product(
        again.parameters, up, lambda: differenced(again, params), params.epsilon
    )
    return [alpha * r + 2 * rho * h for r, h in zip(keeps, curved, strict=True)]


def taken(again: Again, params: Params, *, graph: bool = False) -> tuple[Tensor, list[Tensor]]:
    """L_r and grad Phi by autograd; with ``graph`` both can be differentiated once more."""
    losses = again.losses()
    phi = -params.forget_weight * losses["forget"]
    if params.beta:
        sides = [
            derivative(losses[side], again.parameters, graph=True) for side in ("forget", "retain")
        ]
        phi = phi + params.beta * cosine(*sides)
    return losses["retain"], derivative(phi, again.parameters, graph=graph)


def differenced(again: Again, params: Params) -> list[Tensor]:
    """Gradient of Phi from gradients at the weights and at points beside them."""
    here = again.gradients()
    up = [-params.forget_weight * f for f in here.forget]
    if not params.beta:
        return up
    along_f, along_r = cosine_slopes(here.forget, here.retain)
    weights, reach = again.parameters, params.epsilon
    curved_f = hessian_product(weights, along_f, lambda: again.gradients().forget, reach)
    curved_r = hessian_product(weights, along_r, lambda: again.gradients().retain, reach)
    return [u + params.beta * (f + r) for u, f, r in zip(up, curved_f, curved_r, strict=True)]


def _refuse_single_derivatives(task: Task) -> None:
    """Kernels of other attention implementations have a first derivative only."""
    found = task.model.config._attn_implementation
    if found not in ("eager", "sdpa"):
        raise ExpungeError(
            "E-USE-006",
            f"ofmu with hvp=exact and attention by {found}.",
            "attention that can be differentiated twice: eager or sdpa.",
            "Use --set hvp=finite.",
        )
    if task.world is not None and task.world.size > 1:
        raise ExpungeError(
            "E-USE-006",
            f"ofmu with hvp=exact and {task.world.size} processes that share a step.",
            "one process.",
            "Use --set hvp=finite, or start it without torchrun.",
        )
