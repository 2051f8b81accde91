"""What is decided once for a row, from its prompt, and holds while the row goes on.

A run-time part that decides for whole rows (how much of an adapter a row gets) must do so before
the row is read, and must not change its mind while an answer is written. What a forward pass is
asked tells where the prompt ends: where logits are wanted at some positions only, it is what stands
before the first token that is predicted there; else it is all there is. A row of which everything
is predicted has no prompt and is judged as a whole.

The decision lies in the caller's own cache, behind the layers of the model, so that whatever
repeats, picks or drops rows does the same to it. Rows of such a model cannot go on from keys and
values that another row has left (`expunge.lm.prefixes.can_share` finds that out): those were made
before anything could be decided.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from expunge.engine.first_pass import Asked, known_before
from expunge.lm.prefixes import new_cache

Decide = Callable[[Sequence[list[int]]], Tensor]
"""Prompts, as token ids -> a number for each, [rows]."""


class Decided(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a cache that holds one number for each row, at every position it has read.

    Attributes:
        owner: Whose decision it is.
    """

    owner: str = ""


def decided(model: PreTrainedModel, owner: str, asked: Asked, keep: Any, decide: Decide) -> Tensor:
    """What holds for the rows of a forward pass.

    Args:
        model: The model whose decoder is asked.
        owner: Whose decision it is; stands in the cache.
        asked: Arguments of the decoder, with the cache in them that it is going to use.
        keep: The model's ``logits_to_keep``: a mask [B, T], a number of last positions, or None.
        decide: Called for rows that nothing is known of.

    Returns:
        [B, 1, 1], or [1, T, 1] where rows stand end to end.
    """
    ids = _ids_in(model, asked)
    cache = asked.get("past_key_values")
    layer = None if cache is None else _layer_of(model, cache, owner)
    if layer is not None and layer.get_seq_length():
        known: Tensor = layer.keys[:, 0, 0, 0]  # type: ignore[index]
    else:
        starts = _starts_in_line(asked, ids)
        if starts is not None:
            return _of_line(ids, starts, keep, decide)
        known = decide(_prompts(ids, _real(asked, ids), _looked_at(keep, ids)))
    told = known.float().view(len(ids), 1, 1)
    if layer is not None:
        spread = told[:, None].expand(-1, 1, ids.shape[1], 1)
        layer.update(spread, spread)
    return told


def _ids_in(model: PreTrainedModel, asked: Asked) -> Tensor:
    """[B, T], the tokens of a call; of embeddings those that are nearest."""
    ids: Tensor | None = asked.get("input_ids")
    if ids is not None:
        return ids
    given, table = asked["inputs_embeds"].detach(), cast(Any, model.get_input_embeddings())
    every = table(torch.arange(len(table.weight), device=given.device)).detach()
    away = torch.cdist(given.float().flatten(0, 1), every.float())
    return away.argmin(-1).view(given.shape[:2])


def _layer_of(model: PreTrainedModel, cache: Any, owner: str) -> Decided:
    for layer in cache.layers:
        if isinstance(layer, Decided) and layer.owner == owner:
            return layer
    while len(cache.layers) < len(new_cache(model).layers):
        cache.layers.append(cache.layer_class_to_replicate())
    made = Decided()  # type: ignore[no-untyped-call]
    made.owner = owner
    cache.layers.append(made)
    return made


def _prompts(ids: Tensor, real: Tensor, looked: Tensor | None) -> list[list[int]]:
    """The prompt of each row."""
    kept = real.clone()
    if looked is not None:
        order = torch.arange(ids.shape[1], device=ids.device)
        known = looked.any(1)
        first = torch.where(known, looked.int().argmax(1), ids.shape[1])
        last = ids.shape[1] - 1 - looked.flip(1).int().argmax(1)
        begins = real.int().argmax(1)
        ends = torch.where(first > begins, first, torch.where(known, last, ids.shape[1]))
        kept &= order <= ends[:, None]
    return [row[own].tolist() for row, own in zip(ids, kept, strict=True)]


def _of_line(ids: Tensor, starts: Sequence[int], keep: Any, decide: Decide) -> Tensor:
    """[1, T, 1], where several rows stand end to end in one line."""
    looked = _looked_at(keep, ids)
    lengths = [end - start for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True)]
    parts = torch.split(ids, lengths, 1)
    seen: Sequence[Tensor | None] = [None] * len(parts)
    if looked is not None:
        seen = torch.split(looked, lengths, 1)
    prompts = [
        _prompts(part, torch.ones_like(part, dtype=torch.bool), own)[0]
        for part, own in zip(parts, seen, strict=True)
    ]
    told = decide(prompts).repeat_interleave(torch.tensor(lengths, device=ids.device))
    return told.view(1, -1, 1)


def _looked_at(keep: Any, ids: Tensor) -> Tensor | None:
    """[B, T] bool, where logits are wanted; None where it is everywhere."""
    if isinstance(keep, Tensor) and keep.dtype == torch.bool and keep.shape == ids.shape:
        return keep
    if isinstance(keep, int) and 0 < keep <= ids.shape[1]:
        last = torch.arange(ids.shape[1], device=ids.device) >= ids.shape[1] - keep
        return last.expand_as(ids)
    return None


def _real(asked: Asked, ids: Tensor) -> Tensor:
    """[B, T] bool, positions that are no padding, as far as that was told."""
    mask = asked.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask[:, -ids.shape[1] :].bool()
    return torch.ones_like(ids, dtype=torch.bool)


def _starts_in_line(asked: Asked, ids: Tensor) -> list[int] | None:
    """Where rows begin that stand end to end in one line; None where each has one of its own."""
    positions = asked.get("position_ids")
    if positions is None or len(positions) != 1 or len(ids) != 1:
        return None
    if asked.get("attention_mask") is not None or known_before(asked):
        return None
    found: list[int] = (positions[0] == 0).nonzero()[:, 0].tolist()
    return found if len(found) > 1 and found[0] == 0 else None
