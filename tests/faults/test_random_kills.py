"""Twenty kills at random moments leave no trace in the weights."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from expunge.core.events import Event, listening
from expunge.engine import checkpoints
from expunge.engine.run import forget

KILLS, SEED = 20, 7
NEEDED = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "method_state.json",
)
pytestmark = pytest.mark.fault


def test_a_run_killed_twenty_times_ends_bit_identical(
    scene: Path, record_property: Callable[[str, object], None]
) -> None:
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run(
        [sys.executable, script, scene, str(KILLS), str(SEED)],
        check=False, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads((scene / "kills.json").read_text())
    torn = [kill for kill in found["kills"] if kill["half-written"]]
    resumable = [kill for kill in found["kills"] if kill["whole"]]
    record_property("kills", len(found["kills"]))
    record_property("kills that hit a half-written checkpoint", len(torn))
    record_property("kills after a whole checkpoint", len(resumable))
    assert len(found["kills"]) == KILLS
    assert len(torn) >= 3, found["kills"]
    assert len(resumable) >= 3, found["kills"]
    assert set(found["digests"]) == {found["expected"]}


@pytest.fixture(scope="module")
def interrupted(scene: Path) -> Path:
    """The run folder of an interrupted run."""

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.done >= 9:
            raise KeyboardInterrupt

    with listening(interrupt), pytest.raises(KeyboardInterrupt):
        forget(
            scene / "original", scene / "forget.jsonl", scene / "retain.jsonl",
            out=scene / "cut", params={"max_steps": 20, "lr": 1e-3}, stop_at="none",
        )  # fmt: skip
    return scene / "cut" / ".run"


@pytest.mark.parametrize("name", NEEDED)
def test_a_checkpoint_that_lost_a_file_is_never_resumed_from(name: str, interrupted: Path) -> None:
    newest = checkpoints.newest(interrupted)
    assert newest is not None
    kept = (newest / name).read_bytes()
    (newest / name).unlink()
    try:
        older = checkpoints.newest(interrupted)
        assert older is not None
        assert checkpoints.step_of(older) < checkpoints.step_of(newest)
        (newest / name).write_bytes(kept[:-1])
        assert checkpoints.newest(interrupted) == older
    finally:
        (newest / name).write_bytes(kept)
    assert checkpoints.newest(interrupted) == newest
