"""The baselines on the embedded testbed and on TOFU cut to 20 authors: docs/results/baselines.md.

On the testbed each method runs three ways: *papers*, a fixed number of steps with no stop level,
three seeds; *ours*, the defaults of ``expunge forget`` (stop at the level of hold-out rows, then
settle), three seeds; and a few *variants* that show a phenomenon at another setting. On TOFU one
seed, papers' way. A line that is in benches/results/baselines.json with the same settings is kept,
so a stopped study goes on where it was.

    python benches/baselines.py [--seeds 3] [--methods npo,ga] [--again] [--processes 2]
                                [--tofu DATA [--tofu-models DIR]]
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines_page import page
from baselines_sites import TOFU, Site, site
from scipy.stats import mannwhitneyu

from expunge.api import load
from expunge.audit.utility import answers, strata, utility
from expunge.core.errors import ExpungeError
from expunge.core.registry import metrics
from expunge.engine.run import forget
from expunge.lm.quantise import quantise_rtn
from expunge.lm.readings import Readings
from expunge.lm.relearn import attack_rate
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/baselines.json"
PAGE = ROOT / "docs/results/baselines.md"
RELEARNING = (5, 10, 40)
"""Steps of training on the forget rows themselves after which they are scored again."""
LOWEST = 0.4
"""Share of a row's least probable tokens that the membership score averages (min-k)."""
CHOSEN = frozenset({"lr", "max_steps", "forget_weight", "layer", "steering"})
"""Settings that a variant is known by."""
MOST_RETAIN = 100
"""Retain rows whose probability is taken."""
METRICS = ("probability", "exact-memorisation", "extraction-strength")

BASELINES = tuple(
    [
        "altpo",
        "arm",
        "ceu",
        "elm",
        "ft-retain",
        "ga",
        "grad-diff",
        "idk-dpo",
        "idk-nll",
        "kl-min",
        "llmu",
        "npo",
        "pdu",
        "retrain",
        "rmu",
        "rr",
        "satimp",
        "simnpo",
        "task-vector",
        "undial",
        "wga",
    ]
)
"""Methods of the page; others stand on that of the optimisation systems or of all the rest."""

WAYS: dict[str, dict[str, Any]] = {"papers": {"stop_at": "none"}, "ours": {}}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ga, 80 steps": ("ga", {"max_steps": 80, "lr": 4e-4, "max_forget_nll": None}),
    "ga, small rate": ("ga", {"max_steps": 300, "lr": 5e-5, "max_forget_nll": None}),
    "npo, small rate": ("npo", {"max_steps": 240, "lr": 1e-4}),
    "rmu, block 2": ("rmu", {"layer": 2, "steering": 8.0, "lr": 2e-3}),
    "simnpo, gamma 1": ("simnpo", {"forget_weight": 1.0}),
}
"""Name -> method and settings at which a known phenomenon is looked for: papers' way, seed 0."""


RECIPE = {"epochs": 16, "lr": 2e-3, "batch_size": 16, "schedule": "cosine"}
"""How the testbed's own models were trained from its base (they also rehearse what it knew)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One line of the table."""

    name: str
    site: str = "testbed"
    way: str = "given"
    method: str | None = None
    seed: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Two lines with equal keys are the same run."""
        settings = "".join(f" {k}={v}" for k, v in sorted(self.params.items()) if k in CHOSEN)
        return f"{self.site}/{self.name}/{self.way}/{self.seed}{settings}"


def main() -> None:
    """Run what is missing and write the record and the page."""
    given, sites = asked_for(__doc__, methods="", ways=",".join(WAYS))
    chosen = [name for name in given.methods.split(",") if name] or list(BASELINES)
    ways = [way for way in given.ways.split(",") if way]
    lines: dict[str, Any] = {line["key"]: line for line in stored().get("lines", [])}
    wanted = jobs(chosen, ways, given.seeds, sites)
    missing = [job for job in wanted if given.again or job.key not in lines]
    go_through(run, missing, lines, given.processes, lambda: write(ordered(lines)))


def asked_for(about: str | None, **named: str) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command that compares on both sites, and the sites, whose models are built.

    Args:
        about: What the command says of itself.
        named: Further options with their defaults.
    """
    asked = argparse.ArgumentParser(description=about)
    asked.add_argument("--seeds", type=int, default=3)
    for name, default in named.items():
        asked.add_argument(f"--{name}", default=default)
    asked.add_argument("--processes", type=int, default=2)
    asked.add_argument("--again", action="store_true", help="do not keep stored lines")
    asked.add_argument("--tofu", default="", help="folder with the upstream TOFU files")
    asked.add_argument("--tofu-models", default="tofu-tiny", help="where those models are built")
    given = asked.parse_args()
    if given.tofu:
        os.environ[TOFU] = os.pathsep.join([given.tofu, given.tofu_models])
    sites = ["testbed", "tofu"] if given.tofu else ["testbed"]
    for name in sites:
        site(name)
    return given, sites


