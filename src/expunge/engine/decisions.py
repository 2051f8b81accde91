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

Where a forward pass cannot tell where the prompt ends (it is read in several pieces, or all of the
text is read again for every token), whoever runs the model says it: `telling`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from expunge.engine.first_pass import Asked, known_before
from expunge.lm.prefixes import new_cache

Decide = Callable[[Sequence[list[int]]], Tensor]
"""Prompts, as token ids -> a number for each, [rows], or several, [rows, k]."""

Ids = Sequence[int]

_TOLD: ContextVar[Sequence[Ids] | None] = ContextVar("prompts told", default=None)


@contextmanager
def telling(prompts: Sequence[Ids]) -> Iterator[None]:
    """Say what the prompts are of all rows that begin during the context.

    Args:
        prompts: Token ids, without padding, in the order of the rows; where there are several rows
            to a prompt (samples), they stand side by side.
    """
    token = _TOLD.set([list(prompt) for prompt in prompts])
    try:
        yield
    finally:
        _TOLD.reset(token)


class Held(NamedTuple):
    """What holds for the rows of a forward pass.

    Attributes:
        told: [R, k], what was decided for each row.
        ends: [R], how many tokens the prompt of each has. Of a row of which everything is
            predicted it is the first one, although the row was judged as a whole.
        row: [B, 1], or [1, T] where rows stand end to end: the row of each position.
        place: [B, T], the number of each token in its row, from 0; -1 at padding.
    """

    told: Tensor
    ends: Tensor
    row: Tensor
    place: Tensor


