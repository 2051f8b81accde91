"""Letting a model write, so that only the arguments decide what comes out.

Sampling settings of a model folder, the global random state and the order of the prompts have no
part in it.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.data.encode import by_length
from expunge.lm.arch import base_of, positions_of
from expunge.lm.hooks import evaluating
from expunge.lm.prefixes import can_share, filled, new_cache
from expunge.lm.scoring import padding_id, takes

Ids = list[int]

ROW = 512
"""Tokens a row of a batch stands for, prompt and answer together."""

FEW = 8
"""One row in so many does not keep a batch going, where there are others to go on with."""

CROWD = 3 / 4
"""Once no more than this share of a batch is still writing, the ended rows leave it."""


class Part(NamedTuple):
    """Some tokens of an answer, and whether it is done with them."""

    ids: Ids
    is_done: bool


def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ids],
    *,
    new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    begun: Sequence[Ids] = (),
    top_p: float = 1.0,
) -> list[list[Ids]]:
    """Continue prompts.

    Greedy answers are written together, and rows that have ended make room for the others.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, for the ids that pad and that end an answer.
        prompts: Token ids of each prompt.
        new_tokens: Most tokens to add.
        samples: Continuations of each prompt.
        temperature: 0 takes the most probable token; above, tokens are drawn.
        seed: Decides the samples, together with the batch they are drawn in.
        batch_size: Rows of one forward pass; of greedy answers as many as take the room of so many
            rows of `ROW` tokens.
        begun: How the greedy answer to each prompt is known to begin; it is part of the answer.
        top_p: Share of the probability that tokens are drawn from, the most probable ones first.

    Returns:
        For each prompt its continuations, without the ending token.

    Raises:
        ExpungeError: ``E-DATA-011`` when a prompt leaves no room for the continuation.
    """
    check_room(prompts, new_tokens, positions_of(model))
    stops = stop_ids(model, tokenizer)
    settings = _settings(
        new_tokens, samples, temperature, padding_id(tokenizer), stops, top_p=top_p
    )
    if temperature == 0:
        beginnings = begun or [[]] * len(prompts)
        answers = _greedy(model, prompts, beginnings, settings, batch_size)
        return [[ids] * samples for ids in answers]
    written: list[list[Ids]] = [[] for _ in prompts]
    batches = by_length([len(prompt) for prompt in prompts], max(1, batch_size // samples))
    for number, batch in enumerate(batches):
        rows = _run(model, [prompts[i] for i in batch], settings, derive(seed, "generate", number))
        for k, i in enumerate(batch):
            written[i] = [_cut(row, stops) for row in rows[k * samples : (k + 1) * samples]]
    return written


def generate_together(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[Ids]],
    guide: Callable[[Tensor], Tensor],
    *,
    new_tokens: int,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Ids]:
    """Continue several prompts by one and the same continuation.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, for the ids that pad and that end an answer.
        texts: For each text its C prompts, as token ids.
        guide: [C, B, V], log-probabilities after each of the prompts -> [B, V], logits of the
            distribution that the next token is drawn from.
        new_tokens: Most tokens to add.
        seed: Decides the draws, together with the batch they are made in.
        batch_size: Rows of one forward pass.

    Returns:
        For each text its continuation, without the ending token.

    Raises:
        ExpungeError: ``E-DATA-011`` when a prompt leaves no room for the continuation.
    """
    check_room([prompt for text in texts for prompt in text], new_tokens, positions_of(model))
    stops = stop_ids(model, tokenizer)
    settings = _settings(new_tokens, 1, 0.0, padding_id(tokenizer), stops)
    written: list[Ids] = [[] for _ in texts]
    count = max((len(text) for text in texts), default=1)
    lengths = [max(len(prompt) for prompt in text) for text in texts]
    for number, batch in enumerate(by_length(lengths, max(1, batch_size // count))):
        prompts = [texts[i][place] for place in range(count) for i in batch]
        one = _OneDraw(count, guide)
        rows = _run(model, prompts, settings, derive(seed, "together", number), [one])
        for i, row in zip(batch, rows, strict=False):  # the other prompts were continued alike
            written[i] = _cut(row, stops)
    return written


class _OneDraw(LogitsProcessor):
    """Draws one next token for all prompts of a text, and leaves no other possible."""

    def __init__(self, count: int, guide: Callable[[Tensor], Tensor]) -> None:
        self._count, self._guide = count, guide

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logp = scores.float().log_softmax(-1).view(self._count, -1, scores.shape[-1])
        drawn = torch.multinomial(self._guide(logp).softmax(-1), 1).repeat(self._count, 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def stop_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: the tokenizer's, and those the model folder adds for turns."""
    config = getattr(base_of(model), "generation_config", None)
    known: set[int] = set()
    for ids in (tokenizer.eos_token_id, getattr(config, "eos_token_id", None)):
        known.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return sorted(known)


def _greedy(
    model: nn.Module,
    prompts: Sequence[Ids],
    begun: Sequence[Ids],
    settings: GenerationConfig,
    batch_size: int,
) -> list[Ids]:
    """The most probable continuation of each prompt.

    Where there are several batches, the last few rows of each do not keep it going: they are
    gathered, and go on together.
    """
    write, shares = _run_to_the_end, can_share(model)
    if shares:
        write = _write
    else:  # what such a model says may depend on where the prompt ends
        begun = [[]] * len(prompts)
    written = [list(ids) for ids in begun]
    most = settings.max_new_tokens
    going = [i for i, ids in enumerate(written) if len(ids) < most]
    while going:
        batches = filled([len(prompts[i]) + most for i in going], batch_size * ROW)
        left: list[int] = []
        for batch in ([going[at] for at in places] for places in batches):
            texts = [prompts[i] + written[i] for i in batch]
            rooms = [most - len(written[i]) for i in batch]
            few = len(batch) // FEW if len(batches) > 1 else 0
            with evaluating(model):
                rows = write(model, texts, rooms, settings, few)
            for i, (ids, is_done) in zip(batch, rows, strict=True):
                written[i] += ids
                left += [] if is_done else [i]
        going = left
    return written


def _run_to_the_end(
    model: nn.Module,
    prompts: Sequence[Ids],
    rooms: Sequence[int],
    settings: GenerationConfig,
    few: int,
) -> list[Part]:
    """As `_write`, for models whose rows cannot leave a batch."""
    stops, settings = settings.eos_token_id or (), copy.copy(settings)
    settings.max_new_tokens = max(rooms)
    rows = _run(model, prompts, settings, 0)
    return [Part(_cut(row, stops)[:room], True) for row, room in zip(rows, rooms, strict=True)]


def _write(
    model: nn.Module,
    prompts: Sequence[Ids],
    rooms: Sequence[int],
    settings: GenerationConfig,
    few: int,
) -> list[Part]:
    """Write greedily until no more than ``few`` rows are left.

    Once enough rows of the batch have ended, the others go on without them.
    """
    device = next(model.parameters()).device
    ids, mask = (given.to(device) for given in _pad_left(prompts, settings.pad_token_id))
    place = (mask.cumsum(1) - 1).clamp(min=0)
    cache = new_cache(model)
    stops = torch.tensor(settings.eos_token_id or (), dtype=ids.dtype, device=device)
    room = torch.tensor(rooms, device=device)
    written: list[Ids] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=device)
    going = room > 0
    for step in range(1, max(rooms) + 1):
        token = _next(model, cache, ids, mask, place)
        going &= ~torch.isin(token, stops)
        for row, chosen in zip(rows[going].tolist(), token[going].tolist(), strict=True):
            written[row].append(chosen)
        going &= room[rows] > step
        left = int(going.sum())
        if left <= few:
            break
        ids, place = token[:, None], place[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(ids)], 1)
        if left <= CROWD * len(rows):
            cache.batch_select_indices(going)
            ids, mask, place, rows = ids[going], mask[going], place[going], rows[going]
            going = going[going]
    open_rows = set(rows[going].tolist())
    return [Part(ids, row not in open_rows) for row, ids in enumerate(written)]


def _next(
    model: nn.Module, cache: DynamicCache, ids: Tensor, mask: Tensor, place: Tensor
) -> Tensor:
    """[B], the most probable next token of each row; the cache grows by ``ids``."""
    writer: Any = model
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": place}
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    logits: Tensor = writer(**inputs, past_key_values=cache, use_cache=True).logits[:, -1]
    return logits.argmax(-1)


def _settings(
    new_tokens: int,
    samples: int,
    temperature: float,
    pad: int,
    stops: list[int],
    *,
    top_p: float = 1.0,
) -> GenerationConfig:
    sampling: dict[str, Any] = {}
    if temperature > 0:
        sampling = {"temperature": temperature, "top_k": 0, "num_return_sequences": samples}
        sampling |= {"top_p": top_p} if top_p < 1 else {}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new_tokens,
        do_sample=temperature > 0,
        pad_token_id=pad,
        eos_token_id=stops or None,
        **sampling,
    )


def _run(
    model: nn.Module,
    prompts: Sequence[Ids],
    settings: GenerationConfig,
    seed: int,
    processors: Sequence[LogitsProcessor] = (),
) -> list[Ids]:
    writer: Any = base_of(model)
    device = next(writer.parameters()).device
    input_ids, mask = _pad_left(prompts, settings.pad_token_id)
    with evaluating(model), _only(writer, settings), _drawing(seed, device):
        rows: Tensor = writer.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            generation_config=settings,
            logits_processor=LogitsProcessorList(processors),
        )
    written: list[Ids] = rows[:, input_ids.shape[1] :].tolist()
    return written


def _pad_left(prompts: Sequence[Ids], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return input_ids, mask


def _cut(row: Ids, stops: Sequence[int]) -> Ids:
    end = next((i for i, token in enumerate(row) if token in stops), len(row))
    return row[:end]


@contextmanager
def _only(model: Any, settings: GenerationConfig) -> Iterator[None]:
    """Keep the model's own generation settings out: `generate` fills gaps from them."""
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """A random state of its own for one batch; the global one comes back untouched."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def check_room(prompts: Sequence[Ids], new_tokens: int, positions: int) -> None:
    """Refuse prompts that leave no room for their continuation.

    Raises:
        ExpungeError: ``E-DATA-011``.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + new_tokens > positions:
        raise ExpungeError(
            "E-DATA-011",
            f"A prompt of {longest} tokens with {new_tokens} to be written after it.",
            f"at most {positions} tokens together, the positions of this model.",
            "Shorten the prompt or ask for fewer new tokens.",
        )
