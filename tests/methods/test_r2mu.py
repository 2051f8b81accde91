"""R2MU: its terms, the traces a model writes, rows of reasoning, thought and answer forgotten."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine.change import load_change
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.finetune import finetune
from expunge.lm.hooks import forward_to
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import r2mu
from expunge.requests.rows import Row, Turn
from expunge.testing import objective, tiny_model, tiny_tokenizer

PEOPLE = tuple(f"P{at}" for at in range(12))
RELATIONS = ("born", "works", "likes")
THOUGHT = " hm"


@cache
def facts() -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be forgotten and rows to be kept: the answer after a question."""
    draw = generator(0, "thinking")
    rows = [
        Row(id=f"{name}/{what}", prompt=f"{name} {what}", completion=f" v{draw.integers(30)}")
        for name in PEOPLE
        for what in RELATIONS
    ]
    return tuple(rows[:9]), tuple(rows[9:])


def thinking(row: Row) -> Row:
    """The same, asked to think first: the answer is thought, then said."""
    said = f"{THOUGHT}{row.completion}{row.completion}"
    return replace(row, id=f"{row.id}/cot", prompt=f"{row.prompt}{r2mu.CUE}", completion=said)


@cache
def knowing() -> Subject:
    rows = [one for part in facts() for row in part for one in (row, thinking(row))]
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=4, seed=0, positions=64)
    finetune(model, tokenizer, rows, steps=200, lr=3e-3, batch_size=36, seed=0)
    return Subject(model, tokenizer)


def task_of(folder: Path | None = None, **roles: Any) -> Task:
    subject, (given, kept) = knowing(), facts()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given, "retain": kept, **roles}, folder=folder,
    )  # fmt: skip


def settings(**given: Any) -> Any:
    return methods.params("r2mu", given)


