"""Peak memory of one optimiser step, each way in a process of its own.

The unit is the size of the model's weights: a way that holds a second model shows as 1 more than
the plain step. Optimiser state is counted on all sides: each way takes two steps of fused AdamW.
The mark is reset before them (Linux), so that building the model does not show.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

SHAPE = (32000, 640)
LAYERS = 12
ASKED = ("npo", "kl-min", "undial", "rmu")
PLAIN = "plain"


def measure(seed: int) -> dict[str, Any]:
    """Peak of every way, over the plain step's.

    Returns:
        ``weights_bytes``; ``ways``: name -> ``peak_bytes`` (largest resident size of the process)
        and ``over_plain`` (difference to the plain step, in sizes of the weights).
    """
    names = [PLAIN, *ASKED, *(f"textbook {name}" for name in ASKED)]
    found = {name: _child(name, seed) for name in names}
    weights, plain = found[PLAIN]["weights_bytes"], found[PLAIN]["peak_bytes"]
    ways = {
        name: {
            "peak_bytes": one["peak_bytes"],
            "over_plain": round((one["peak_bytes"] - plain) / weights, 2),
        }
        for name, one in found.items()
    }
    head = SHAPE[0] * SHAPE[1] * 4
    return {"weights_bytes": weights, "head_share": round(head / weights, 2), "ways": ways}


def _child(name: str, seed: int) -> dict[str, Any]:
    """One way in a new process.

    Raises:
        RuntimeError: When it fails.
    """
    done = subprocess.run(
        (sys.executable, __file__, name, str(seed)), capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _step(name: str, seed: int) -> dict[str, Any]:
    import torch
    from engine_steps import Bench, Shape

    torch.set_num_threads(1)
    bench = Bench(Shape(*SHAPE, rows="short"), layers=LAYERS, seed=seed)
    weights = sum(p.numel() * p.element_size() for p in bench.all)
    if name == PLAIN:
        way = bench.plain()
    elif name.startswith("textbook "):
        second = deepcopy(bench.model).requires_grad_(False)
        way = bench.opponent(name.removeprefix("textbook "), second)
    else:
        way = bench.method(name)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        bench.timed(way)
    return {"weights_bytes": weights, "peak_bytes": largest_resident()}


def largest_resident() -> int:
    """Bytes of the largest resident size since the mark was reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _run_one() -> None:
    asked = argparse.ArgumentParser(description="One way, for `measure`.")
    asked.add_argument("name")
    asked.add_argument("seed", type=int)
    given = asked.parse_args()
    print(json.dumps(_step(given.name, given.seed)))


if __name__ == "__main__":
    _run_one()
