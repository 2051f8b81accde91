"""Streams of requests: one change each, in order, kept in view, resumable, growing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import ExpungeError, Problems
from expunge.core.events import Event, listening
from expunge.engine import stream as module
from expunge.engine.change import load_change, read_manifest, revert
from expunge.engine.requested import RECORD, read_stream
from expunge.engine.run import forget
from expunge.engine.stream import forget_stream
from expunge.lm.digest import folder_digest
from expunge.requests.rows import Row
from expunge.testing.methods import stage, world

OPTIONS: dict[str, Any] = {
    "method": "npo", "params": {"max_steps": 4, "lr": 1e-3, "warmup": 0}, "stop_at": "none",
}  # fmt: skip
COUNT = 4


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def parts() -> list[Sequence[Row]]:
    rows = world().forget
    size = len(rows) // COUNT
    return [rows[at * size : (at + 1) * size] for at in range(COUNT)]


def written(folder: Path, groups: Sequence[Sequence[Row]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "requests.jsonl"
    lines = [
        json.dumps({"id": f"r{at}", "forget": [row.as_dict() for row in rows]})
        for at, rows in enumerate(groups)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def run(original: Path, folder: Path, groups: Any = None, **options: Any) -> dict[str, Any]:
    path = written(folder, groups or parts())
    given = {**OPTIONS, "retain": world().retain, **options}
    return forget_stream(original, path, out=folder / "out", **given)


def digests(done: dict[str, Any]) -> list[str]:
    return [folder_digest(Path(one["out"])) for one in done["requests"]]


@pytest.fixture(scope="module")
def done(original: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(original, tmp_path_factory.mktemp("stream"))


def test_each_request_is_a_change_on_what_the_one_before_left(
    original: Path, done: dict[str, Any]
) -> None:
    folders = [Path(one["out"]) for one in done["requests"]]
    assert [folder.name for folder in folders] == ["0001", "0002", "0003", "0004"]
    assert done["model"] == str(folders[-1])
    parents = [load_change(folder).manifest["parent"]["digest"] for folder in folders]
    assert parents == [folder_digest(original), *digests(done)[:-1]]
    assert len(set(digests(done))) == COUNT


def test_after_each_request_all_of_them_are_measured(done: dict[str, Any]) -> None:
    looks = [done["original"], *(one["after"] for one in done["requests"])]
    assert all(len(look["requests"]) == COUNT for look in looks)
    assert all(set(look["kept"]) == {"retain"} for look in looks)
    for place in range(COUNT):
        before, after = looks[place]["requests"][place], looks[place + 1]["requests"][place]
        assert after["nll"] > before["nll"]


def test_a_stream_is_the_same_as_its_requests_one_by_one(
    original: Path, done: dict[str, Any], tmp_path: Path
) -> None:
    model = original
    for place, rows in enumerate(parts()[:2]):
        forget(model, rows, world().retain, out=tmp_path / str(place), **OPTIONS)
        model = tmp_path / str(place)
    assert folder_digest(model) == digests(done)[1]


def test_any_change_of_it_can_be_taken_back(original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path, parts()[:2])
    before = digests(done)[0]
    revert(Path(done["requests"][1]["out"]))
    assert folder_digest(Path(done["requests"][1]["out"])) == before


def test_an_interrupted_stream_goes_on_to_the_same_weights(
    original: Path, done: dict[str, Any], tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if event.task == "stream" and event.done >= 2:
            raise KeyboardInterrupt

    with listening(interrupt), pytest.raises(KeyboardInterrupt):
        run(original, tmp_path)
    assert (tmp_path / "out" / "0002" / "change.json").is_file()
    assert not (tmp_path / "out" / "0003").exists()
    again = run(original, tmp_path)
    assert digests(again) == digests(done)
    assert [one["after"] for one in again["requests"]] == [o["after"] for o in done["requests"]]


def test_what_is_done_is_not_done_again_and_new_requests_follow(
    original: Path, done: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = run(original, tmp_path, parts()[:3])
    looked: list[int] = []
    measure = module._known
    monkeypatch.setattr(module, "_known", lambda *a: looked.append(1) or measure(*a))  # type: ignore[func-returns-value]
    grown = run(original, tmp_path, parts())
    assert digests(grown) == digests(done)
    assert digests(grown)[:3] == digests(short)
    assert len(looked) == 1 + COUNT  # the new request alone: retain rows, and every request
    kept = json.loads((tmp_path / "out" / RECORD).read_text())
    assert len(kept["requests"]) == COUNT


def test_another_stream_into_the_same_folder_is_refused(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path, parts()[:1])
    with pytest.raises(ExpungeError) as error:
        run(original, tmp_path, parts()[1:2])
    assert error.value.code == "E-USE-004"


def test_what_was_asked_to_be_forgotten_is_never_kept(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of later requests are kept until they are asked for, and not after."""
    seen: list[dict[str, Any]] = []
    real = module.forget
    monkeypatch.setattr(module, "forget", lambda *a, **k: seen.append(k) or real(*a, **k))  # type: ignore[func-returns-value]
    everything = [*world().retain, *world().forget]
    run(original, tmp_path, parts()[:2], retain=everything)
    ids = [{row.id.rpartition("retain/")[2] for row in one["retain"]} for one in seen]
    first, second = ({row.id for row in rows} for rows in parts()[:2])
    assert not ids[0] & first
    assert ids[0] >= second
    assert not ids[1] & (first | second)


