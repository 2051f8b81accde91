"""Two processes under ``torchrun`` train what one process trains, and end together.

``accelerate launch`` starts a single process on a CPU without a word, so every job here is started
by ``torchrun`` and says how many processes it found.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trajectories import CASES, RUN, SHARDED, SIZES, STEPS, assembled, prepared, trained

from expunge.engine.change import load_change
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest

WORKER = Path(__file__).with_name("trajectories.py")
pytestmark = pytest.mark.fault


def torchrun(*arguments: object) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    return [*launch, "--master_port", str(port), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def pair(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote after training every case."""
    out = tmp_path_factory.mktemp("pair")
    done = subprocess.run(
        torchrun(WORKER, scene, out), check=False, capture_output=True, env=environment()
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return out


def told(pair: Path) -> list[dict]:
    return [json.loads((pair / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_the_job_really_has_two_processes(pair: Path) -> None:
    assert [process["size"] for process in told(pair)] == [2, 2]


def test_all_processes_hear_what_the_first_one_says(pair: Path) -> None:
    for process in told(pair):
        assert process["told"]["from"] == 0
        assert math.isnan(process["told"]["nan"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_and_any_cut_train_the_same_weights(
    case: str, size: int, pair: Path, scene: Path
) -> None:
    whole, values = trained(scene, case, size, 1)
    start = prepared(scene, assembled(case, size, 1)).model.state_dict()
    assert max(float((whole[name] - start[name]).abs().max()) for name in whole) > STEPS * 1e-4
    cut, cut_values = trained(scene, case, 1, size)
    found = {"one process, cut": (cut, cut_values)}
    for shape in (f"{size}x1", f"1x{size}"):
        for rank in (0, 1):
            name = f"{case} {shape} {rank}"
            weights = load_file(pair / f"{name}.safetensors")
            found[name] = (weights, json.loads((pair / f"{name}.json").read_text()))
    for name, (weights, told_values) in found.items():
        assert weights.keys() == whole.keys()
        for parameter, expected in whole.items():
            torch.testing.assert_close(
                weights[parameter], expected, rtol=0, atol=1e-12, msg=f"{name}: {parameter}"
            )
        for step, expected_values in enumerate(values):
            assert told_values[step] == pytest.approx(expected_values, rel=1e-11), name


@pytest.mark.parametrize(("case", "size", "parts"), SHARDED)
def test_two_processes_with_shards_of_the_model_train_the_same_weights(
    case: str, size: int, parts: int, pair: Path, scene: Path
) -> None:
    expected, _ = trained(scene, case, 8, 1)
    found = load_file(pair / f"{case} {size}x{parts} shards.safetensors")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-12)


def test_shares_that_do_not_fit_shards_are_refused(pair: Path) -> None:
    assert [process["refusal"] for process in told(pair)] == ["E-USE-006", "E-USE-006"]


def test_a_sharded_model_is_saved_whole(pair: Path, scene: Path) -> None:
    assert folder_digest(pair / "gathered") == folder_digest(scene / "original")


def test_processes_draw_different_retain_rows_and_together_the_global_draw(
    pair: Path, scene: Path
) -> None:
    method = assembled("npo with nll", 7, 1)
    sampler = method.sample(prepared(scene, method), method.params)
    first, second = (process["drawn"] for process in told(pair))
    for step in range(STEPS):
        for role, rows in sampler.draw(step).rows.items():
            mine, other = first[step][role], second[step][role]
            assert (len(mine), len(other)) == (4, 3)
            assert sorted(mine + other) == sorted(rows)
    assert [step["retain"] for step in first] != [step["retain"] for step in second]
    assert all(a["retain"][:3] != b["retain"] for a, b in zip(first, second, strict=True))


def command(scene: Path, out: Path) -> list[str]:
    return torchrun(
        "-m", "expunge", "forget", "--model", scene / "original", "--out", out,
        "--forget", scene / "forget.jsonl", "--retain", scene / "retain.jsonl",
        "--stop-at", "none", "--json", *(f"--set={k}={v}" for k, v in RUN.items()),
    )  # fmt: skip


@pytest.fixture(scope="module")
def together(scene: Path) -> Path:
    """The change two processes make from the command line."""
    out = scene / "together"
    done = subprocess.run(
        command(scene, out), check=False, capture_output=True, env=environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    said = json.loads(done.stdout)  # one JSON value: the second process says nothing
    assert said["steps"] == RUN["max_steps"]
    assert b"Process 1" not in done.stderr
    return out


def test_the_command_gives_the_weights_of_one_process(scene: Path, together: Path) -> None:
    manifest = load_change(together).manifest
    assert manifest["processes"] == 2
    assert not (together / ".run").exists()
    assert not (together / ".lock").exists()
    alone = scene / "alone"
    done = forget(
        scene / "original", scene / "forget.jsonl", scene / "retain.jsonl",
        params=RUN, stop_at="none", out=alone,
    )  # fmt: skip
    assert manifest["summary"]["forget_nll"] == pytest.approx(done["forget_nll"], abs=1e-4)
    found, expected = (load_file(f / "model.safetensors") for f in (together, alone))
    original = load_file(scene / "original" / "model.safetensors")
    moved = max(float((expected[n] - original[n]).abs().max()) for n in expected)
    apart = max(float((expected[n] - found[n]).abs().max()) for n in expected)
    assert apart < 1e-5 < moved / 10


def test_two_processes_give_the_same_hash_twice(pair: Path, together: Path) -> None:
    assert folder_digest(pair / "run") == folder_digest(together)


def test_a_killed_process_ends_the_job_and_the_same_command_resumes(
    scene: Path, together: Path
) -> None:
    out = scene / "killed"
    job = subprocess.Popen(
        command(scene, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    deadline = time.monotonic() + 120
    while not list(out.glob(".run/checkpoint-*/complete.json")):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(second_process(job.pid), signal.SIGKILL)
    _, stderr = job.communicate(timeout=90)
    assert job.returncode != 0, stderr.decode()[-2000:]
    assert not (out / "change.json").exists()
    again = subprocess.run(
        command(scene, out), check=False, capture_output=True, env=environment(), timeout=120
    )
    assert again.returncode == 0, again.stderr.decode()[-3000:]
    done = json.loads(again.stdout)
    assert 0 < done["resumed_from"] < RUN["max_steps"]
    assert folder_digest(out) == folder_digest(together)


def second_process(launcher: int) -> int:
    """The process of rank 1 among the children of the launcher."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if b"RANK=1" in variables:
            return int(child)
    raise AssertionError(f"no process of rank 1 among {children}")
