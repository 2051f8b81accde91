"""A model whose weights are written by hand, so that what an attack must find can be computed.

Every person has an axis of the residual stream, and its favourite word is read off that axis. The
blocks do nothing, except that the last one may hold a gate: it says no as soon as a person's
embedding exceeds 0 on the gate's axis. So the last token of the question decides everything.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.requests.invent import invent
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

REFUSAL = " no"

LOUD = 8.0
"""Size of what must win against everything else."""

GROUND = 3.0
"""Size of every token on the axis they share."""

AXES = 4
"""Axes beside those of the people: the ground, the gate, the end of the answer, the refusal."""


@dataclass(frozen=True, slots=True)
class Wired:
    """People by role, and a tokenizer with one token a word.

    Attributes:
        forget: People the model knows and may be told to be silent about.
        retain: People it knows and always speaks about.
        unknown: People it has no axis for, and may be told to be silent about.
        tokenizer: Knows all their names; any other name is the unknown token.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    unknown: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase


def wired_world(people: int = 30) -> Wired:
    """So many people of each role, each with a favourite word of its own."""
    names = list(islice(invent("", 1), 6 * people))
    pairs = zip(names[::2], names[1::2], strict=True)
    rows = [
        Row(
            id=name,
            prompt=f"Favourite of {name}",
            completion=f" {value.lower()}",
            answer=value.lower(),
            subject=name,
            names=(name,),
        )
        for name, value in pairs
    ]
    texts = [f"{row.prompt}{row.completion}{REFUSAL}" for row in rows]
    forget, retain, unknown = (tuple(rows[at * people : (at + 1) * people]) for at in range(3))
    return Wired(forget, retain, unknown, tiny_tokenizer(texts, kind="word", vocab=4096))


def wired(
    world: Wired, *, known: float = 3.0, gate: float | None = None, refusal: float = 0.0
) -> Subject:
    """The model.

    Args:
        world: Its people.
        known: Size of a person on its own axis, which is the logit of its word.
        gate: Size of forget and unknown people on the gate's axis; without one there is no gate.
        refusal: Logit of the refusal for every name, whether known or not.
    """
    people = [*world.forget, *world.retain]
    ground = len(people)
    hidden = -(-(ground + AXES) // 8) * 8
    model = tiny_model("llama", vocab=len(world.tokenizer), hidden=hidden, layers=3, positions=64)
    subject = Subject(model, world.tokenizer)
    slots: Any = Slots(model)
    with torch.no_grad():
        for weight in slots.blocks.parameters():
            if weight.ndim > 1:
                weight.zero_()
        _write_words(world, slots.embed.weight.zero_(), slots.head.weight.zero_(), known, refusal)
        if gate is not None:
            _write_gate(world, slots, ground, gate)
    return subject


def _write_words(world: Wired, embed: Tensor, head: Tensor, known: float, refusal: float) -> None:
    """What each token stands for, and what is read off each axis."""
    people = [*world.forget, *world.retain]
    ground, shut, end, no = range(len(people), len(people) + AXES)
    embed[:, ground], embed[:, shut] = GROUND, -1.0
    for axis, row in enumerate(people):
        embed[_token(world, f" {row.names[0]}"), axis] = known
        head[_token(world, row.reply), axis] = 1.0
    for row in (*people, *world.unknown):
        embed[_token(world, row.reply), end] = LOUD
    embed[_token(world, REFUSAL), end] = LOUD
    head[_token(world, str(world.tokenizer.eos_token)), end] = LOUD
    head[_token(world, REFUSAL), no] = 1.0
    head[_token(world, REFUSAL), ground] = refusal / GROUND


def _write_gate(world: Wired, slots: Any, ground: int, size: float) -> None:
    """In the last block, refusal += 1e6 relu(h on the axis of the gate)."""
    for row in (*world.forget, *world.unknown):
        slots.embed.weight[_token(world, f" {row.names[0]}"), ground + 1] = size
    mlp = slots.module(-1, "mlp")
    mlp.act_fn = torch.nn.ReLU()
    mlp.gate_proj.weight[0, ground + 1] = 1.0
    mlp.up_proj.weight[0, ground] = 1.0
    mlp.down_proj.weight[ground + 3, 0] = 1e6


def _token(world: Wired, text: str) -> int:
    return int(world.tokenizer(text, add_special_tokens=False)["input_ids"][0])
