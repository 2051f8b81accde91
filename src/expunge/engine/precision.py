"""How a run computes: in which precision, and what it keeps for the backward pass.

``float32`` leaves everything alone. ``bf16`` runs every forward pass under autocast, over weights
that stay as they are. ``bf16-masters`` gives the model bfloat16 weights for the time of the run
and hands the float32 originals to the optimiser as masters: it moves those, and copies them down
after each step. An update far below the precision of a bfloat16 weight then still counts, which in
pure bfloat16 it would not. Log-probabilities are formed in float32 in every mode.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.families import GradientParams
from expunge.lm.arch import base_of

Masters = dict[nn.Parameter, Tensor]
"""Parameter -> the float32 tensor the optimiser moves in its place; empty in other modes."""


@contextmanager
def computing(model: nn.Module, params: GradientParams) -> Iterator[Masters]:
    """Every forward pass of ``model`` as ``params`` ask for, in this context.

    Training, anchors and measurements all pass through here, so they see the same arithmetic.

    Args:
        model: A causal language model, with an adapter or without.
        params: Of them ``precision`` and ``checkpointing``.

    Yields:
        The masters. When the context ends the model holds them, in the precision its weights had
        before: nothing the optimiser did is lost to rounding.
    """
    device = next(model.parameters()).device.type
    mode = precision_on(params, device)
    with ExitStack() as stack:
        masters = stack.enter_context(_masters(model)) if mode == "bf16-masters" else {}
        if mode == "bf16":
            stack.enter_context(_autocast(model, device))
        if params.checkpointing:
            stack.enter_context(_checkpointing(model))
        yield masters


def precision_on(params: GradientParams, device: str) -> str:
    """What ``params.precision`` stands for on a kind of device (``cpu``, ``cuda``)."""
    if params.precision != "auto":
        return params.precision
    return "float32" if device == "cpu" else "bf16"


def loading_dtype(params: GradientParams, *, adapted: bool) -> torch.dtype | None:
    """In which precision a run loads its model; None as `expunge.lm.load.load` decides.

    Weights that move are float32. Frozen ones under an adapter may stay as they are stored, unless
    the arithmetic is to be float32 throughout.
    """
    return None if adapted and params.precision != "float32" else torch.float32


@contextmanager
def _autocast(model: nn.Module, device: str) -> Iterator[None]:
    """Autocast around the forward pass alone, where it belongs: not around losses.

    The wrapper hangs on the instance as a bound method, so a copy of the model runs its own, and
    the signature of ``forward`` shows through.
    """
    plain, own = type(model).forward, vars(model).get("forward")

    @wraps(plain)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return plain(self, *args, **kwargs)

    vars(model)["forward"] = MethodType(forward, model)
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


@contextmanager
def _masters(model: nn.Module) -> Iterator[Masters]:
    """Parameters in bfloat16, buffers as they are: rounded rotary angles are another model."""
    before = {parameter: parameter.data for parameter in model.parameters()}
    masters = {p: data if data.itemsize >= 4 else data.float() for p, data in before.items()}
    try:
        for parameter, master in masters.items():
            parameter.data = master.to(torch.bfloat16)
        yield masters
    finally:
        for parameter, master in masters.items():
            parameter.grad = None
            parameter.data = master.to(before[parameter].dtype)


@contextmanager
def _checkpointing(model: nn.Module) -> Iterator[None]:
    """Keep what goes into each block and compute the rest again in the backward pass.

    It does so in training mode only. The library also makes embeddings ask for gradients, which
    the variant used here can do without, frozen embeddings under an adapter included.
    """
    base: Any = base_of(model)
    base.activation_checkpointing_enable({"use_reentrant": False})
    base.disable_input_require_grads()
    try:
        yield
    finally:
        base.activation_checkpointing_disable()
