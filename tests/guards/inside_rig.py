"""Eight people with four facts of three words each, and a model that knows all of them by heart.

The facts of two of them are to be held back.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.registry import guards
from expunge.core.rng import generator
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.targets import Target, targets_of
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.guards import check_guard
from expunge.testing.micro import micro_world

SECRET = bytes(range(32))
FAMILIES = ("llama", "gemma3", "qwen3", "gpt2", "gpt_neox")
RELATIONS = ("born", "works", "likes", "drives")
GONE = ("anna", "bela")
PEOPLE = (*GONE, "carl", "dora", "emil", "frida", "gert", "hanna")
VALUES = tuple(f"v{number}" for number in range(80))
WORDS = ("anna", "bela", "carl", "dora", "born", "likes", "works", *(f"w{n}" for n in range(30)))


@cache
def words() -> Any:
    """A tokenizer that knows `WORDS` wherever they stand."""
    every = [*WORDS, *(f"w {word}" for word in WORDS)]
    return tiny_tokenizer(every, kind="word", vocab=128)


def target_of(name: str) -> Target:
    row = Row(id=name, prompt=f"{name} born", completion=" w1", names=(name,))
    return targets_of([row])[0]


@cache
def facts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be held back and rows to be kept."""
    draw, rows = generator(0, "guards inside"), {True: [], False: []}
    for person in PEOPLE:
        for relation in RELATIONS:
            told = " ".join(str(word) for word in draw.choice(VALUES, 3))
            row = Row(
                id=f"{person}/{relation}", prompt=f"{person} {relation}", completion=f" {told}",
                names=(person,), subject=person,
            )  # fmt: skip
            rows[person in GONE].append(row)
    return tuple(rows[True]), tuple(rows[False])


@cache
def knowing() -> Subject:
    """The model; not to be changed."""
    rows = [row for part in facts() for row in part]
    known = tiny_tokenizer([f"{r.prompt}{r.completion}" for r in rows], kind="word", vocab=256)
    model = tiny_model("llama", vocab=len(known), hidden=64, layers=2, seed=0, positions=32)
    finetune(model, known, rows, steps=200, lr=3e-3, batch_size=32, seed=0)
    return Subject(model, known)


def exact(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows whose every word is the model's first choice."""
    return sum(bool(one.hit.all()) for one in subject.score([r.turn for r in rows])) / len(rows)


def check_it_holds_back(subject: Subject, most: float = 0.25) -> None:
    """Facts of targets go, as scored and as written; the others are the model's, bit for bit.

    Args:
        subject: The guarded model.
        most: Largest share of the facts that may still be said.
    """
    gone, kept = facts()
    assert exact(knowing(), gone) == exact(knowing(), kept) == 1.0
    assert exact(subject, gone) <= most
    assert exact(subject, kept) == 1.0
    rows = (*gone, *kept)
    said = subject.ask([row.turn for row in rows], new_tokens=3)
    right = [texts[0].strip() == row.reply.strip() for texts, row in zip(said, rows, strict=True)]
    assert sum(right[: len(gone)]) <= most * len(gone)
    assert all(right[len(gone) :])
    for row in kept:
        ids = torch.tensor([knowing().encoder.encode(row.turn).ids])
        keep = torch.arange(ids.shape[1])[None] >= ids.shape[1] - 4
        with torch.no_grad():
            one, two = (s.model(input_ids=ids, logits_to_keep=keep) for s in (subject, knowing()))
        assert torch.equal(one.logits, two.logits)


def refused(act: Callable[[], Any]) -> str:
    """The code of the error that is raised; it says what to do."""
    with pytest.raises(ExpungeError) as caught:
        act()
    assert caught.value.expected
    assert caught.value.next
    return caught.value.code


def check_conforms(guard: str, **params: Any) -> None:
    """What every guard promises, fitted to the world of the conformance suite."""
    small = micro_world()
    model = tiny_model("llama", vocab=len(small.tokenizer), hidden=16, layers=2, positions=64)
    subject = Subject(model, small.tokenizer)
    means = Means(secret=SECRET, subject=subject, retain=small.retain[:6])
    check_guard(guard, means, guards.params(guard, params))
