"""A base of three blocks that knows the words of its world, and rows it was never told."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import expunge
from expunge.engine.change import read_manifest
from expunge.engine.exact.state import Ensemble
from expunge.engine.run import forget
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import Micro, micro_world, taught_rows, teach

QUICK = {"shards": 2, "slices": 3, "max_steps": 2, "lr": 1e-2, "batch_size": 4, "lora_r": 4}
"""Two steps a stage: enough to tell adapters apart."""


@cache
def rows() -> Micro:
    """Four people of each role, three facts each, in one wording."""
    found = micro_world(people=4)
    plain = {
        role: tuple(replace(row, paraphrases=()) for row in getattr(found, role))
        for role in ("forget", "retain", "holdout")
    }
    return replace(found, **plain)


@cache
def told() -> dict[str, Subject]:
    """The base knows every word and what could be said of everybody; the original knows it all."""
    small = rows()
    everybody = [*small.forget, *small.retain]
    guesses = [
        replace(row, id=f"{row.id} {other.id}", completion=said, answer=other.value)
        for row in everybody
        for other in everybody
        if row.meta == other.meta and row is not other
        for said in [row.reply.replace(row.value, other.value)]
    ]
    base = taught_rows(small, guesses, epochs=8, hidden=48, layers=3)
    original = base.copy()
    teach(original, everybody, epochs=40, seed=0)
    return {"base": base, "original": original}


def staged(folder: Path) -> SimpleNamespace:
    """Both models as folders."""
    for name, subject in told().items():
        subject.model.save_pretrained(folder / name)
        subject.tokenizer.save_pretrained(folder / name)
    return SimpleNamespace(base=folder / "base", original=folder / "original", folder=folder)


def asked(
    models: SimpleNamespace,
    method: str,
    out: str,
    *,
    on: Path | None = None,
    gone: Sequence[Row] | None = None,
    kept: Sequence[Row] | None = None,
    seed: int = 0,
    **params: Any,
) -> SimpleNamespace:
    """A request: the first on the original, or a further one ``on`` a change."""
    small = rows()
    given = {**QUICK, **params} | ({"base": str(models.base)} if on is None else {})
    folder = models.folder / out
    summary = forget(
        on or models.original,
        small.forget if gone is None else gone,
        small.retain if kept is None else kept,
        method=method, params=given, out=folder, stop_at="none", seed=seed,
    )  # fmt: skip
    return opened(folder, summary)


def opened(folder: Path, summary: Any = None) -> SimpleNamespace:
    """A change with its state."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return SimpleNamespace(
        folder=folder, made=folder / "made", summary=summary or manifest["summary"],
        manifest=manifest, record=manifest["record"], state=Ensemble.read(folder / "made"),
    )  # fmt: skip


def part_digest(change: SimpleNamespace) -> str:
    """Names what is served."""
    (entry,) = change.manifest["runtime"]["parts"]
    return str(entry["digest"])


def right(subject: Subject, some: Sequence[Row]) -> float:
    """Share of rows whose value is said."""
    said = subject.ask([row.turn for row in some], new_tokens=12)
    return sum(row.value in answer[0] for row, answer in zip(some, said, strict=True)) / len(some)


@torch.no_grad()
def logits(folder: Path, *, runtime: bool = True) -> Tensor:
    """What a change says after one text."""
    ids = torch.arange(5, 25)[None]
    return expunge.load(folder, runtime=runtime).model(input_ids=ids).logits
