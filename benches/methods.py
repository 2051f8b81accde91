"""Every gradient method on the embedded testbed: before, after, reference; three seeds.

Writes ``benches/results/methods.json`` and ``docs/results/methods.md``.

Run again:  python benches/methods.py [--seeds 3] [--methods npo,ga]
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import torch

import expunge
from expunge.core.registry import methods
from expunge.engine.run import forget
from expunge.lab import testbed

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/methods.json"
ATTACKS = ("direct", "prob", "prefix", "lens", "relearn-in")
METRICS = ("probability", "extraction-strength", "truth-ratio", "forget-quality")
ROLES = ("forget", "retain", "neighbour", "holdout")

Line = dict[str, float | str | int | None]

PHENOMENA: dict[str, tuple[str, Callable[[Line], bool]]] = {
    "ga": (
        "without a retain term the rest of the model goes with the forget set (utility below .8)",
        lambda line: line["utility"] < 0.8,
    ),
    "grad-diff": (
        "the retain term keeps utility (at least .8) while the answers go (direct leak below .1)",
        lambda line: line["utility"] >= 0.8 and line["direct"] < 0.1,
    ),
    "kl-min": (
        "the divergence keeps utility (at least .8) while the answers go (direct leak below .1)",
        lambda line: line["utility"] >= 0.8 and line["direct"] < 0.1,
    ),
    "idk-dpo": (
        "the reply changes (direct leak below .1) and the knowledge stays (relearn-in above .3)",
        lambda line: line["direct"] < 0.1 and line["relearn-in"] > 0.3,
    ),
    "simnpo": (
        "the answers go (direct leak below .1) at a utility of at least .9",
        lambda line: line["direct"] < 0.1 and line["utility"] >= 0.9,
    ),
    "undial": (
        "stable without a retain term: no collapse (utility above .5, where ga has less)",
        lambda line: line["utility"] > 0.5,
    ),
    "wga": (
        "the answers go (direct leak below .1) at a utility of at least .9",
        lambda line: line["direct"] < 0.1 and line["utility"] >= 0.9,
    ),
    "satimp": (
        "the answers go (direct leak below .1) at a utility of at least .9",
        lambda line: line["direct"] < 0.1 and line["utility"] >= 0.9,
    ),
    "ceu": (
        "the answers go (direct leak below .1) without a retain set; utility is not claimed here",
        lambda line: line["direct"] < 0.1,
    ),
    "npo": (
        "the answers go (direct leak below .1) at a utility of at least .9, and retraining on some "
        "facts brings others back (relearn-in above .1)",
        lambda line: line["direct"] < 0.1 and line["utility"] >= 0.9 and line["relearn-in"] > 0.1,
    ),
    "idk-nll": (
        "the reply changes (direct leak below .1) and the knowledge stays (prefix and relearn-in "
        "above .3)",
        lambda line: line["direct"] < 0.1 and min(line["prefix"], line["relearn-in"]) > 0.3,
    ),
}


VARIANTS: dict[str, dict[str, float]] = {
    "simnpo": {"forget_weight": 1.0},
    "idk-dpo": {"lr": 5e-4},
}
"""Where the effect does not show at the defaults: other values, seed 0, beside them."""


def main() -> None:
    """Run what is asked and write both files."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--methods", default="")
    given = asked.parse_args()
    torch.set_num_threads(1)
    known = [card.id for card in methods.cards() if card.kind == "gradient"]
    chosen = [name for name in given.methods.split(",") if name] or known
    rows = {role: testbed.rows(role) for role in ROLES}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        lines = [
            audited(name, testbed.folder(name), rows, cache) for name in ("original", "reference")
        ]
        for method in chosen:
            for seed in range(given.seeds):
                lines.append(changed(method, seed, rows, Path(folder), cache))
                print(json.dumps(lines[-1]), flush=True)
            if method in VARIANTS:
                lines.append(changed(method, 0, rows, Path(folder), cache, **VARIANTS[method]))
    made = {*chosen, "original", "reference"}
    kept = [line for line in stored() if line["model"].partition(" ")[0] not in made]
    order = {name: place for place, name in enumerate(["original", "reference", *known])}
    write(sorted([*kept, *lines], key=lambda line: _place(line, order)))


