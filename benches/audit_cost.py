"""What an audit costs: CPU time of each profile and attack on the testbed's million parameters.

    python benches/audit_cost.py [--profiles fast,default]

The audited model is the embedded refuser, the control people nobody taught it; nothing is known
from an earlier audit. Original, model and control are attacked, one thread. The page is
docs/results/audit_cost.md, the numbers are in benches/results/audit_cost.json.
"""

import argparse
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from expunge.api import load
from expunge.audit import mounting
from expunge.audit.run import audit
from expunge.core.atomic import write_json, write_text
from expunge.lab import testbed

RESULTS = Path(__file__).parent / "results" / "audit_cost.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "audit_cost.md"
PACKAGES = ("expunge", "torch", "transformers", "numpy")
BARS = {"fast": 60.0, "default": 360.0}
"""CPU-seconds that are promised."""


def main() -> None:
    """Audit once with each profile, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", default="fast,default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        refuser = testbed.train_refuser(testbed.folder("original"), Path(folder) / "refuser", 0)
        measured = {name: measure(refuser, name) for name in options.profiles.split(",")}
    found = {
        "command": f"python benches/audit_cost.py --profiles {options.profiles}",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in PACKAGES},
        "rows": {role: len(testbed.rows(role)) for role in testbed.ROLES},
        "profiles": measured,
    }
    write_json(RESULTS, found)
    write_text(PAGE, page(found))


def measure(refuser: Path, profile: str) -> dict[str, Any]:
    """CPU-seconds of one audit: as a whole, and of each attack on all three sets of rows."""
    spent: dict[str, float] = defaultdict(float)
    mounted = mounting._mounted

    def timed(subject: Any, rows: Any, scene: Any, id: str, params: Any) -> Any:
        began = time.process_time()
        try:
            return mounted(subject, rows, scene, id, params)
        finally:
            spent[id] += time.process_time() - began

    mounting._mounted = timed
    began = time.process_time()
    try:
        done = audit(
            load(refuser),
            forget=testbed.rows("forget"),
            retain=testbed.rows("retain"),
            neighbour=testbed.rows("neighbour"),
            holdout=testbed.rows("holdout"),
            original=load(testbed.folder("original")),
            profile=profile,
        )
    finally:
        mounting._mounted = mounted
    seconds = time.process_time() - began
    outcomes = {id: one["outcome"] for id, one in done.data["attacks"].items()}
    return {
        "seconds": seconds,
        "verdict": str(done.verdict),
        "attacks": {id: {"seconds": spent[id], "outcome": outcomes[id]} for id in outcomes},
    }


def page(found: Mapping[str, Any]) -> str:
    """The page, in Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    rows = ", ".join(f"{count} {role}" for role, count in found["rows"].items())
    lines = [
        "# What an audit costs",
        "",
        "Written by `benches/audit_cost.py`; do not edit.",
        "",
        "CPU-seconds, one thread, of an audit of the embedded refuser (a million parameters) with",
        f"nothing known from an earlier one; {rows} rows. Each attack meets",
        "the original, the model and the control; the rest is utility, metrics and statistics.",
        "",
        f"Run again: `{found['command']}`; {versions}.",
        "",
        "| profile | promised | found | | verdict |",
        "|---|---:|---:|---|---|",
    ]
    for name, one in found["profiles"].items():
        bar = BARS.get(name)
        held = "" if bar is None else "held" if one["seconds"] <= bar else "**missed**"
        promised = "" if bar is None else f"at most {bar:.0f}"
        lines.append(
            f"| `{name}` | {promised} | {one['seconds']:.0f} | {held} | {one['verdict']} |"
        )
    for name, one in found["profiles"].items():
        lines += ["", f"## `{name}`", "", "| attack | CPU-s | outcome |", "|---|---:|---|"]
        costly = sorted(one["attacks"].items(), key=lambda pair: -pair[1]["seconds"])
        lines += [f"| `{id}` | {of['seconds']:.1f} | {of['outcome']} |" for id, of in costly]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
