"""What the engine costs: steps, time to the verdict, memory, and where ``forget`` spends its time.

Everything is a ratio of CPU time in one process on one thread, or a peak of a process, so that a
busy machine does little harm. Writes ``benches/results/engine.json`` and
``docs/results/engine.md``.

Run again:  python benches/engine.py [--only steps,verdict,memory,share] [--repeats 7] [--large]
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import engine_memory
import engine_page
import engine_share
import engine_steps
import engine_verdict
import torch
from engine_steps import Shape

from expunge.core.atomic import write_json, write_text
from expunge.core.registry import methods

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/engine.json"
PAGE = ROOT / "docs/results/engine.md"
PARTS = ("steps", "verdict", "memory", "share")
PACKAGES = ("expunge", "torch", "transformers", "numpy")

SHAPES = (
    Shape(2000, 128),
    Shape(2000, 256),
    Shape(32000, 128),
    Shape(32000, 256),
    Shape(2000, 256, "long prompts"),
    Shape(32000, 256, "long prompts"),
)
LARGE = (Shape(128000, 128), Shape(128000, 256))
NAMED = ("kl-min", "npo", "rmu", "simnpo", "undial")
"""With long prompts only the methods that have a textbook form are measured."""


def main() -> None:
    """Measure what is asked, keep the rest of the last record, write record and page."""
    given = _options()
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if given.only and RECORD.is_file() else {}
    asked = given.only.split(",") if given.only else list(PARTS)
    for part in asked:
        record[part] = measured(part, given)
        print(f"{part}: done", flush=True)
    versions = {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}}
    record |= {
        "command": "python benches/engine.py" + (" --large" if given.large else ""),
        "seed": given.seed,
        "versions": versions,
    }
    if not given.only:
        spent = os.times()
        record["cpu_seconds"] = round(sum(spent[:4]))
    write_json(RECORD, record, indent=1)
    write_text(PAGE, engine_page.page(record))


def measured(part: str, given: argparse.Namespace) -> Any:
    """One part of the record."""
    if part == "steps":
        chosen = [card.id for card in methods.cards() if card.kind == "gradient"]
        shapes = (*SHAPES, *(LARGE if given.large else ()))
        return [
            engine_steps.measure(
                shape, chosen if shape.rows == "mixed" else NAMED, given.repeats, given.seed
            )
            for shape in shapes
        ]
    modules = {"verdict": engine_verdict.compare, "memory": engine_memory.measure}
    return {**modules, "share": engine_share.measure}[part](given.seed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--large", action="store_true", help="a vocabulary of 128k as well")
    given = parser.parse_args()
    unknown = set(filter(None, given.only.split(","))) - set(PARTS)
    if unknown:
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    main()
