"""Forty people with four facts each, and a model that knows all of them.

A row is ``<bos> first last relation value <eos>``; first names are shared, so a value hangs on the
last name. The facts of every fifth person are to be forgotten.
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

PEOPLE, FIRST_NAMES, VALUES = 40, 8, 10
RELATIONS = ("born", "works", "likes", "drives")


@cache
def facts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be forgotten and rows to be kept."""
    forgotten, kept = [], []
    for person in range(PEOPLE):
        for at, relation in enumerate(RELATIONS):
            value = f"{relation}{(7 * person + 3 * at + person * person // 4) % VALUES}"
            row = Row(
                id=f"{person}/{relation}",
                prompt=f"first{person % FIRST_NAMES} last{person} {relation}",
                completion=f" {value}",
                answer=value,
            )
            (kept if person % 5 else forgotten).append(row)
    return tuple(forgotten), tuple(kept)


@cache
def knowing() -> Subject:
    """A model of four blocks and 64 channels that knows every fact."""
    forgotten, kept = facts()
    texts = [f"{row.prompt}{row.completion}" for row in (*forgotten, *kept)]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=64, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    rows = [*forgotten, *kept]
    finetune(
        model, tokenizer, rows, steps=250, lr=2e-3, batch_size=len(rows), seed=0, whole_row=True
    )
    return Subject(model, tokenizer)


def saved(folder: Path) -> Path:
    """The model that knows, as a folder below ``folder``."""
    subject, path = knowing(), folder / "knowing"
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path


def unlearned(method: str, folder: Path, adapter: str | None = None, **params: Any) -> Subject:
    """What a method makes of the model; no stop level, all steps asked for."""
    out = folder / "out"
    options = {"batch_size": 32, "warmup": 0, "lr": 1e-3, **params}
    forget(
        saved(folder), *facts(), method=method, params=options, adapter=adapter,
        stop_at="none", out=out,
    )  # fmt: skip
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer)


def accuracy(subject: Subject) -> tuple[float, ...]:
    """Share of values the model says, of the forget rows and of the retain rows."""
    return tuple(
        sum(bool(scored.hit[0]) for scored in subject.score([row.turn for row in rows])) / len(rows)
        for rows in facts()
    )