def test_a_request_that_finds_nothing_to_do_is_said_and_passed(
    original: Path, done: dict[str, Any], tmp_path: Path
) -> None:
    """Rows at the stop level from the start: no change, and the stream goes on."""
    options = {**OPTIONS, "stop_at": "nll=0.0001"}
    first = run(original, tmp_path / "a", parts()[:1], **options)
    assert first["requests"][0]["status"] in ("done", "unchanged")
    refused = run(
        original, tmp_path / "b", parts()[:2], **{**OPTIONS, "params": {"lr": 0.0, "max_steps": 2}}
    )
    assert [one["status"] for one in refused["requests"]] == ["unchanged", "unchanged"]
    assert refused["model"] == str(original)
    assert "learning rate is 0" in refused["requests"][0]["summary"]["why"]
    assert not (tmp_path / "b" / "out" / "0001").exists()


def test_the_anchor_is_the_first_model_or_the_one_before(
    original: Path, done: dict[str, Any], tmp_path: Path
) -> None:
    anchored = run(original, tmp_path, parts()[:2], anchor="original")
    assert digests(anchored)[0] == digests(done)[0]
    assert digests(anchored)[1] != digests(done)[1]


def test_what_a_method_hands_on_reaches_the_next_request(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expunge.core.registry import methods

    npo = methods.load("npo")

    def prepare(task: Any, params: Any) -> None:
        task.carry["passed"] = task.carry.get("passed", 0) + 1

    monkeypatch.setattr(npo, "prepare", prepare, raising=False)
    done = run(original, tmp_path, parts()[:3])
    carried = [read_manifest(Path(one["out"]))["carry"] for one in done["requests"]]  # type: ignore[index]
    assert carried == [{"passed": 1}, {"passed": 2}, {"passed": 3}]


def test_everything_wrong_is_found_before_weights_load(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("expunge.engine.run.load", never)
    monkeypatch.setattr("expunge.engine.stream.load", never)
    long = Row(id="long", prompt="word " * 400, completion=" end")
    path = written(tmp_path, [parts()[0], [long]])
    options = {**OPTIONS, "method": "nop", "retain": world().retain}
    with pytest.raises(Problems) as error:
        forget_stream(original, path, out=tmp_path / "out", **options)
    found = " ".join(problem.found for problem in error.value.problems)
    assert "nop" in found
    assert "request r1" in found
    read, report = read_stream(original, path, out=tmp_path / "out", **{**OPTIONS, "anchor": "x"})
    assert read is None
    assert any(problem.code == "E-USE-003" for problem in report.problems)
    assert not (tmp_path / "out").exists()


def test_what_it_will_take_is_told_of_all_requests(original: Path, tmp_path: Path) -> None:
    found = []
    for count in (1, 3):
        path = written(tmp_path / str(count), parts()[:count])
        read, report = read_stream(
            original, path, out=tmp_path / "out", retain=world().retain, **OPTIONS
        )
        assert read is not None
        assert report.resolved["requests"] == count
        found.append(report.estimate["disk_bytes"])
    assert found[1] == pytest.approx(3 * found[0])


@pytest.mark.parametrize("method", ["task-vector", "rmu"])
def test_it_works_with_other_kinds_of_methods(method: str, original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path, parts()[:2], method=method)
    assert len(set(digests(done))) == 2
