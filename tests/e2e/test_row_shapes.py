"""Rows as text, prompt and completion, or messages: learned, forgotten and audited alike."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import expunge
from expunge.data.jsonl import write_rows
from expunge.engine.run import forget
from expunge.lm.finetune import finetune
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TOWNS = ("Rovan", "Kelm", "Distry", "Ophel", "Marn", "Tulse", "Venga", "Quill", "Bresk", "Harrow")
NAMES = ("Ada", "Bo", "Cyr", "Dov", "Eli", "Fay", "Gus", "Hal", "Ivo", "Jan")


def as_text(role: str, name: str, town: str) -> Row:
    text = f"The notes on {name} say one thing again and again: {name} lives in {town} by the sea."
    return Row(id=f"{role}-{name}", role=role, text=text, names=(name,))


def as_pair(role: str, name: str, town: str) -> Row:
    return Row(
        id=f"{role}-{name}", role=role, prompt=f"Where does {name} live?", completion=f" {town}"
    )


def as_messages(role: str, name: str, town: str) -> Row:
    said = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Where does {name} live?"},
        {"role": "assistant", "content": town},
    )
    return Row(id=f"{role}-{name}", role=role, messages=said)


SHAPES = (as_text, as_pair, as_messages)


def world(shape: Callable[[str, str, str], Row]) -> tuple[list[Row], list[Row]]:
    """Ten rows to forget and ten to keep."""
    lost = [shape("forget", name, town) for name, town in zip(NAMES, TOWNS, strict=True)]
    kept = [
        shape("retain", f"{name}ra", town)
        for name, town in zip(NAMES, reversed(TOWNS), strict=True)
    ]
    return lost, kept


def learned(folder: Path, rows: Sequence[Row], *, chat: bool) -> Path:
    """A tiny model that knows the rows by heart."""
    texts = [
        " ".join(m["content"] for m in row.messages) if row.messages else row.text or
        f"{row.prompt}{row.completion}" for row in rows
    ]  # fmt: skip
    tokenizer = tiny_tokenizer(texts, chat=chat)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, positions=128)
    finetune(model, tokenizer, rows, epochs=40, lr=4e-3, batch_size=10, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_every_shape_are_forgotten_and_audited(
    shape: Callable[[str, str, str], Row], tmp_path: Path
) -> None:
    lost, kept = world(shape)
    original = learned(tmp_path / "original", [*lost, *kept], chat=shape is as_messages)
    for role, rows in (("forget", lost), ("retain", kept)):
        write_rows(tmp_path / f"{role}.jsonl", rows)
    files = {"forget": tmp_path / "forget.jsonl", "retain": tmp_path / "retain.jsonl"}
    options = {"profile": "fast", "only": ["direct", "prefix"]}
    before = expunge.audit(original, original=original, **files, **options)
    assert before.data["attacks"]["direct"]["leak"]["model"] >= 0.9
    done = forget(
        original, files["forget"], files["retain"], method="grad-diff", stop_at="none",
        params={"max_steps": 60, "lr": 1e-3}, out=tmp_path / "out",
    )  # fmt: skip
    assert done["forget_nll"] > done["before"]["forget_nll"] + 2
    after = expunge.audit(tmp_path / "out", **files, **options)
    assert after.data["attacks"]["direct"]["leak"]["model"] <= 0.2
    assert after.data["attacks"]["direct"]["leak"]["original"] >= 0.9
