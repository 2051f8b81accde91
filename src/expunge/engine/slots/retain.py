"""Retain terms: what keeps the rest of the model in place (methods, section 0, RET)."""

from torch.nn import functional

from expunge.core.families import GradientParams
from expunge.engine.mean import Mean, mean_of
from expunge.engine.steering import distance
from expunge.engine.step import Step


def none(step: Step, params: GradientParams) -> None:
    """No retain term."""


def nll(step: Step, params: GradientParams) -> Mean:
    """Token-mean negative log-likelihood of the retain answers."""
    return step.retain.nll


def kl(step: Step, params: GradientParams) -> Mean:
    """``KL(anchor || model)`` per position, over the positions of ``params.kl_scope``."""
    view = step.retain.over(params.kl_scope)
    model = functional.log_softmax(view.logits, -1)
    anchor = functional.log_softmax(view.anchor.logits, -1)
    return mean_of(functional.kl_div(model, anchor, reduction="none", log_target=True).sum(-1))


def mse(step: Step, params: GradientParams) -> Mean:
    """Mean squared distance of hidden states to the anchor's, over real positions and channels.

    The block is ``params.mse_layer``, or the middle one. (Representation misdirection, 2024.)
    """
    view = step.retain
    layer = view.blocks // 2 if params.mse_layer is None else params.mse_layer
    real = view.inputs.attention_mask.bool()
    return distance(view.hidden(layer), view.anchor.hidden(layer), real)


SHARED = {"none": none, "nll": nll, "kl": kl, "mse": mse}

NEEDS: dict[str, frozenset[str]] = {
    "none": frozenset(),
    "nll": frozenset({"retain"}),
    "kl": frozenset({"retain", "anchor-logits"}),
    "mse": frozenset({"retain", "anchor-hidden"}),
}


def by_term(step: Step, params: GradientParams) -> Mean | None:
    """The default slot: the term that ``params.retain_term`` names."""
    return SHARED[params.retain_term](step, params)