def go_through(
    run: Callable[[Any], dict[str, Any]],
    missing: Sequence[Any],
    lines: dict[str, Any],
    processes: int,
    write: Callable[[], None],
) -> None:
    """Run jobs; each line is kept, told and written as soon as it is there."""
    for line in measured(run, missing, processes):
        lines[line["key"]] = line
        print(json.dumps(line), flush=True)
        write()
    write()


def jobs(
    chosen: Sequence[str], ways: Sequence[str], seeds: int, sites: Sequence[str]
) -> Iterator[Job]:
    """Every line, the two given models first."""
    for where in sites:
        yield Job("original", where)
        yield Job("reference", where)
    yield from _on_testbed(chosen, ways, 0)
    for name, (method, params) in VARIANTS.items():
        if method in chosen:
            yield Job(name, "testbed", "papers", method, 0, params)
    if "tofu" in sites:
        for method in (m for m in chosen if m != "retrain"):  # it has no base but nothing at all
            yield Job(method, "tofu", "papers", method, 0, needed(method, "tofu", "papers"))
    for way in ways:
        for seed in range(1, seeds):
            yield from _on_testbed(chosen, [way], seed)


def _on_testbed(chosen: Sequence[str], ways: Sequence[str], seed: int) -> Iterator[Job]:
    for method in chosen:
        for way in ways:
            yield Job(method, "testbed", way, method, seed, needed(method, "testbed", way))


def needed(method: str, where: str, way: str) -> dict[str, Any]:
    """What a method cannot do without, and stop rules of its own that the papers' way has not."""
    base = site(where).folders.get("base")
    if method == "retrain" and base:
        return {"base": str(base)} | RECIPE
    return {"max_forget_nll": None} if method == "ga" and way == "papers" else {}


def measured(
    run: Callable[[Any], dict[str, Any]], missing: Sequence[Any], processes: int
) -> Iterator[dict[str, Any]]:
    """Run jobs side by side, one thread each."""
    if processes == 1:
        yield from map(run, missing)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, job) for job in missing]):
            yield done.result()


def run(job: Job) -> dict[str, Any]:
    """Make one model and measure it."""
    torch.set_num_threads(1)
    where = site(job.site)
    line: dict[str, Any] = {
        "key": job.key, "site": job.site, "name": job.name, "way": job.way, "seed": job.seed,
    }  # fmt: skip
    if job.method is None:
        return line | evaluated(where, where.folders[job.name])
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        try:
            done = forget(
                where.folders["original"], **where.rows, method=job.method,
                params=dict(job.params), seed=job.seed, out=Path(folder) / "out", **WAYS[job.way],
            )  # fmt: skip
        except ExpungeError as error:
            return line | {"failed": str(error)[:300]}
        line |= {
            "cpu_seconds": round(time.process_time() - before, 1),
            "steps": done["steps"], "stopped_by": done["stopped_by"], "lr": done["lr"],
            "collapsed": done.get("collapsed"),
        }  # fmt: skip
        return line | evaluated(where, Path(folder) / "out")


def evaluated(where: Site, folder: Path) -> dict[str, Any]:
    """Everything the page says of one model."""
    subject = opened(folder)
    readings = Readings(subject, where.asked["forget"], where.new_tokens)
    values = {id: compute(id, readings) for id in METRICS}
    fit = compute("forget-quality", readings, of_reference(where.name))
    return {
        **{id: value.mean for id, value in values.items()},
        "forget-quality": fit.mean, "d": fit.parts["d"],
        "direct": direct(where, subject),
        "utility": useful(where, subject),
        "retain-probability": probability(subject, where.asked["retain"][:MOST_RETAIN]),
        "auc": membership(where, subject),
        **relearned(where, subject),
        "benign": after_training(where, subject, where.rows["retain"], (40,))[40],
        "int4": rounded(where, subject),
    }  # fmt: skip


