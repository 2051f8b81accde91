"""Retraining: what it learns, what it never sees, and that absent rows change nothing."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest_methods import assert_same, flat, slow_nll

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import read_manifest
from expunge.engine.check import check_forget
from expunge.engine.run import forget
from expunge.engine.slots.sample import content_key
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods.retrain import sample
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.methods import stage, stage_base, world

RECIPE = {"epochs": 60, "lr": 5e-3, "batch_size": 6, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("models")
    return SimpleNamespace(original=stage(folder), base=stage_base(folder))


def _run(models, out: Path, *, forgotten=None, kept=None, **params):
    rows = world()
    recipe = {**RECIPE, "base": str(models.base), **params}
    return forget(
        models.original, forgotten or rows.forget, kept or rows.retain, method="retrain",
        params=recipe, out=out,
    )  # fmt: skip


def _matches(folder: Path, rows: Sequence[Row]) -> float:
    """Share of rows whose answer comes back word for word."""
    loaded = load(folder)
    said = Subject(loaded.model, loaded.tokenizer).ask([row.turn for row in rows], new_tokens=16)
    return sum(s[0].strip() == r.reply.strip() for s, r in zip(said, rows, strict=True)) / len(rows)


def test_it_is_plain_training_on_the_rows_that_stay(random_table, random_view) -> None:
    model, view = random_table(1), random_view(4)
    found = objective("retrain", model, {"forget": random_view(3), "retain": view})
    twin = random_table(1)
    slow = flat(slow_nll(twin, view)).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_it_learns_what_stays_and_nothing_of_what_goes(models, tmp_path: Path) -> None:
    rows = world()
    everything = [*rows.retain, *rows.forget]
    _run(models, tmp_path / "with", forgotten=rows.holdout, kept=everything)
    assert _matches(tmp_path / "with", everything) == 1.0
    done = _run(models, tmp_path / "without")
    assert _matches(tmp_path / "without", rows.retain) == 1.0
    assert _matches(tmp_path / "without", rows.forget) == 0.0
    assert done["stopped_by"] == "steps"


def test_two_runs_give_the_same_bits_and_absent_rows_change_nothing(models, tmp_path: Path) -> None:
    rows = world()
    short = partial(_run, models, epochs=4)
    short(tmp_path / "one")
    short(tmp_path / "again")
    never_there = [*rows.forget, *rows.holdout]
    short(tmp_path / "more", forgotten=never_there)
    short(tmp_path / "turned", kept=rows.retain[::-1])
    renamed = [replace(row, id=f"new {row.id}") for row in rows.retain]
    short(tmp_path / "renamed", kept=renamed)
    digests = {
        folder_digest(tmp_path / name) for name in ("one", "again", "more", "turned", "renamed")
    }
    assert len(digests) == 1
    short(tmp_path / "fewer", kept=rows.retain[1:])
    assert folder_digest(tmp_path / "fewer") not in digests


def test_the_manifest_names_every_row_that_took_part_and_none_that_did_not(
    models, tmp_path: Path
) -> None:
    rows = world()
    done = _run(models, tmp_path / "out", epochs=1)
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    record = manifest["record"]
    assert record["rows"] == sorted(content_key(row) for row in rows.retain)
    assert not {content_key(row) for row in rows.forget} & set(record["rows"])
    assert record["base"]["digest"] == folder_digest(models.base)
    assert record["stages"] == ["base", "retain"]
    assert done["details"]["trained_rows"] == len(rows.retain)
    assert manifest["stop"]["level"] is None


def test_neighbours_stay_as_well(models, tmp_path: Path) -> None:
    rows = world()
    half = len(rows.retain) // 2
    recipe = {**RECIPE, "epochs": 1, "base": str(models.base)}
    forget(
        models.original, rows.forget, rows.retain[:half], neighbour=rows.retain[half:],
        method="retrain", params=recipe, out=tmp_path / "parts",
    )  # fmt: skip
    _run(models, tmp_path / "whole", epochs=1)
    assert folder_digest(tmp_path / "parts") == folder_digest(tmp_path / "whole")


def test_rows_that_stay_and_repeat_forget_rows_are_told_of(models, tmp_path: Path) -> None:
    rows = world()
    copy = replace(rows.forget[0], id="copy", prompt=f"Say: {rows.forget[0].prompt}", role="retain")
    done = _run(models, tmp_path / "out", kept=[*rows.retain, copy], epochs=1)
    assert done["details"]["near_duplicates"] == 1
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    (found,) = manifest["record"]["alike"]
    assert (found["forget"], found["kept"]) == (rows.forget[0].id, "copy")
    assert 0.8 <= found["overlap"] <= 1.0


def test_matched_steps_are_those_of_all_rows() -> None:
    rows = world()
    task = SimpleNamespace(retain=rows.retain, forget=rows.forget, seed=0)
    full = sample(task, methods.params("retrain", {"batch_size": 5}))
    matched = sample(task, methods.params("retrain", {"batch_size": 5, "steps": "matched"}))
    assert (full.steps_per_epoch, matched.steps_per_epoch) == (3, 5)
    assert full.draw(4) == matched.draw(4)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"params": {}}, "E-USE-007", "--set base"),
        ({"params": {"base": "nowhere"}}, "E-MODEL-001", "nowhere"),
        ({"retain": None}, "E-USE-007", "--retain"),
        ({"adapter": "lora"}, "E-USE-006", "--adapter"),
    ],
)
def test_what_is_missing_is_said_before_weights_load(
    models, tmp_path: Path, change: dict, code: str, word: str
) -> None:
    rows = world()
    asked = {
        "forget": rows.forget, "retain": rows.retain, "method": "retrain",
        "params": {"base": str(models.base)}, "out": tmp_path / "out", **change,
    }  # fmt: skip
    found = check_forget(models.original, **asked).problems
    assert [problem.code for problem in found] == [code]
    assert word in str(found[0])


def test_a_base_of_another_shape_is_refused(models, tmp_path: Path) -> None:
    from expunge.testing import tiny_model

    other = tmp_path / "other"
    tiny_model("llama", vocab=len(world().tokenizer), hidden=16, positions=128).save_pretrained(
        other
    )
    world().tokenizer.save_pretrained(other)
    with pytest.raises(ExpungeError) as caught:
        _run(SimpleNamespace(original=models.original, base=other), tmp_path / "out")
    assert caught.value.code == "E-USE-006"
