"""Looking into a forward pass, changing it, and stopping it early.

A *block output* is the residual stream after a decoder block, before the final norm; the last
block's output is therefore not the last entry of ``output_hidden_states``.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.arch import Slots

Edit = Callable[[Tensor], Tensor]
"""Hidden states [B, T, d] to hidden states [B, T, d]."""


class _Reached(BaseException):
    """Stops a forward pass; not an `Exception`, so that no model code can swallow it."""


@contextmanager
def capture(
    model: nn.Module, layers: Iterable[int], slot: str = "block"
) -> Iterator[dict[int, Tensor]]:
    """Collect outputs of some layers during the forward passes made inside the context.

    Args:
        model: A causal language model.
        layers: Block numbers, negative from the top.
        slot: Which part of the block, see `expunge.lm.arch.Slots.module`.

    Yields:
        layer (as given) -> output [B, T, d] of the latest forward pass, with its gradient graph.
    """
    slots, seen, handles = Slots(model), {}, []
    for layer in layers:

        def store(_: nn.Module, __: Any, output: Any, layer: int = layer) -> None:
            seen[layer] = _tensor(output)

        handles.append(slots.module(layer, slot).register_forward_hook(store))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def intervene(model: nn.Module, layer: int, fn: Edit, slot: str = "block") -> Iterator[None]:
    """Replace the output of a layer by ``fn`` of it, during the context.

    Args:
        model: A causal language model.
        layer: Block number, negative from the top.
        fn: Hidden states [B, T, d] to hidden states; while generating, T is 1 after the prompt.
        slot: Which part of the block, see `expunge.lm.arch.Slots.module`.
    """

    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        changed = fn(_tensor(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = Slots(model).module(layer, slot).register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def forward_to(model: nn.Module, layer: int, **inputs: Any) -> Tensor:
    """Run a model up to one block and no further.

    Never call this through a data-parallel wrapper: its gradients would silently stay local.

    Args:
        model: A causal language model.
        layer: Block number, negative from the top.
        **inputs: Arguments of the model's forward.

    Returns:
        The block's output [B, T, d], with its gradient graph.
    """

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        reached.append(_tensor(output))
        raise _Reached

    reached: list[Tensor] = []
    handle = Slots(model).module(layer, "block").register_forward_hook(stop)
    try:
        model(**inputs)
    except _Reached:
        pass
    finally:
        handle.remove()
    return reached[0]


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch every dropout off while the model stays in training mode.

    Evaluation mode would do the same, but activation checkpointing only works in training mode.
    Attention dropout sits in plain attributes, so those are set to 0 as well; all are restored.
    """
    found = [
        (module, name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, float)
        and ("drop" in name or (name == "p" and isinstance(module, nn.modules.dropout._DropoutNd)))
    ]
    try:
        for module, name, _ in found:
            setattr(module, name, 0.0)
        yield
    finally:
        for module, name, value in found:
            setattr(module, name, value)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; the mode the model was in comes back."""
    with _mode(model, training=False), torch.no_grad():
        yield


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """Training mode without dropout; the mode the model was in comes back."""
    with _mode(model, training=True), without_dropout(model):
        yield


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _tensor(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor
