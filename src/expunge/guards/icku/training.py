"""The one short fine-tuning from which the model learns what the block means."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.rng import derive
from expunge.data.encode import IGNORED, Batch, Encoded, Encoder, collate
from expunge.engine.rates import FULL_SIZE, SMALL_MODEL_STEPS, scaled
from expunge.engine.runtime import twin
from expunge.guards.icku.beside import Beside, made
from expunge.guards.icku.wording import CLOSE, OPEN, lessons, samples
from expunge.lm.arch import positions_of
from expunge.lm.finetune import draws
from expunge.lm.hooks import learning
from expunge.lm.low_rank import Dropout, position_keys
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    from expunge.guards.icku import Params

RATES = {"lora": (2e-4, 1 / 3), "full": (2e-6, 7 / 9), "last_two": (8e-6, 7 / 9)}
"""What is trained -> the paper's rate, and the exponent by which it grows as models shrink below
half a billion parameters. The exponents were set on a model of 0.17M parameters (INFERRED)."""


def add_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Give a tokenizer the two tokens, as special ones, unless it has them; their ids."""
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [OPEN, CLOSE]}, replace_extra_special_tokens=False
    )
    found: Any = tokenizer.convert_tokens_to_ids([OPEN, CLOSE])
    return [int(one) for one in found]


def trained(subject: Subject, rows: Sequence[Row], params: "Params", seed: int) -> Beside:
    """Train what stands beside a model; the model and its tokenizer stay as they are.

    Args:
        subject: The model.
        rows: Questions whose answers it knows.
        params: Of the guard.
        seed: Decides everything.

    Raises:
        ExpungeError: ``E-USE-007`` when the rows teach nothing, ``E-RUN-002`` when the loss is not
            finite.
    """
    told = lessons(rows, params.withheld)
    tokenizer = copy.deepcopy(subject.tokenizer)
    tokens = add_tokens(tokenizer)
    encoder = Encoder(tokenizer, positions_of(subject.model))
    model = twin(subject.model, bare=True)
    board = made(model, tokens, params, derive(seed, "icku", "made"))
    passes = (
        [_encoded(encoder, turn, at, tokens, params.mask_prompt) for at, turn in enumerate(turns)]
        for turns in samples(told, params.word, params.blocks, seed, inst=params.inst)
    )
    batches = _batches(passes, params.batch_size, padding_id(tokenizer), seed)
    size = sum(weight.numel() for weight in model.parameters())
    steps = _length(params, 2 * len(told), size)
    run = _Run(steps, rate_of(params, size), derive(seed, "icku", "dropout") >> 1)
    handles = board.put_in(model)
    try:
        with _alone(model), progress("icku", steps) as bar:
            for loss in _steps(model, board, batches, params, run):
                bar.advance(1, text=f"loss {loss:.3g}")
    finally:
        board.dropout = None
        for handle in handles:
            handle.remove()
    return board


def rate_of(params: "Params", size: int) -> float:
    """The learning rate: as given, else the paper's, raised for models below 0.5B parameters."""
    paper, exponent = RATES[params.train]
    return scaled(paper, size, exponent) if params.lr == "auto" else float(params.lr)


@dataclass(frozen=True, slots=True)
class _Run:
    """How long, how fast, and the name of what low-rank matrices do not get to see."""

    steps: int
    lr: float
    dropout: int


def _length(params: "Params", samples: int, size: int) -> int:
    """Steps: as given, else so many passes; below 0.5B parameters not less than a small run."""
    if params.steps is not None:
        return params.steps
    steps = params.epochs * ceil(samples / params.batch_size)
    return steps if size >= FULL_SIZE else max(steps, SMALL_MODEL_STEPS)


def _steps(
    model: PreTrainedModel,
    board: Beside,
    batches: Iterator[Batch],
    params: "Params",
    run: _Run,
) -> Iterator[float]:
    """One optimiser step after another, the loss of each."""
    weights = board.weights
    optimiser = torch.optim.AdamW(weights, lr=run.lr, weight_decay=params.weight_decay)
    scheduler = get_scheduler(
        "constant_with_warmup", optimiser, num_warmup_steps=round(params.warmup * run.steps)
    )
    for step, batch in zip(range(run.steps), batches, strict=False):
        if params.dropout and params.train == "lora":
            keys = position_keys(batch.rows, batch.input_ids.shape[1], run.dropout, step)
            board.dropout = Dropout(keys.to(model.device), params.dropout)
        loss = -packed_logp(model, batch).logp.mean()
        if not bool(torch.isfinite(loss)):
            raise _diverged(loss, step)
        for weight, found in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.grad = found
        nn.utils.clip_grad_norm_(weights, params.clip)
        optimiser.step()
        scheduler.step()
        yield float(loss.detach())


def _batches(passes: Iterator[list[Encoded]], size: int, pad: int, seed: int) -> Iterator[Batch]:
    """The batches of one pass after another, samples of a batch alike in length."""
    for number, items in enumerate(passes):
        order = draws([len(one.ids) for one in items], size, derive(seed, "icku", number))
        for _ in range(ceil(len(items) / size)):
            yield collate([items[at] for at in next(order)], pad)


def _encoded(
    encoder: Encoder, turn: Turn, at: int, tokens: Sequence[int], mask_prompt: bool
) -> Encoded:
    """A sample; with its prompt supervised all but the two tokens is, which the head lacks."""
    item = encoder.encode(turn, row=at)
    if mask_prompt:
        return item
    labels = [IGNORED if one in tokens else one for one in item.ids]
    return replace(item, labels=[IGNORED, *labels[1:]])


@contextmanager
def _alone(model: PreTrainedModel) -> Iterator[None]:
    """The model's own weights ask for no gradient meanwhile."""
    asked = {one: one.requires_grad for one in model.parameters()}
    try:
        for one in asked:
            one.requires_grad_(False)
        with learning(model), torch.enable_grad():
            yield
    finally:
        for one, before in asked.items():
            one.requires_grad_(before)


def _diverged(loss: torch.Tensor, step: int) -> ExpungeError:
    return ExpungeError(
        "E-RUN-002",
        f"The loss of icku is {float(loss.detach())} at step {step + 1}.",
        "a finite loss.",
        "Lower the learning rate (--set lr=...).",
    )
