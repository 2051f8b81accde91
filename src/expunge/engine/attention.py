"""Attention maps: how much each position looks at each, and the weights that make them.

Fused attention keeps no maps, so a forward pass that reads them uses a plain form of it, and gives
back the one the model had. The library's own (``eager``) forms maps in float32 and rounds
them to the precision of the model; ours keeps them in float32 at least, and in float64 where the
model computes in that. What is computed again in the backward pass is computed in the same form.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.engine.forward import Inputs
from expunge.engine.slots.mask import Mask
from expunge.lm.arch import Slots, base_of
from expunge.lm.hooks import forward_through
from expunge.lm.scoring import at_least_float32

PLAIN = "expunge_plain"
"""Name of the plain form, as the library knows it."""

APART = ("q_proj", "k_proj")
"""Where queries and keys are made, in families that keep them apart."""


def attention_maps(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    """The attention maps of all blocks.

    Rows are padded, also where a run packs them: the maps of one long line would grow with the
    square of all its rows.

    Args:
        model: A causal language model, with an adapter or put back to its start.
        inputs: The rows.

    Returns:
        For each block, bottom first, [B, heads, T, T] in at least float32; the third index looks
        at the last one.

    Raises:
        ExpungeError: ``E-MODEL-007`` when the family hands out no maps.
    """
    slots = Slots(model)
    seen: dict[int, Tensor | None] = {}
    with plain_attention(model), ExitStack() as hooks:
        for layer in range(len(slots)):

            def store(_: nn.Module, __: Any, output: Any, layer: int = layer) -> None:
                seen.setdefault(layer, output[1] if isinstance(output, tuple) else None)

            handle = slots.module(layer, "attention").register_forward_hook(store)
            hooks.callback(handle.remove)
        forward_through(
            model,
            [len(slots) - 1],
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            use_cache=False,
        )
    maps = [one for layer in range(len(slots)) if (one := seen.get(layer)) is not None]
    if len(maps) != len(slots):
        raise ExpungeError(
            "E-MODEL-007",
            f"{type(base_of(model)).__name__} hands out {len(maps)} attention maps.",
            f"one for each of its {len(slots)} blocks.",
            "Use a model of another family, or a method that does not look at attention.",
        )
    return maps


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out: [B, T, heads, d] and the maps; heads that share a key get a copy."""
    sharing = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(sharing, 1) for one in (key, value))
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores = at_least_float32(query @ key.mT) * scaling
    if (cap := options.get("softcap")) is not None:
        scores = cap * (scores / cap).tanh()
    if attention_mask is not None:
        scores = scores + attention_mask
    maps = scores.softmax(-1)
    kept = functional.dropout(maps, options.get("dropout", 0.0), module.training)
    return (kept.to(value.dtype) @ value).transpose(1, 2).contiguous(), maps


AttentionInterface.register(PLAIN, _attend)
AttentionMaskInterface.register(PLAIN, eager_mask)


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Attention that makes its maps, during the context and in what is computed again of it."""
    base: Any = base_of(model)
    before = base.config._attn_implementation
    if before == PLAIN:
        yield
        return
    with _computed_again_under(lambda: plain_attention(model), Slots(model).blocks):
        base.set_attn_implementation(PLAIN)
        try:
            yield
        finally:
            base.set_attn_implementation(before)


@contextmanager
def _computed_again_under(
    context: Callable[[], AbstractContextManager[None]], blocks: Iterable[nn.Module]
) -> Iterator[None]:
    """Blocks that keep no activations enter ``context`` when they compute them again."""
    found = {block: vars(block).get("_gradient_checkpointing_func") for block in blocks}
    kept = {block: function for block, function in found.items() if function is not None}
    for block, function in kept.items():
        again = partial(function, context_fn=lambda: (nullcontext(), context()))
        vars(block)["_gradient_checkpointing_func"] = again
    try:
        yield
    finally:
        for block, function in kept.items():
            vars(block)["_gradient_checkpointing_func"] = function


def query_and_key_only(model: PreTrainedModel, layers: Iterable[int]) -> Mask:
    """The query and key projections of some blocks move, nothing else; no bias does.

    Where a family keeps query, key and value in one matrix, the part of the value is held.

    Args:
        model: A causal language model.
        layers: Blocks, negative from the top.

    Raises:
        ExpungeError: ``E-MODEL-007`` when the parts of a matrix cannot be told apart.
    """
    slots = Slots(model)
    moving: dict[str, Tensor | bool] = {}
    for layer in layers:
        names = slots.names(layer, "attention_in")
        if len(names) == 1:
            moving[f"{names[0]}.weight"] = _within_one(slots, layer, names[0])
            continue
        chosen = [name for name in names if name.rpartition(".")[2] in APART]
        if len(chosen) != len(APART):
            raise _no_parts(model, ", ".join(names))
        moving |= dict.fromkeys((f"{name}.weight" for name in chosen), True)
    free = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {name: moving.get(name, False) for name in free}


def _within_one(slots: Slots, layer: int, name: str) -> Tensor:
    """Which entries of a joint projection make queries and keys."""
    joint: Any = slots.model.get_submodule(name)
    out: Any = slots.module(layer, "attention_out")
    is_transposed = isinstance(joint, Conv1D)
    outputs = joint.weight.shape[1 if is_transposed else 0]
    queries = out.weight.shape[0 if isinstance(out, Conv1D) else 1]
    match name.rpartition(".")[2]:
        case "qkv_proj" | "c_attn":  # all queries, all keys, all values
            own = torch.arange(outputs) < (outputs + queries) // 2
        case "query_key_value":  # query, key and value of one head after the other
            heads = slots.model.config.get_text_config().num_attention_heads  # type: ignore[union-attr, operator]
            width = queries // heads
            own = torch.arange(outputs) % (3 * width) < 2 * width
        case _:
            raise _no_parts(slots.model, name)
    shaped = own[None] if is_transposed else own[:, None]
    entries: Tensor = shaped.expand_as(joint.weight).to(joint.weight.device)
    return entries


def _no_parts(model: nn.Module, names: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-007",
        f"{type(base_of(model)).__name__} makes queries and keys in {names}.",
        "projections whose parts are known.",
        "Use a model of another family, or a method that moves all weights.",
    )
