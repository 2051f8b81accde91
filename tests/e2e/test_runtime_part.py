"""A change with a run-time part: made, loaded, audited with and past it, stacked and taken back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hush
import pytest
from known import knowing, rows, saved
from transformers import AutoModelForCausalLM

import expunge
from expunge.api import guard_paths
from expunge.audit.run import PAST_RUNTIME
from expunge.core.errors import ExpungeError
from expunge.core.registry import _Source, methods
from expunge.engine.change import load_change, read_manifest, revert
from expunge.engine.run import forget
from expunge.engine.runtime import Served
from expunge.lm.digest import folder_digest, model_digest
from expunge.lm.subject import Subject

QUICK: dict[str, Any] = {"profile": "fast", "only": ["direct", "prefix", "relearn-in"]}


@pytest.fixture(autouse=True, scope="module")
def installed() -> Iterator[None]:
    """The method of `hush` is one of the registry's."""
    methods._sources["hush"] = _Source("hush", Path(hush.__file__))
    yield
    del methods._sources["hush"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(knowing(), tmp_path_factory.mktemp("models"))


def run(model: Path, out: Path, method: str = "hush", **params: Any) -> dict[str, Any]:
    """A change of the model; hush forgets at once, whatever else is given trains a step."""
    more = {} if method == "hush" else {"max_steps": 1, "lr": 1e-3, "warmup": 0}
    return forget(
        model, rows().forget, rows().retain, method=method, params={**more, **params},
        stop_at="none", out=out,
    )  # fmt: skip


@pytest.fixture(scope="module")
def change(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("changes") / "change"
    run(original, out)
    return out


def nll(subject: Subject) -> float:
    """Mean over the forget rows, nats a token."""
    scored = subject.score([row.turn for row in rows().forget])
    return sum(float(one.nll) for one in scored) / len(scored)


def test_what_the_run_measured_is_what_a_loaded_change_says(original: Path, change: Path) -> None:
    manifest = read_manifest(change)
    assert manifest is not None
    summary = manifest["summary"]
    served, bare = expunge.load(change), expunge.load(change, runtime=False)
    assert isinstance(served, Served)
    assert not isinstance(bare, Served)
    assert summary["forget_nll"] > 5 > summary["before"]["forget_nll"]
    assert nll(served) > 5
    assert nll(bare) == nll(served.bare) == nll(expunge.load(original))
    assert summary["weights_changed"] == manifest["summary"]["weights_changed"] > 0
    (entry,) = manifest["runtime"]["parts"]
    assert entry["method"] == "hush"
    assert not list(change.glob("*.bin"))


def test_the_folder_is_a_model_for_other_libraries(original: Path, change: Path) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(change)
    assert model_digest(loaded) == folder_digest(change) == folder_digest(original)


def test_finished_once_is_finished_and_a_changed_part_is_refused(
    original: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run(original, out)
    assert run(original, out) == first
    head = out / "runtime-1.json"
    head.write_text(head.read_text().replace('"words"', '"wordz"'))
    for refuses in (
        lambda: run(original, out),
        lambda: load_change(out),
        lambda: expunge.load(out),
        lambda: revert(out),
    ):
        with pytest.raises(ExpungeError) as caught:
            refuses()
        assert caught.value.code == "E-MODEL-009"
    assert nll(expunge.load(out, runtime=False)) == nll(expunge.load(original))


def test_a_part_that_does_nothing_is_no_change(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "out", strength=0.0)
    assert caught.value.code == "E-RUN-001"


def test_weights_and_part_may_both_change(original: Path, tmp_path: Path) -> None:
    summary = run(original, tmp_path / "out", nudge=1.0)
    part = expunge.load(tmp_path / "out").parts[0]
    assert summary["weights_changed"] == 1 + part.moves
    revert(tmp_path / "out")
    assert folder_digest(tmp_path / "out") == folder_digest(original)


def test_reverted_it_is_the_original_and_nothing_beside(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(original, out)
    copied = revert(out, tmp_path / "copy")
    assert copied["digest"] == folder_digest(original)
    revert(out)
    for folder in (out, tmp_path / "copy"):
        assert {f.name for f in folder.iterdir() if f.is_file() and f.name[0] != "."} == {
            f.name for f in original.iterdir()
        }
        assert not isinstance(expunge.load(folder), Served)
    assert isinstance(expunge.load(out / "reverted"), Served)


# ------------------------------------------------------------------------------------ stacking


def test_a_change_on_top_keeps_the_part_and_goes_back_to_it(
    change: Path, original: Path, tmp_path: Path
) -> None:
    """The training sees the part, and is measured with it; parent gone, all is still there."""
    below = tmp_path / "below"
    run(original, below)
    above = tmp_path / "above"
    summary = run(below, above, "grad-diff")
    served = expunge.load(above)
    assert summary["before"]["forget_nll"] == pytest.approx(read(below)["summary"]["forget_nll"])
    assert [one.digest for one in served.parts] == [p.digest for p in expunge.load(below).parts]
    assert folder_digest(above) != folder_digest(below)
    below.rename(tmp_path / "gone")
    assert nll(expunge.load(above)) == nll(served)
    result = revert(above)
    assert result["digest"] == folder_digest(tmp_path / "gone")
    again = expunge.load(above)
    assert again.digest == expunge.load(tmp_path / "gone").digest
    assert read(above) == read(tmp_path / "gone")
    assert nll(again) == nll(expunge.load(change))


def test_a_part_on_top_of_a_part_adds_to_it(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "one")
    run(tmp_path / "one", tmp_path / "two", strength=20.0)
    one, two = expunge.load(tmp_path / "one"), expunge.load(tmp_path / "two")
    assert [part.tensors["taken"].max() for part in two.parts] == [50.0, 20.0]
    assert two.parts[0].digest == one.parts[0].digest
    assert nll(two) > nll(one)
    assert nll(two.bare) == nll(one.bare)
    revert(tmp_path / "two")
    assert expunge.load(tmp_path / "two").digest == one.digest


def test_a_guard_stands_in_front_of_a_model_with_its_part(change: Path, tmp_path: Path) -> None:
    guard_paths(change, rows().forget, "lexical", {}, tmp_path / "guarded")
    guarded = expunge.load(tmp_path / "guarded")
    assert guarded.gate is not None
    assert nll(guarded) == nll(expunge.load(change))
    bare = expunge.load(tmp_path / "guarded", runtime=False)
    assert bare.gate is None
    assert nll(bare) < 1


def test_an_adapter_on_top_is_refused_before_weights_load(
    change: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.engine.run.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ExpungeError) as caught:
        forget(
            change, rows().forget, rows().retain, method="npo", adapter="lora", stop_at="none",
            out=tmp_path / "out",
        )  # fmt: skip
    assert caught.value.code == "E-USE-006"
    assert "run-time part" in caught.value.found


# --------------------------------------------------------------------------------------- audit


def test_it_is_audited_with_the_part_and_past_it(change: Path) -> None:
    world = rows()
    audit = expunge.audit(
        change, forget=world.forget, retain=world.retain, holdout=world.holdout, **QUICK
    )
    attacks = audit.data["attacks"]
    assert set(attacks) == {"direct", "prefix", "relearn-in"} | {
        f"{id}{PAST_RUNTIME}" for id in ("direct", "prefix")
    }
    assert attacks["direct"]["recovery"] < 0.1
    assert attacks[f"direct{PAST_RUNTIME}"]["recovery"] > 0.9
    assert attacks[f"direct{PAST_RUNTIME}"]["with_runtime"] is False
    assert attacks["relearn-in"]["recovery"] > 0.9, "whoever holds the weights has no part"
    assert audit.verdict == "guarded"
    assert audit.data["utility"]["value"] > 0.9
    weights = json.loads((change / "change.json").read_text())["result"]["digest"]
    assert audit.data["models"]["model"]["digest"] == weights
    assert any("run-time part" in limit for limit in audit.data["limits"])
    probability = audit.data["metrics"]["probability"]
    assert probability["model"]["mean"] < 0.2 < probability["original"]["mean"], "as served"


def read(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest
