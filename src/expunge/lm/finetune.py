"""Plain fine-tuning: the loop that trains testbeds and that attackers use.

Methods do not train through this; they have the engine. It holds no more than AdamW on the token
mean of the negative log-likelihood, a schedule and a clipped gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import ceil
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, get_scheduler

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.data.encode import Encoded, Encoder, collate
from expunge.lm.arch import positions_of
from expunge.lm.hooks import learning
from expunge.lm.scoring import packed_logp, padding_id
from expunge.requests.rows import Row

POOL = 32
"""Batches that are drawn together and sorted by length, so that little padding is computed."""

CLIP = 1.0
"""Largest norm of a step's gradient."""

FLOOR = 0.05
"""Where the cosine schedule ends, as a share of the peak rate."""


def finetune(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    *,
    steps: int | None = None,
    epochs: int | None = None,
    lr: float,
    batch_size: int,
    seed: int,
    whole_row: bool = False,
    schedule: Literal["cosine", "linear", "constant"] = "cosine",
    warmup: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.01,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Train a model in place on rows.

    Args:
        model: A causal language model; parameters that need no gradient stay as they are.
        tokenizer: Its tokenizer.
        rows: What to train on.
        steps: Optimiser steps; give these or ``epochs``.
        epochs: Passes over the rows.
        lr: Peak learning rate.
        batch_size: Rows of one step.
        seed: Decides the order of the rows; nothing else is random (dropout is off).
        whole_row: Learn the prompt as well, not only the answer.
        schedule: ``cosine`` falls to a twentieth, ``linear`` to 0.
        warmup: Share of the steps in which the rate rises from 0.
        betas: Of AdamW.
        weight_decay: Of AdamW, for matrices; norms and biases are never decayed.
        on_step: Called after each step with its number, from 1.

    Raises:
        ExpungeError: ``E-DATA-005`` without rows, ``E-RUN-002`` when the loss is not finite.
    """
    items = _encode(rows, Encoder(tokenizer, positions_of(model)), whole_row)
    total = steps if steps is not None else (epochs or 0) * ceil(len(items) / batch_size)
    optimiser = _adamw(model, lr, betas, weight_decay)
    scheduler = _schedule(schedule, optimiser, warmup, total)
    pad = padding_id(tokenizer)
    lengths = [len(item.ids) for item in items]
    with learning(model):
        for step, batch in enumerate(islice(draws(lengths, batch_size, seed), total), start=1):
            loss = -packed_logp(model, collate([items[i] for i in batch], pad)).logp.mean()
            _step(model, loss, optimiser, step)
            scheduler.step()
            if on_step is not None:
                on_step(step)


def draws(lengths: Sequence[int], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of row numbers: each row once an epoch, rows of a batch alike in length.

    Args:
        lengths: Length of each row.
        batch_size: Rows of a batch; the last one of an epoch may be smaller.
        seed: Decides everything.

    Yields:
        Row numbers of one batch.
    """
    epoch = 0
    while True:
        rng = generator(seed, "finetune", epoch)
        order = rng.permutation(len(lengths))
        batches: list[list[int]] = []
        for start in range(0, len(order), POOL * batch_size):
            pool = order[start : start + POOL * batch_size]
            pool = pool[np.argsort(np.asarray(lengths)[pool], kind="stable")]
            batches += [pool[i : i + batch_size].tolist() for i in range(0, len(pool), batch_size)]
        for number in rng.permutation(len(batches)):
            yield batches[number]
        epoch += 1


def _encode(rows: Sequence[Row], encoder: Encoder, whole_row: bool) -> list[Encoded]:
    if not rows:
        raise ExpungeError(
            "E-DATA-005", "No rows to train on.", "at least one row.", "Give rows to train on."
        )
    items = [encoder.encode(row.training, row=number) for number, row in enumerate(rows)]
    return [replace(item, labels=list(item.ids)) for item in items] if whole_row else items


def _adamw(
    model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def _schedule(
    name: str, optimiser: torch.optim.Optimizer, warmup: float, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    known = {"cosine": "cosine_with_min_lr", "constant": "constant_with_warmup"}
    made: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        known.get(name, name),
        optimiser,
        num_warmup_steps=round(warmup * total),
        num_training_steps=total,
        scheduler_specific_kwargs={"min_lr_rate": FLOOR} if name == "cosine" else None,
    )
    return made


def _step(
    model: nn.Module, loss: torch.Tensor, optimiser: torch.optim.Optimizer, step: int
) -> None:
    if not bool(torch.isfinite(loss)):
        raise ExpungeError(
            "E-RUN-002",
            f"The loss is {loss.item()} at step {step}.",
            "a finite loss.",
            "Lower the learning rate.",
        )
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