def compute(metric: str, readings: Readings, reference: Readings | None = None) -> Any:
    """One metric from readings."""
    module = metrics.load(metric)
    wanted = [need for need in module.CARD["needs"] if need != "reference"]

    def table(made: Readings) -> dict[str, Any]:
        return {name: dict(made.get(name)) for name in wanted}

    other = None if reference is None else table(reference)
    return module.compute(table(readings), metrics.params(metric, {}), other)


def opened(folder: Path) -> Subject:
    """A model from its folder, with what its change puts into it."""
    return load(folder)


@cache
def of_reference(name: str) -> Readings:
    """Readings of the retrained reference."""
    where = site(name)
    return Readings(opened(where.folders["reference"]), where.asked["forget"], where.new_tokens)


def direct(where: Site, subject: Subject) -> float | None:
    """Share of forget rows whose value the model gives when asked plainly."""
    if not where.can_answer:
        return None
    return float(answers(subject, where.asked["forget"], where.new_tokens).recall.mean())


def useful(where: Site, subject: Subject) -> float | None:
    """Utility relative to the original, as audits measure it."""
    if not where.can_answer:
        return None
    groups = strata(where.rows["retain"], where.rows["neighbour"])
    found = utility(kept(where, subject), kept_by_original(where.name), groups, 0, replicates=1)
    return float(found.value)


def kept(where: Site, subject: Subject) -> Any:
    """What a model still answers."""
    return answers(subject, [*where.rows["retain"], *where.rows["neighbour"]], where.new_tokens)


@cache
def kept_by_original(name: str) -> Any:
    """What the original answers."""
    return kept(site(name), opened(site(name).folders["original"]))


def membership(where: Site, subject: Subject) -> float:
    """AUC of telling forget rows from hold-out rows by their least probable tokens (min-k)."""
    forgotten, never = (lowest(subject, where.rows[role]) for role in ("forget", "holdout"))
    found = mannwhitneyu(forgotten, never).statistic
    return float(found) / (len(forgotten) * len(never))


def lowest(subject: Subject, rows: Sequence[Row]) -> list[float]:
    """Mean of the lowest share of token log-probabilities of each row."""
    scored = subject.score([row.turn for row in rows])
    return [np.sort(s.logp)[: max(1, int(LOWEST * len(s.logp)))].mean() for s in scored]


def relearned(where: Site, subject: Subject) -> dict[str, float]:
    """Forget probability after training on the forget rows themselves."""
    curve = after_training(where, subject, where.rows["forget"], RELEARNING)
    return {f"relearn-{step}": curve[step] for step in RELEARNING}


def after_training(
    where: Site, subject: Subject, lesson: Sequence[Row], steps: Sequence[int]
) -> dict[int, float]:
    """Mean forget probability of a copy after some steps on a lesson."""
    student, curve = subject.copy(), {}

    def look(step: int) -> None:
        curve[step] = probability(student, where.asked["forget"])

    student.train(
        lesson, steps=max(steps), lr=attack_rate(subject), batch_size=16, seed=0,
        checkpoints=set(steps), on_step=look,
    )  # fmt: skip
    return curve


def probability(subject: Subject, rows: Sequence[Row]) -> float:
    """Mean over rows of the length-normalised probability of the answer."""
    return float(np.mean([np.exp(-s.nll) for s in subject.score([row.turn for row in rows])]))


def rounded(where: Site, subject: Subject) -> float:
    """Forget probability after rounding the weights to 4 bits."""
    copy = subject.copy()
    quantise_rtn(copy.model, 4, 128)
    return probability(copy, where.asked["forget"])


def stored() -> dict[str, Any]:
    """The record of the last run."""
    return json.loads(RECORD.read_text()) if RECORD.is_file() else {}


def ordered(lines: Mapping[str, Any]) -> list[Any]:
    """Lines in the order of the table; those of methods and variants long gone are dropped."""
    known = ["original", "reference", *BASELINES]

    def place(line: Mapping[str, Any]) -> Any:
        name = line["name"].partition(",")[0]
        return line["site"], known.index(name), name != line["name"], line["way"], line["seed"]

    variants = {Job(n, "testbed", "papers", m, 0, p).key for n, (m, p) in VARIANTS.items()}
    kept = [x for x in lines.values() if x["name"] in known or x["key"] in variants]
    return sorted(kept, key=place)


def write(lines: Sequence[Mapping[str, Any]]) -> None:
    """The record and the page."""
    packages = {name: version(name) for name in ("expunge", "torch", "transformers")}
    record = {
        "command": "python benches/baselines.py --tofu DATA",
        "versions": packages | {"python": platform.python_version()},
        "lines": lines,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(record))


if __name__ == "__main__":
    sys.exit(main())
