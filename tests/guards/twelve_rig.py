"""Twelve people, a model that knows four facts of each, and models of other families around it."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from expunge.core.registry import guards
from expunge.core.rng import generator
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.fitting import Working, fitted
from expunge.engine.guarding.targets import targets_of
from expunge.engine.runtime import Attached, twin
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

FAMILIES = ("llama", "gpt2", "gemma3", "qwen3")
RELATIONS = ("born", "works", "likes", "drives")
FIRST = ("Anna", "Bela", "Carl", "Dora")
LAST = (
    "Birk",
    "Dahl",
    "Egge",
    "Foss",
    "Gran",
    "Holm",
    "Iver",
    "Juul",
    "Krog",
    "Lund",
    "Moe",
    "Nord",
)
SECRET = bytes(range(32))


class World(NamedTuple):
    """Sixteen facts of four people to be forgotten, thirty-two of eight to be kept."""

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    tokenizer: PreTrainedTokenizerBase


@cache
def world() -> World:
    """One token a word: first name, last name, relation; the answer is one word."""
    draw = generator(0, "inside rig")
    values = [f"v{at}" for at in range(40)]
    rows = [
        Row(
            id=f"{name}/{relation}", prompt=f"{name} {relation}",
            completion=f" {draw.choice(values)}", subject=name, names=(name,),
        )
        for name in (f"{FIRST[at % 4]} {last}" for at, last in enumerate(LAST))
        for relation in RELATIONS
    ]  # fmt: skip
    texts = [f"{row.prompt}{row.completion}" for row in rows] + [f" {value}" for value in values]
    tokenizer = tiny_tokenizer([*texts, "Where was born?"], kind="word", vocab=256)
    return World(tuple(rows[:16]), tuple(rows[16:]), tokenizer)


@cache
def knowing() -> Subject:
    """A model of four blocks that knows all facts by heart."""
    known = world()
    model = tiny_model(
        "llama", vocab=len(known.tokenizer), hidden=64, layers=4, seed=0, positions=64
    )
    rows = [*known.forget, *known.retain]
    finetune(model, known.tokenizer, rows, steps=160, lr=3e-3, batch_size=48, seed=0)
    return Subject(model.eval(), known.tokenizer)


@cache
def random_model(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model of four blocks that knows nothing."""
    return tiny_model(
        family, vocab=len(world().tokenizer), hidden=32, layers=4, seed=3, positions=64, dtype=dtype
    )


def means(subject: Subject | None = None, **given: Any) -> Means:
    """The means of a guard."""
    return Means(secret=SECRET, retain=world().retain, subject=subject, **given)


def working(guard: str, rows: Sequence[Row], subject: Subject | None, **params: Any) -> Working:
    """A guard fitted to rows."""
    return fitted(guard, targets_of(rows), guards.params(guard, params), means(subject))


def put_in(work: Working, model: Any) -> tuple[Any, Attached]:
    """A model of its own modules with the guard in it."""
    own = twin(model)
    return own, work.module.attach(own, world().tokenizer, work.desk)


def exact(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows whose fact is the model's first choice, scored."""
    return sum(bool(one.hit[0]) for one in subject.score([row.turn for row in rows])) / len(rows)


def said(subject: Subject, rows: Sequence[Row]) -> list[str]:
    """What the model answers."""
    return [text.strip() for text, *_ in subject.ask([row.turn for row in rows], new_tokens=2)]


def right(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows that are answered right."""
    answers = zip(said(subject, rows), rows, strict=True)
    return sum(text.split()[:1] == [row.reply.strip()] for text, row in answers) / len(rows)


def ids(*texts: str) -> list[list[int]]:
    """Prompts as the model reads them."""
    encode: Any = world().tokenizer
    return [list(encode(text)["input_ids"]) for text in texts]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """[B, T] ids and mask, padded on the left."""
    width = max(map(len, rows))
    filled = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return filled, mask


def first_logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """[B, V], what is said right behind prompts, in one padded batch."""
    filled, mask = padded(rows)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        found: Tensor = model(
            input_ids=filled, attention_mask=mask, position_ids=places, logits_to_keep=1
        ).logits[:, -1]
    return found


def written(model: Any, rows: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    """Five tokens behind each prompt, greedily, in one padded batch."""
    return traced(model, rows, **options)[0]


def traced(
    model: Any, rows: Sequence[Sequence[int]], **options: Any
) -> tuple[list[list[int]], Tensor]:
    """As `written`, and [B, 5, V], the logits the tokens were chosen by."""
    filled, mask = padded(rows)
    with torch.no_grad():
        found = model.generate(
            input_ids=filled, attention_mask=mask, max_new_tokens=5, do_sample=False,
            pad_token_id=0, eos_token_id=None, return_dict_in_generate=True, output_logits=True,
            **options,
        )  # fmt: skip
    return found.sequences[:, filled.shape[1] :].tolist(), torch.stack(found.logits, 1)
