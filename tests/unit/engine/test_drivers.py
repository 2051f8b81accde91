"""Drivers and the `finish` hook: what happens between the last step and the saved change."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from expunge.engine.change import read_manifest, revert
from expunge.engine.exact import near_duplicates
from expunge.engine.finish import Finishing
from expunge.engine.run import forget
from expunge.engine.trainer import Conductor
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.headers import weight_files
from expunge.methods import npo
from expunge.requests.rows import Row
from expunge.testing.methods import stage, world


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def _run(original: Path, out: Path, method: str = "npo", **options: object) -> dict:
    rows = world()
    params = {"max_steps": 6, "lr": 1e-3, "warmup": 0, **options.pop("params", {})}  # type: ignore[dict-item]
    options = {"stop_at": "none", **options}
    return forget(
        original, rows.forget, rows.retain, method=method, params=params, out=out, **options
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    return {n: t for file in weight_files(folder) for n, t in load_file(file).items()}


def _with_finish(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Finishing]:
    """Give a method a `finish` that goes half of the way back."""
    seen: list[Finishing] = []

    def finish(change: Finishing, params: object) -> None:
        seen.append(change)
        change.rescale(0.5)
        change.record["after"] = change.levels()[0].nll
        change.record["list"] = [1, 2]

    monkeypatch.setattr(module, "finish", finish, raising=False)
    return seen


def test_finish_sees_the_original_and_decides_what_is_saved(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(original, tmp_path / "whole")
    seen = _with_finish(monkeypatch, npo)
    done = _run(original, tmp_path / "half")
    before, whole, half = (_weights(p) for p in (original, tmp_path / "whole", tmp_path / "half"))
    for name in before:
        torch.testing.assert_close(half[name], (before[name] + whole[name]) / 2)
    (change,) = seen
    assert change.task.forget == list(world().forget)
    assert change.before[0].nll == pytest.approx(done["before"]["forget_nll"], abs=1e-6)
    for name, weight in change.original.items():
        assert torch.equal(weight, before[name])


def test_what_finish_tells_stands_in_manifest_and_summary(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_finish(monkeypatch, npo)
    done = _run(original, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest["record"]["list"] == [1, 2]
    assert done["details"] == {"after": manifest["record"]["after"]}
    assert done["forget_nll"] == pytest.approx(manifest["record"]["after"], abs=1e-5)
    revert(tmp_path / "out")
    assert inspect_folder(tmp_path / "out").digest == folder_digest(original)


def test_of_an_adapter_finish_scales_one_factor(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"adapter": "lora", "params": {"lr": 1e-2}}
    _run(original, tmp_path / "whole", **options)
    _with_finish(monkeypatch, npo)
    _run(original, tmp_path / "half", **options)
    whole, half = _weights(tmp_path / "whole"), _weights(tmp_path / "half")
    for name in whole:
        factor = 0.5 if "lora_B" in name else 1.0
        torch.testing.assert_close(half[name], factor * whole[name])


def test_without_a_hook_nothing_is_told(original: Path, tmp_path: Path) -> None:
    done = _run(original, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest["record"] == {}
    assert "details" not in done
    assert "caution" not in done


def test_a_merge_trains_through_the_stop_level_and_a_gradient_method_does_not(
    original: Path, tmp_path: Path
) -> None:
    merged = _run(
        original, tmp_path / "merge", "task-vector", stop_at="nll=0.01", params={"alpha": 1.0}
    )
    assert (merged["steps"], merged["stopped_by"]) == (6, "steps")
    stopped = _run(original, tmp_path / "ga", "ga", stop_at="nll=0.01")
    assert stopped["stopped_by"] == "level"


def test_what_a_term_reports_is_exact_for_every_cut(original: Path, tmp_path: Path) -> None:
    told = {}
    for parts in (1, 4):
        _run(
            original, tmp_path / str(parts), "undial",
            params={"batch_size": 8 // parts, "accumulation": parts, "max_steps": 1},
        )  # fmt: skip
        manifest = read_manifest(tmp_path / str(parts))
        assert manifest is not None
        told[parts] = manifest["history"][0]["terms"]
    assert 0 < told[1]["forget_excess"] < told[1]["forget"]
    for name, value in told[1].items():
        assert told[4][name] == pytest.approx(value, rel=1e-5), name


def _row(id: str, text: str) -> Row:
    prompt, completion = text.split("|")
    return Row(id=id, role="retain", prompt=prompt, completion=completion)


def test_near_duplicates_are_those_that_say_the_same_but_for_a_word_in_five() -> None:
    gone = [_row("f", "Where was Ana Lund born?| Ana Lund was born in Oslo.")]
    kept = [
        _row("again", "Where was Ana Lund born?| Ana Lund was born in Oslo, Norway."),
        _row("other", "Where was Ben Roth born?| Ben Roth was born in Kiel."),
        _row("unlike", "What is green?| Grass."),
    ]
    found = near_duplicates(gone, kept)
    assert [(pair.forget, pair.kept) for pair in found] == [("f", "again")]
    assert found[0].overlap > 0.9


def test_the_rate_follows_the_schedule_asked_for(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[str, list[float]] = {}

    def watch(args: object, state: object, control: object, **given: object) -> None:
        rates[schedule].append(given["lr_scheduler"].get_last_lr()[0])  # type: ignore[attr-defined]

    monkeypatch.setattr(Conductor, "on_step_begin", staticmethod(watch))
    for schedule in ("linear", "cosine", "constant"):
        rates[schedule] = []
        _run(original, tmp_path / schedule, params={"schedule": schedule})
    assert rates["constant"] == [1e-3] * 6
    assert rates["linear"] == pytest.approx([1e-3 * (6 - step) / 6 for step in range(6)])
    assert rates["cosine"][1] > rates["linear"][1]
    assert rates["cosine"][-1] < rates["linear"][-1]
