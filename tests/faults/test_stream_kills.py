"""A stream of requests that is killed on its way ends with the weights it would have had."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from expunge.lm.digest import folder_digest
from expunge.testing.methods import world

pytestmark = pytest.mark.fault
LIMIT = 300.0


def started(scene: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [
        sys.executable, "-m", "expunge", "forget", "--model", scene / "original",
        "--stream", scene / "requests.jsonl", "--retain", scene / "retain.jsonl",
        "--set", "max_steps=3", "--set", "lr=1e-3", "--stop-at", "none", "--out", out, "--json",
    ]  # fmt: skip
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed_in(scene: Path, out: Path, folder: str) -> None:
    """Kill the stream once the change in ``folder`` is under way."""
    process, until = started(scene, out), time.monotonic() + LIMIT
    while not (out / folder / ".run").is_dir():
        assert process.poll() is None, process.communicate()[1].decode()[-2000:]
        assert time.monotonic() < until, f"{folder} was not begun"
        time.sleep(0.002)
    process.kill()
    process.communicate()


def test_a_stream_killed_three_times_ends_bit_identical(scene: Path) -> None:
    rows = world().forget
    lines = [json.dumps({"id": f"r{at}", "forget": [row.as_dict()]}) for at, row in enumerate(rows)]
    (scene / "requests.jsonl").write_text("\n".join(lines) + "\n")
    whole = started(scene, scene / "whole")
    told, errors = whole.communicate(timeout=LIMIT)
    assert whole.returncode == 0, errors.decode()[-2000:]
    for folder in ("0001", "0004", "0009"):
        killed_in(scene, scene / "cut", folder)
    again = started(scene, scene / "cut")
    resumed, errors = again.communicate(timeout=LIMIT)
    assert again.returncode == 0, errors.decode()[-2000:]
    expected, found = json.loads(told), json.loads(resumed)
    assert len(found["requests"]) == len(rows)
    for one, other in zip(expected["requests"], found["requests"], strict=True):
        assert folder_digest(Path(one["out"])) == folder_digest(Path(other["out"]))
        assert one["after"] == other["after"]
    assert (scene / "cut" / "report.html").is_file()
