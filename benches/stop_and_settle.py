"""What the stop rule is worth: runs on the embedded testbed with each part of it switched off.

``forget`` compares clipped levels and settles before it ends; docs/design/002-stop-and-settle.md
says why. Four runs for each method and seed differ in nothing else: clip or plain mean, settle or
end at the level. The two parts have no option of the command line; this script switches them off
in place.

    python benches/stop_and_settle.py --out benches/results/stop_and_settle.json
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

from expunge.api import load
from expunge.engine import levels
from expunge.engine.run import forget
from expunge.engine.session import Session
from expunge.lab import testbed
from expunge.lab.testbed.measure import exact

RULES = {
    "plain mean, ends at the level": (False, False),
    "plain mean, settles": (False, True),
    "clipped, ends at the level": (True, False),
    "clipped, settles (the default)": (True, True),
}
"""Name -> whether the levels are clipped, and whether the run settles."""
ASKED = ("forget", "retain", "neighbour")
PACKAGES = ("expunge", "torch", "transformers", "numpy")


def main() -> None:
    """Run every rule with every method and seed, and write what came out."""
    options = _options()
    found = []
    for method, seed, rule in product(options.methods.split(","), range(options.seeds), RULES):
        found.append(run(rule, method, seed))
        print(json.dumps(found[-1]), flush=True)
    record = {
        "command": f"python benches/stop_and_settle.py --methods {options.methods} "
        f"--seeds {options.seeds} --out {options.out}",
        "machine": {"system": platform.platform()},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "original": {role: known(testbed.folder("original"), role) for role in ASKED},
        "runs": found,
    }
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def run(rule: str, method: str, seed: int) -> dict[str, Any]:
    """One run, and what the changed model still answers."""
    with tempfile.TemporaryDirectory() as folder, stopping(*RULES[rule]):
        started = time.process_time()
        done = forget(
            testbed.folder("original"),
            testbed.rows("forget"),
            testbed.rows("retain"),
            neighbour=testbed.rows("neighbour"),
            holdout=testbed.rows("holdout"),
            method=method,
            seed=seed,
            out=Path(folder) / "change",
        )
        seconds = time.process_time() - started
        recall = {role: known(Path(folder) / "change", role) for role in ASKED}
    return {
        "method": method,
        "rule": rule,
        "seed": seed,
        "lr": done["lr"],
        "steps": done["steps"],
        "stopped_by": done["stopped_by"],
        "forget_nll": done["forget_nll"],
        "utility_drop": done["utility_drop"],
        "cpu_seconds": round(seconds, 1),
        "recall": recall,
    }


@contextmanager
def stopping(clip: bool, settle: bool) -> Iterator[None]:
    """The stop rule of `expunge.engine.session` with one or both of its parts switched off."""
    level_of = levels._level_of
    plain = lambda *given: replace(level_of(*given), target=None)  # noqa: E731
    with (
        patch.object(levels, "_level_of", level_of if clip else plain),
        patch.object(Session, "_is_settled", Session._is_settled if settle else lambda _: True),
    ):
        yield


def known(model: Path, role: testbed.Role) -> dict[str, float]:
    """Share of a role's rows whose greedy answer holds the value, by wording."""
    return exact(load(model), testbed.rows(role))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="benches/results/stop_and_settle.json")
    parser.add_argument("--methods", default="npo,grad-diff", help="methods, with commas")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each rule and method")
    return parser.parse_args()


if __name__ == "__main__":
    main()
