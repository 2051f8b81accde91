"""Looking into a forward pass, changing it, and stopping it early.

A *block output* is the residual stream after a decoder block, before the final norm; the last
block's output is therefore not the last entry of ``output_hidden_states``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.arch import Slots

EMBEDDING = -(1 << 30)
"""Stands among block numbers for what goes into the first block."""

Edit = Callable[[Tensor], Tensor]
"""Hidden states [B, T, d] to hidden states [B, T, d]."""


class _Reached(BaseException):
    """Stops a forward pass; not an `Exception`, so that no model code can swallow it."""


@contextmanager
def capture(
    model: nn.Module, layers: Iterable[int], slot: str = "block", *, entering: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Collect outputs of some layers during the forward passes made inside the context.

    Args:
        model: A causal language model.
        layers: Block numbers, negative from the top.
        slot: Which part of the block, see `expunge.lm.arch.Slots.module`.
        entering: Collect what goes into the part instead.

    Yields:
        layer (as given) -> output [B, T, d] of the latest forward pass, with its gradient graph.
    """
    slots, seen, handles = Slots(model), {}, []
    for layer in layers:

        def store(_: nn.Module, given: Any, output: Any, layer: int = layer) -> None:
            seen[layer] = given[0] if entering else _tensor(output)

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
    """Run a model up to one block and no further; see `forward_through`.

    Returns:
        The block's output [B, T, d], with its gradient graph.
    """
    return forward_through(model, [layer], **inputs)[layer]


def forward_within(
    model: nn.Module, layer: int, slot: str, *, entering: bool = False, **inputs: Any
) -> Tensor:
    """Run a model up to one block and no further, and look at a part of it.

    Args:
        model: A causal language model.
        layer: Block number, negative from the top.
        slot: Which part, see `expunge.lm.arch.Slots.module`.
        entering: Give what goes into the part instead of what comes out.
        **inputs: Arguments of the model's forward.

    Returns:
        [B, T, d], with its gradient graph.
    """
    with capture(model, [layer], slot, entering=entering) as seen:
        forward_to(model, layer, **inputs)
    return seen[layer]


def forward_through(model: nn.Module, layers: Sequence[int], **inputs: Any) -> dict[int, Tensor]:
    """Run a model up to the deepest of some blocks and no further.

    Never call this through a data-parallel wrapper: its gradients would silently stay local.

    Args:
        model: A causal language model.
        layers: Block numbers, negative from the top; `EMBEDDING` for what goes into the first.
        **inputs: Arguments of the model's forward.

    Returns:
        layer (as given) -> the block's output [B, T, d], with its gradient graph.
    """
    blocks = Slots(model).blocks
    places = {layer: layer if layer >= 0 else layer + len(blocks) for layer in layers}
    deepest = max(places.values())
    seen: dict[int, Tensor] = {}

    def enter(_: nn.Module, positional: Any, named: Any) -> None:
        seen[-1] = positional[0] if positional else named["hidden_states"]
        if deepest < 0:
            raise _Reached

    def leave(place: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[place] = _tensor(output)
            if place == deepest:
                raise _Reached

        return hook

    handles = [
        blocks[place].register_forward_hook(leave(place)) for place in places.values() if place >= 0
    ]
    if EMBEDDING in places:
        handles.append(blocks[0].register_forward_pre_hook(enter, with_kwargs=True))
    try:
        model(**inputs)
    except _Reached:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return {layer: seen[max(place, -1)] for layer, place in places.items()}


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