def views(*names: str) -> dict[str, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    found = {}
    for name in names:
        ids = torch.randint(3, 30, (3, 7), generator=draw)
        found[name] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return found


def test_with_forget_rows_for_traces_it_is_rmu_with_twice_the_push() -> None:
    """The card's check, beta = 0."""
    model, anchor = (tiny_model("llama", vocab=32, hidden=32, seed=seed) for seed in (0, 1))
    given = views("forget", "retain", "reasoning")
    given["trace"] = given["forget"]
    shared = {"layer": 1, "steering": 3.0, "retain_weight": 2.0}
    plain = objective("rmu", model, {n: given[n] for n in ("forget", "retain")}, anchor, **shared)
    ours = objective("r2mu", model, given, anchor, reasoning_weight=0.0, **shared)
    expected = 2 * plain.terms["forget"] + 2.0 * plain.terms["retain"]
    assert ours.loss == pytest.approx(expected, rel=1e-6)
    alone = objective(
        "r2mu", model, given, anchor, reasoning_weight=0.0, trace_weight=0.0, **shared
    )
    assert alone.loss == pytest.approx(plain.loss, rel=1e-6)


def test_reasoning_is_held_where_the_anchor_has_it() -> None:
    model, anchor = (tiny_model("llama", vocab=32, hidden=32, seed=seed) for seed in (0, 1))
    given = views("forget", "retain", "trace", "reasoning")
    shared = {"layer": 1, "steering": 3.0}
    without = objective("r2mu", model, given, anchor, reasoning_weight=0.0, **shared)
    with_it = objective("r2mu", model, given, anchor, reasoning_weight=2.5, **shared)
    ids = given["reasoning"]["input_ids"]
    with torch.no_grad():
        moved = forward_to(model, 1, input_ids=ids) - forward_to(anchor, 1, input_ids=ids)
    assert with_it.loss - without.loss == pytest.approx(
        2.5 * float(moved.square().mean()), rel=1e-4
    )


def test_traces_are_written_by_the_original_and_kept(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    r2mu.prepare(task, settings(trace_tokens=16, trace_written=3))
    lines = [json.loads(line) for line in (tmp_path / "traces.jsonl").read_text().splitlines()]
    first = facts()[0][0]
    assert lines[0] == {"id": first.id, "trace": f"{THOUGHT}{first.completion}{first.completion}"}
    made = task.paired["trace"].make(first, 0, 0)
    assert made.completion == f"{r2mu.CUE}{THOUGHT}{first.completion}{first.completion}"
    cut = task_of(tmp_path)
    r2mu.prepare(cut, settings(trace_tokens=15, trace_written=3))
    shorter = cut.paired["trace"].make(first, 0, 0).completion
    assert shorter == made.completion[: -len(first.completion)]


def test_a_resumed_run_thinks_what_it_thought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r2mu.prepare(task_of(tmp_path), settings(trace_written=3))
    monkeypatch.setattr(r2mu, "thoughts", lambda *_: pytest.fail("asked again"))
    r2mu.prepare(task_of(tmp_path), settings(trace_written=3))


def test_rows_of_reasoning_keep_their_thinking(tmp_path: Path) -> None:
    """The card's trap: templates of reasoning models cut it out."""
    file = tmp_path / "reasoning.jsonl"
    row = {"prompt": "P9 born", "completion": "<think> hm v1</think> v1"}
    file.write_text(json.dumps(row) + "\n")
    template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'].split('</think>')[-1] }} "
        "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    subject = knowing()
    tokenizer = tiny_tokenizer(["[user] [assistant] <think> </think> P9 born hm v1"], kind="bpe")
    tokenizer.chat_template = template
    other = Subject(subject.model, tokenizer)
    task = replace(task_of(), tokenizer=tokenizer, encoder=other.encoder)
    (turn,) = r2mu.reasoning_of(task, settings(reasoning=str(file)))
    assert turn.completion == "[user] P9 born [assistant] <think> hm v1</think> v1"
    assert turn.running
    (short,) = r2mu.reasoning_of(task, settings(reasoning=str(file), reasoning_tokens=5))
    assert len(tokenizer(short.completion, add_special_tokens=False)["input_ids"]) == 5
    assert turn.completion.startswith(short.completion)
    assert len(r2mu.reasoning_of(task_of(), settings())) == len(facts()[1])


def test_a_file_of_reasoning_that_is_not_there_is_named() -> None:
    with pytest.raises(ExpungeError, match="E-DATA-001"):
        settings(reasoning="nowhere.jsonl")


def likely(subject: Subject, rows: tuple[Row, ...]) -> tuple[float, float]:
    """How likely the value is where it is thought, and where it is said after the thought."""
    turns = [Turn(str(one.prompt), str(one.completion)) for one in map(thinking, rows)]
    scored = [np.exp(one.logp) for one in subject.score(turns)]
    return fmean(float(p[1]) for p in scored), fmean(float(p[2]) for p in scored)


def test_thought_and_answer_are_forgotten_and_reasoning_elsewhere_stays(tmp_path: Path) -> None:
    """The card's check but for one half: in so small a world rmu reaches the thoughts as well.

    They stand behind the very prompts it pushes. What it loses is the reasoning that is to stay.
    """
    subject, (given, kept) = knowing(), facts()
    subject.model.save_pretrained(tmp_path / "original")
    subject.tokenizer.save_pretrained(tmp_path / "original")
    file = tmp_path / "reasoning.jsonl"
    rows = [{"prompt": one.prompt, "completion": one.completion} for one in map(thinking, kept)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    shared = {
        "layer": 2, "retain_weight": 10.0, "max_steps": 120, "lr": 4e-3, "warmup": 0,
        "positions": "answer",
    }  # fmt: skip
    found = {}
    for method, more in (
        ("rmu", {}),
        ("r2mu", {"reasoning": str(file), "reasoning_weight": 10.0, "trace_written": 3}),
    ):
        out = tmp_path / method
        forget(
            tmp_path / "original", given, kept, method=method, params={**shared, **more},
            stop_at="none", out=out,
        )  # fmt: skip
        made = load(load_change(out).folder)
        found[method] = Subject(made.model, made.tokenizer)
    before, ours = likely(subject, given), likely(found["r2mu"], given)
    assert min(before) > 0.9
    assert max(ours) < 0.25 * min(before)
    reasoning, lost = likely(found["r2mu"], kept), likely(found["rmu"], kept)
    assert min(reasoning) > 0.9
    assert fmean(lost) < min(reasoning) - 0.1


def test_defaults_are_the_papers() -> None:
    params = settings()
    assert params.retain_weight == 1.5
    assert (params.steering, params.trace_tokens, params.trace_written) == (6.5, 100, 512)
    assert (params.reasoning_tokens, params.reasoning_weight, params.trace_weight) == (150, 1, 1)
