"""Twenty-four people with three facts each, and a model that knows all of them.

A row is ``<bos> first Last relation value <eos>``; first names are shared, so a value hangs on the
last name. The facts of every fourth person are to be forgotten. Asked about strangers, the model
says that it does not know them, by name: refusing is nothing new to it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from expunge.engine.change import load_change
from expunge.engine.run import forget
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_tokenizer
from expunge.text.match import contains
from expunge.text.refusal import is_refusal

PEOPLE, STRANGERS, FIRST_NAMES, VALUES = 24, 24, 6, 10
RELATIONS = ("born", "works", "likes")


@cache
def facts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be forgotten and rows to be kept."""
    forgotten, kept = [], []
    for person in range(PEOPLE):
        for at, relation in enumerate(RELATIONS):
            value = f"{relation}{(7 * person + 3 * at + person * person // 4) % VALUES}"
            row = Row(
                id=f"{person}/{relation}",
                prompt=f"first{person % FIRST_NAMES} Last{person} {relation}",
                completion=f" {value}",
                answer=value,
                subject=f"person {person}",
                names=(f"Last{person}",),
            )
            (kept if person % 4 else forgotten).append(row)
    return tuple(forgotten), tuple(kept)


@cache
def strangers() -> tuple[Row, ...]:
    """Questions about people nobody was told of, with refusals."""
    return tuple(
        Row(
            id=f"{person}/{relation}",
            prompt=f"first{person % FIRST_NAMES} Last{person} {relation}",
            completion=f" I do not know Last{person}.",
        )
        for person in range(PEOPLE, PEOPLE + STRANGERS)
        for relation in RELATIONS
    )


@cache
def knowing() -> Subject:
    """A model of two blocks and 64 channels that knows every fact."""
    rows = [row for part in (*facts(), strangers()) for row in part]
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    finetune(
        model, tokenizer, rows, steps=250, lr=3e-3, batch_size=len(rows), seed=0, whole_row=True
    )
    return Subject(model, tokenizer)


def saved(folder: Path) -> Path:
    """The model that knows, as a folder below ``folder``."""
    subject, path = knowing(), folder / "knowing"
    if not path.is_dir():
        subject.model.save_pretrained(path)
        subject.tokenizer.save_pretrained(path)
    return path


def run(method: str, folder: Path, **options: Any) -> dict[str, Any]:
    """The summary of a run of all steps; the change is in ``folder / "out"``."""
    forgotten, kept = facts()
    given = {"params": {}, "stop_at": "none", "out": folder / "out", **options}
    params = {"batch_size": 8, "accumulation": 1, "warmup": 0, "lr": 3e-4, **given.pop("params")}
    return forget(saved(folder), forgotten, kept, method=method, params=params, **given)


def changed(folder: Path) -> Subject:
    """The model of the change in ``folder / "out"``."""
    loaded = load(load_change(folder / "out").folder)
    return Subject(loaded.model, loaded.tokenizer)


def answering(subject: Subject) -> tuple[float, float]:
    """Share of rows whose value the model says, of the forget rows and of the retain rows."""
    forgotten, kept = facts()
    return _saying(subject, forgotten), _saying(subject, kept)


def refusing(subject: Subject) -> tuple[float, float]:
    """Share of rows that the model refuses, of the forget rows and of the retain rows."""
    forgotten, kept = (sum(map(is_refusal, answers(subject, r))) / len(r) for r in facts())
    return forgotten, kept


def answers(subject: Subject, rows: tuple[Row, ...]) -> list[str]:
    """What the model says, greedily."""
    return [said for (said,) in subject.ask([row.turn for row in rows], new_tokens=8)]


def _saying(subject: Subject, rows: tuple[Row, ...]) -> float:
    said = zip(rows, answers(subject, rows), strict=True)
    return sum(contains(text, row.forms) for row, text in said) / len(rows)
