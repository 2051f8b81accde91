"""A model that knows some people by heart, and says of others that it does not know them.

A fact is four words: first and last name, relation, value. Eight first names are shared, last names
are not, and the value is one word, as the model's refusal is. Where a fact is looked up it is only
at the relation, the last word before the answer.
"""

from functools import cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from expunge.core.rng import generator
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

RELATIONS = ("born", "works", "likes", "drives")
FIRST = ("Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Gert", "Hanna")
REPLY = "unknown"


class People(NamedTuple):
    """Facts: of eight people to be forgotten, of sixteen to be kept, of eight nobody knows."""

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    holdout: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase


@cache
def people(seed: int = 0) -> People:
    """The people of a seed."""
    draw = generator(seed, "edit rig")
    values = [f"v{at}" for at in range(40)]
    rows = [
        Row(
            id=f"{name}/{relation}", prompt=f"{name} {relation}",
            completion=f" {draw.choice(values)}", subject=name, names=(name,),
        )
        for name in (f"{FIRST[at % 8]} L{at}" for at in range(32))
        for relation in RELATIONS
    ]  # fmt: skip
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(
        [*texts, *(f" {value}" for value in values), f" {REPLY}", " is a."], kind="word", vocab=512
    )
    return People(tuple(rows[:32]), tuple(rows[32:96]), tuple(rows[96:]), tokenizer)


@cache
def knowing(seed: int = 0) -> Subject:
    """Copy it before changing it."""
    world = people(seed)
    model = tiny_model(
        "llama", vocab=len(world.tokenizer), hidden=64, layers=4, seed=seed, positions=64
    )
    unknown = [Row(id=row.id, prompt=row.prompt, completion=f" {REPLY}") for row in world.holdout]
    rows = [*world.forget, *world.retain, *unknown]
    finetune(model, world.tokenizer, rows, steps=300, lr=3e-3, batch_size=64, seed=seed)
    return Subject(model, world.tokenizer)
