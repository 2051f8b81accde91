"""One evaluation of a gradient method's loss, on tensors given by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.registry import methods
from expunge.engine.forward import Inputs
from expunge.engine.method import GradientMethod
from expunge.engine.sources import Frozen, Live
from expunge.engine.step import Step
from expunge.engine.view import View


@dataclass(frozen=True, slots=True)
class Objective:
    """What a method's loss is on some tensors.

    Attributes:
        loss: The weighted sum of the terms.
        terms: Value of each term that is there.
        grad_norm: Euclidean norm of the gradient left on the model's parameters (NaN without any).
    """

    loss: float
    terms: dict[str, float]
    grad_norm: float


def objective(
    method_id: str,
    model: Callable[..., Any],
    views: Mapping[str, Mapping[str, Tensor]],
    anchor: Callable[..., Any] | None = None,
    *,
    state: dict[str, Any] | None = None,
    tensors: dict[str, Tensor] | None = None,
    **params: Any,
) -> Objective:
    """Evaluate a gradient method once and leave the gradient on the model.

    Args:
        method_id: Id of the method.
        model: Anything with the call signature of a causal language model; called once a view.
        views: View name -> ``input_ids``, ``attention_mask``, ``labels`` ([B, T], -100 where not
            supervised), and optionally ``rows`` [B], the items' numbers in their data set (0, 1, 2
            and so on by default). A retain term without a ``retain`` view is left out.
        anchor: The frozen model, for methods that compare with one.
        state: The method's state over a run, as its `prepare` leaves it; None is an empty one.
        tensors: What of that state are tensors, likewise.
        **params: Parameters of the method.

    Raises:
        ExpungeError: For an unknown method or parameter.
    """
    method = GradientMethod.assemble(methods.load(method_id), methods.params(method_id, params))
    frozen = None if anchor is None else (lambda: Frozen(anchor))
    source = Live(model)
    made = {name: View(_inputs(tensors), source, frozen) for name, tensors in views.items()}
    step = Step(made, state=state, tensors=tensors)
    weights = method.weights
    terms: dict[str, Tensor] = {}
    for name, term in method.terms.items():
        if name == "retain" and "retain" not in made:
            continue
        mean = term(step, method.params)
        if mean is not None:
            terms[name] = mean.value
    loss = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    return Objective(
        float(loss.detach()),
        {name: float(value.detach()) for name, value in terms.items()},
        _norm(model),
    )


def _inputs(tensors: Mapping[str, Tensor]) -> Inputs:
    ids = tensors["input_ids"]
    mask = tensors.get("attention_mask", torch.ones_like(ids))
    rows = tensors.get("rows", torch.arange(len(ids)))
    return Inputs.from_labels(ids, mask, tensors["labels"], rows)


def _norm(model: Any) -> float:
    parameters = model.parameters() if hasattr(model, "parameters") else ()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return float("nan")
    return float(torch.stack([g.double().norm() for g in gradients]).norm())