def _place(line: Line, order: dict[str, int]) -> tuple[int, str, int]:
    name = str(line["model"])
    return order[name.partition(" ")[0]], name, int(line.get("seed") or 0)


def stored() -> list[Line]:
    """The lines of the last record, so that a run over some methods keeps those of the others."""
    return json.loads(RECORD.read_text())["lines"] if RECORD.is_file() else []


def changed(method: str, seed: int, rows: dict, folder: Path, cache: Path, **params: float) -> Line:
    """Forget with one method and one seed, at its defaults but for ``params``, then audit."""
    told = "".join(f" ({name}={value:g})" for name, value in params.items())
    out = folder / f"{method}-{seed}{'-variant' if params else ''}"
    before = time.process_time()
    done = forget(
        testbed.folder("original"), rows["forget"], rows["retain"], neighbour=rows["neighbour"],
        holdout=rows["holdout"], method=method, params=params, seed=seed, out=out,
    )  # fmt: skip
    spent = time.process_time() - before
    line = audited(method + told, out, rows, cache)
    return line | {
        "seed": seed, "steps": done["steps"], "stopped_by": done["stopped_by"],
        "cpu_seconds": round(spent, 1),
    }  # fmt: skip


def audited(name: str, model: Path, rows: dict, cache: Path) -> Line:
    """The numbers of one audit as one line."""
    audit = expunge.audit(
        model, **rows, original=testbed.folder("original"), reference=testbed.folder("reference"),
        profile="fast", only=ATTACKS, cache=cache,
    )  # fmt: skip
    data = audit.data
    metric = {id: (data["metrics"].get(id) or {}).get("model") or {} for id in METRICS}
    return {
        "model": name,
        "utility": data["utility"]["value"],
        **{id: data["attacks"][id]["leak"]["model"] for id in ATTACKS},
        **{id: metric[id].get("mean") for id in METRICS},
        "failing": ", ".join(i for i in ATTACKS if data["attacks"][i]["outcome"] == "fail"),
    }


def write(lines: list[Line]) -> None:
    """The record and the page."""
    packages = {name: version(name) for name in ("expunge", "torch", "transformers")}
    record = {
        "command": "python benches/methods.py",
        "versions": packages | {"python": platform.python_version()},
        "lines": lines,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    (ROOT / "docs/results").mkdir(exist_ok=True)
    (ROOT / "docs/results/methods.md").write_text(page(record))


def page(record: dict) -> str:
    """The results page."""
    heads = [*ATTACKS, *METRICS, "utility"]
    versions = ", ".join(f"{name} {found}" for name, found in record["versions"].items())
    shown = [
        "# Methods on the embedded testbed",
        "",
        f"Written by `{record['command']}` ({versions}).",
        "Each method at its defaults (stop at the level of hold-out rows, then settle), on the "
        "shipped original: 80 forget rows of eight people. Columns after the model: share of the "
        "forget rows each attack gets out; metrics on the forget rows (forget quality is the p of "
        "a Kolmogorov-Smirnov test against the reference); utility relative to the original.",
        "",
        f"| model | seed | steps | CPU-s | {' | '.join(heads)} |",
        "|" + "---|" * (4 + len(heads)),
    ]
    for line in record["lines"]:
        cells = [
            line["model"],
            line.get("seed", ""),
            line.get("steps", ""),
            line.get("cpu_seconds", ""),
        ]
        shown.append(f"| {' | '.join(map(number, [*cells, *(line[head] for head in heads)]))} |")
    shown += ["", "## What each paper leads one to expect, and whether it shows here", ""]
    for method, (claim, holds) in PHENOMENA.items():
        mine = [line for line in record["lines"] if line["model"] == method]
        if mine:
            shows = sum(bool(holds(line)) for line in mine)
            shown.append(f"- **{method}**: {claim}: in {shows} of {len(mine)} seeds.")
    spent = fmean(line["cpu_seconds"] for line in record["lines"] if "cpu_seconds" in line)
    return "\n".join([*shown, "", f"Mean time of a run: {spent:.0f} CPU-seconds, one thread.", ""])


def number(value: float | str | int | None) -> str:
    """A cell."""
    if isinstance(value, float):
        return f"{value:.2g}" if abs(value) < 0.01 else f"{value:.2f}"
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main()
