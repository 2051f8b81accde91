"""Ctrl-C on the command line: exit code 5, words, and the same command goes on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import signal, sys
from expunge.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
"""Where tests run in the background, programs they start inherit that Ctrl-C is off."""


@pytest.mark.fault
def test_ctrl_c_ends_with_code_5_and_the_same_command_resumes(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable, "-c", PROGRAM,
        "forget", "--model", str(scene / "original"), "--forget", str(scene / "forget.jsonl"),
        "--retain", str(scene / "retain.jsonl"), "--out", str(out), "--stop-at", "none",
        "--set", "max_steps=400", "--set", "lr=1e-4", "--json",
    ]  # fmt: skip
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(out.glob(".run/checkpoint-*/complete.json")):
        assert first.poll() is None, first.stderr.read().decode()[-2000:]  # type: ignore[union-attr]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 5
    assert json.loads(said)["error"]["code"] == "E-RUN-004"
    second = subprocess.run(command, capture_output=True, check=True)
    done = json.loads(second.stdout)
    assert done["resumed_from"] > 0
    assert done["steps"] == 400