class Decided(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer of a cache that holds what was decided for each row.

    Keys are 1 at tokens and 0 at padding, [B, 1, T, 1]; values stand there once for each row,
    [B, 1, 1, 1 + k], the length of the prompt first.

    Attributes:
        owner: Whose decision it is.
    """

    owner: str = ""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Go on by some positions; values are taken where nothing was read before."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self.get_seq_length():
            self.keys, self.values = key_states, value_states
        else:
            self.keys = torch.cat([cast(Tensor, self.keys), key_states], dim=-2)
        return self.keys, cast(Tensor, self.values)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last positions; what was decided stays."""
        if tokens_to_remove and self.is_initialized:
            self.keys = cast(Tensor, self.keys)[..., : -abs(tokens_to_remove), :]


def decided(model: PreTrainedModel, owner: str, asked: Asked, keep: Any, decide: Decide) -> Tensor:
    """The number that holds for the rows of a forward pass; see `held`.

    Returns:
        [B, 1, 1], or [1, T, 1] where rows stand end to end.
    """
    found = held(model, owner, asked, keep, decide)
    return found.told[found.row]


def held(model: PreTrainedModel, owner: str, asked: Asked, keep: Any, decide: Decide) -> Held:
    """What holds for the rows of a forward pass.

    Args:
        model: The model whose decoder is asked.
        owner: Whose decision it is; stands in the cache.
        asked: Arguments of the decoder, with the cache in them that it is going to use.
        keep: The model's ``logits_to_keep``: a mask [B, T], a number of last positions, or None.
        decide: Called for rows that nothing is known of.
    """
    ids = _ids_in(model, asked)
    cache = asked.get("past_key_values")
    layer = None if cache is None else _layer_of(model, cache, owner)
    real = _real(asked, ids)
    if layer is not None and layer.get_seq_length():
        known = cast(Tensor, layer.values)[:, 0, 0]
        before = cast(Tensor, layer.keys)[:, 0, :, 0].sum(1, keepdim=True).long()
    else:
        starts = _starts_in_line(asked, ids)
        if starts is not None:
            return _of_line(ids, starts, keep, decide)
        is_exact = asked.get("input_ids") is not None
        prompts, ends = _prompts(ids, real, _looked_at(keep, ids), _TOLD.get(), is_exact)
        known = _beside(ends, decide(prompts), ids.device)
        before = torch.zeros(len(ids), 1, dtype=torch.long, device=ids.device)
    if layer is not None:
        layer.update(real.float()[:, None, :, None], known[:, None, None])
    place = torch.where(real, before + real.cumsum(1) - 1, -1)
    row = torch.arange(len(ids), device=ids.device)[:, None]
    return Held(known[:, 1:], known[:, 0].long(), row, place)


def _beside(ends: Sequence[int], told: Tensor, device: torch.device) -> Tensor:
    """[R, 1 + k], lengths of prompts and what was decided."""
    told = told.to(device, torch.float32).view(len(ends), -1)
    return torch.cat([torch.tensor(ends, dtype=torch.float32, device=device)[:, None], told], 1)


def came_before(asked: Asked, owner: str) -> bool:
    """Whether keys and values of these rows were made before anything was decided about them.

    Args:
        asked: Arguments of a forward pass, with the cache it is going to use.
        owner: Whose decision it would be.
    """
    if not known_before(asked):
        return False
    layers = asked["past_key_values"].layers
    mine = (one for one in layers if isinstance(one, Decided) and one.owner == owner)
    return not any(one.get_seq_length() for one in mine)


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


def _prompts(
    ids: Tensor,
    real: Tensor,
    looked: Tensor | None,
    told: Sequence[Ids] | None,
    is_exact: bool = True,
) -> tuple[list[list[int]], list[int]]:
    """The prompt of each row, and how many tokens stand before the first that is predicted."""
    if told is not None:
        return _told(told, ids, real, is_exact)
    kept = asked = real
    if looked is not None:
        order = torch.arange(ids.shape[1], device=ids.device)
        known = looked.any(1)
        first = torch.where(known, looked.int().argmax(1), ids.shape[1])
        last = ids.shape[1] - 1 - looked.flip(1).int().argmax(1)
        begins = real.int().argmax(1)
        ends = torch.where(first > begins, first, torch.where(known, last, ids.shape[1]))
        kept, asked = real & (order <= ends[:, None]), real & (order <= first[:, None])
    prompts = [row[own].tolist() for row, own in zip(ids, kept, strict=True)]
    return prompts, asked.sum(1).tolist()


def _told(
    told: Sequence[Ids], ids: Tensor, real: Tensor, is_exact: bool
) -> tuple[list[list[int]], list[int]]:
    """The prompts that somebody told.

    Raises:
        RuntimeError: When they are not those of these rows: nothing may be decided for another.
    """
    each, over = divmod(len(ids), max(1, len(told)))
    prompts = [list(prompt) for prompt in told for _ in range(each)]
    rows = [row[own].tolist() for row, own in zip(ids, real, strict=True)]
    pairs = zip(prompts, rows, strict=not over)
    if over or (is_exact and any(p[: len(row)] != row[: len(p)] for p, row in pairs)):
        raise RuntimeError("rows that do not begin with the prompts that were told")
    return prompts, [len(prompt) for prompt in prompts]


def _of_line(ids: Tensor, starts: Sequence[int], keep: Any, decide: Decide) -> Held:
    """Where several rows stand end to end in one line."""
    looked = _looked_at(keep, ids)
    lengths = [end - start for start, end in zip(starts, [*starts[1:], ids.shape[1]], strict=True)]
    parts = torch.split(ids, lengths, 1)
    seen: Sequence[Tensor | None] = [None] * len(parts)
    if looked is not None:
        seen = torch.split(looked, lengths, 1)
    told = _TOLD.get()
    said: Sequence[Any] = [None] * len(parts) if told is None else [[one] for one in told]
    found = [
        _prompts(part, torch.ones_like(part, dtype=torch.bool), own, prompt)
        for part, own, prompt in zip(parts, seen, said, strict=True)
    ]
    ends = [count for _, (count,) in found]
    known = _beside(ends, decide([prompt for (prompt,), _ in found]), ids.device)
    counts = torch.tensor(lengths, device=ids.device)
    row = torch.arange(len(lengths), device=ids.device).repeat_interleave(counts)[None]
    place = torch.cat([torch.arange(length, device=ids.device) for length in lengths])[None]
    return Held(known[:, 1:], known[:, 0].long(), row, place)


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
