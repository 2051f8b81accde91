"""Interrupted and killed runs resume with the same command and end bit-identical."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.engine import checkpoints
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest

STEPS = 20
OPTIONS = {"method": "npo", "params": {"max_steps": STEPS, "lr": 1e-3}, "stop_at": "none"}

CHILD = """
import json, os, signal, sys
from pathlib import Path
from expunge.core.events import listening
from expunge.data.jsonl import read_rows
from expunge.engine import checkpoints, run
from expunge.engine.run import forget

folder, place = Path(sys.argv[1]), sys.argv[2]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if place == "before the marker":
    checkpoints.write_json = lambda path, obj: die() if path.name == "complete.json" and \\
        path.parent.name >= "checkpoint-7" else Path(path).write_text(json.dumps(obj))
elif place == "while publishing":
    run.write_json = lambda path, obj: die() if path.name == "change.json" else \\
        Path(path).write_text(json.dumps(obj))
else:
    step = int(place.rpartition(" ")[2])

def hear(event):
    if place.startswith("after step") and event.kind == "advance" and event.done >= step:
        die()

with listening(hear):
    forget(folder / "original", folder / "forget.jsonl", folder / "retain.jsonl",
           out=folder / "out", **json.loads(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def whole(scene: Path) -> Path:
    """An uninterrupted run."""
    run(scene, scene / "whole")
    return scene / "whole"


def run(folder: Path, out: Path) -> dict:
    return forget(
        folder / "original", folder / "forget.jsonl", folder / "retain.jsonl", out=out, **OPTIONS
    )


@pytest.mark.fault
@pytest.mark.parametrize(
    "place", ["after step 3", "after step 13", "before the marker", "while publishing"]
)
def test_a_killed_run_resumes_and_ends_bit_identical(
    place: str, scene: Path, whole: Path, tmp_path: Path
) -> None:
    for name in ("original", "forget.jsonl", "retain.jsonl"):
        os.symlink(scene / name, tmp_path / name)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), place, json.dumps(OPTIONS)],
        check=False, capture_output=True,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
    assert not (tmp_path / "out" / "change.json").exists()
    resumed = run(scene, tmp_path / "out")
    assert resumed["resumed_from"] > 0
    assert resumed["steps"] == STEPS
    assert folder_digest(tmp_path / "out") == folder_digest(whole)
    assert not (tmp_path / "out" / ".run").exists()


def test_an_interrupted_run_resumes_and_ends_bit_identical(
    scene: Path, whole: Path, tmp_path: Path
) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.done >= 9:
            raise KeyboardInterrupt

    with listening(interrupt), pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path / "out")
    resumed = run(scene, tmp_path / "out")
    assert 0 < resumed["resumed_from"] <= 9
    assert folder_digest(tmp_path / "out") == folder_digest(whole)


def test_the_same_command_on_a_finished_folder_changes_nothing(scene: Path, whole: Path) -> None:
    before = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in whole.iterdir()}
    again = run(scene, whole)
    manifest = json.loads((whole / "change.json").read_text())
    assert again == manifest["summary"]
    after = {f: (f.stat().st_mtime_ns, f.stat().st_size) for f in whole.iterdir()}
    assert {f for f in before if before[f] != after[f]} <= {whole / ".lock"}


def test_a_finished_folder_with_changed_weights_is_refused(scene: Path, tmp_path: Path) -> None:
    run(scene, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ExpungeError) as caught:
        run(scene, tmp_path / "out")
    assert caught.value.code == "E-MODEL-009"
    assert caught.value.exit_code == 3


def test_another_command_does_not_touch_a_finished_folder(scene: Path, whole: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        forget(
            scene / "original", scene / "forget.jsonl", scene / "retain.jsonl",
            out=whole, **{**OPTIONS, "method": "ga"},
        )  # fmt: skip
    assert caught.value.code == "E-USE-004"


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "optimizer.pt").write_bytes(b"moments")
    return path


def test_an_incomplete_checkpoint_is_never_chosen(tmp_path: Path) -> None:
    whole, cut, gone, fresh = (checkpoint(tmp_path, step) for step in (5, 10, 15, 20))
    for path in (whole, cut, gone):
        checkpoints.seal(path, {"dual": 1.5})
    (cut / "optimizer.pt").write_bytes(b"mom")
    (gone / "optimizer.pt").unlink()
    assert not checkpoints.is_whole(fresh)
    assert checkpoints.newest(tmp_path) == whole
    assert checkpoints.state_of(whole) == {"dual": 1.5}
    checkpoints.discard_after(tmp_path, whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-5"]


def test_pickled_training_arguments_do_not_stay(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5)
    (path / "training_args.bin").write_bytes(b"pickle")
    checkpoints.seal(path, {})
    assert not (path / "training_args.bin").exists()
    assert checkpoints.is_whole(path)


def test_pruning_keeps_the_two_newest_whole_checkpoints(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoints.seal(checkpoint(tmp_path, step), {})
    checkpoint(tmp_path, 9)
    checkpoints.prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-6", "checkpoint-8", "checkpoint-9",
    ]  # fmt: skip
