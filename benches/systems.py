"""Systems side by side, on the testbed and on TOFU cut to 20 authors.

On the testbed every system runs as ``expunge forget`` runs it (it stops at the level of hold-out
rows, then settles) and is audited with the attacks in `ATTACKS`; on TOFU it makes the papers' fixed
number of steps and is measured. A line that is in the table's record is kept, so a stopped study
goes on where it was. A table is a file of its own, such as benches/optimisation.py:

    python benches/optimisation.py [--seeds 3] [--systems npo,blur] [--processes 2] [--again]
                                   [--tofu DATA [--tofu-models DIR]]
"""

import json
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from baselines import (
    asked_for,
    compute,
    go_through,
    of_reference,
    opened,
    probability,
    relearned,
    rounded,
)
from baselines_sites import Site, site
from systems_page import page

from expunge.audit.run import audit
from expunge.core.errors import ExpungeError
from expunge.engine.run import forget
from expunge.lm.readings import Readings

ROOT = Path(__file__).parent.parent
ATTACKS = ("direct", "prob", "prefix", "sample", "lens", "lens-exit", "relearn-in", "quant4")
MOST_RETAIN = 100
GIVEN = ("original", "reference")
"""Models of a site that no system made."""
BASE = "BASE"


@dataclass(frozen=True, slots=True)
class System:
    """One system as it is run.

    Attributes:
        method: The method.
        wrappers: What is wrapped around it.
        params: Settings beside its defaults; the value `BASE` stands for the folder of the model
            that the site's models were trained from.
    """

    method: str
    wrappers: tuple[str, ...] = ()
    params: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Systems that share a page.

    Attributes:
        name: Of the page, of its record, and of the command that writes both.
        title: Heading of the page.
        systems: Name -> how it is run; the first is plain fine-tuning, which costs are told by.
    """

    name: str
    title: str
    systems: Mapping[str, System]

    @property
    def command(self) -> str:
        """What makes the table anew."""
        return f"python benches/{self.name}.py --tofu DATA"

    @property
    def record(self) -> Path:
        """Where its lines are kept."""
        return ROOT / f"benches/results/{self.name}.json"

    @property
    def studies(self) -> Path:
        """Where the small studies of its systems are kept."""
        return ROOT / f"benches/results/{self.name}_studies.json"

    @property
    def page(self) -> Path:
        """Where people read it."""
        return ROOT / f"docs/results/{self.name}.md"


@dataclass(frozen=True, slots=True)
class Job:
    """One line of a table; a given model has no system."""

    site: str
    name: str
    seed: int = 0
    system: System | None = None

    @property
    def key(self) -> str:
        """What it is kept under."""
        return f"{self.site}/{self.name}/{self.seed}"


def compare(table: Table) -> None:
    """Run what is missing of a table and write its record and its page."""
    given, sites = asked_for(f"{table.title}: docs/results/{table.name}.md", systems="")
    chosen = [name.strip() for name in given.systems.split(",") if name] or list(table.systems)
    lines: dict[str, Any] = {} if given.again else stored(table)
    wanted = [Job(where, name) for where in sites for name in GIVEN]
    wanted += [
        Job(where, name, seed, table.systems[name])
        for seed in range(given.seeds)
        for where in sites
        for name in chosen
    ]
    missing = [job for job in wanted if job.key not in lines]
    go_through(run, missing, lines, given.processes, lambda: write(table, lines))


def run(job: Job) -> dict[str, Any]:
    """Make one model and measure it."""
    torch.set_num_threads(1)
    where, system = site(job.site), job.system
    line: dict[str, Any] = {
        "key": job.key, "site": job.site, "name": job.name, "seed": job.seed,
    }  # fmt: skip
    if system is None:
        return line | evaluated(where, where.folders[job.name])
    way = {} if job.site == "testbed" else {"stop_at": "none"}
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        try:
            done = forget(
                where.folders["original"], **where.rows, method=system.method,
                wrappers=system.wrappers, params=settings(system, where), seed=job.seed,
                out=Path(folder) / "out", **way,
            )  # fmt: skip
        except ExpungeError as error:
            return line | {"failed": str(error)[:300]}
        line |= {
            "cpu_seconds": round(time.process_time() - before, 1), "steps": done["steps"],
            "stopped_by": done["stopped_by"], "collapsed": done["collapsed"],
            "forget_nll": done["forget_nll"],
        }  # fmt: skip
        return line | evaluated(where, Path(folder) / "out")


def settings(system: System, where: Site) -> dict[str, Any]:
    """A system's own settings at a site; what has no base there has none here either."""
    base = where.folders.get("base")
    given = {name: value for name, value in system.params if value != BASE}
    begun = {name: str(base) for name, value in system.params if value == BASE and base}
    return given | begun


def evaluated(where: Site, folder: Path) -> dict[str, Any]:
    """What the page says of one model."""
    subject = opened(folder)
    readings = Readings(subject, where.asked["forget"], where.new_tokens)
    fit = compute("forget-quality", readings, of_reference(where.name))
    found: dict[str, Any] = {
        "probability": compute("probability", readings).mean,
        "extraction-strength": compute("extraction-strength", readings).mean,
        "forget-quality": fit.mean,
        "d": fit.parts["d"],
        "retain-probability": probability(subject, where.asked["retain"][:MOST_RETAIN]),
        "int4": rounded(where, subject),
        **relearned(where, subject),
    }
    return found | (audited(where, folder) if where.can_answer else {})


def audited(where: Site, folder: Path) -> dict[str, Any]:
    """What an audit says of one model."""
    done = audit(
        opened(folder), **where.rows, original=opened(where.folders["original"]),
        reference=opened(where.folders["reference"]), profile="fast", only=ATTACKS,
        cache=kept(where.name),
    ).data  # fmt: skip
    useful = done["utility"] or {}
    return {
        "verdict": done["verdict"],
        "erasure": done["erasure_score"],
        "utility": useful.get("value"),
        "neighbour": _ratio(useful.get("neighbour")),
        **{f"xr-{id}": done["attacks"][id]["recovery"] for id in ("relearn-in", "quant4")},
    }


@cache
def kept(name: str) -> Path:
    """Where what the original and the reference gave away is kept, for the audits of a process."""
    return Path(tempfile.mkdtemp(prefix=f"expunge-{name}-"))


def _ratio(part: Mapping[str, float] | None) -> float | None:
    return part["model"] / part["original"] if part and part["original"] else None


def stored(table: Table) -> dict[str, Any]:
    """The lines of the last run."""
    if not table.record.is_file():
        return {}
    return {line["key"]: line for line in json.loads(table.record.read_text())["lines"]}


def write(table: Table, lines: Mapping[str, Any]) -> None:
    """The record and the page."""
    packages = {name: version(name) for name in ("expunge", "torch", "transformers")}
    names = [*GIVEN, *table.systems]

    def place(line: Mapping[str, Any]) -> Any:
        return line["site"], names.index(line["name"]), line["seed"]

    ordered: Sequence[Mapping[str, Any]] = sorted(
        (line for line in lines.values() if line["name"] in names), key=place
    )
    record = {
        "command": table.command,
        "versions": packages | {"python": platform.python_version()},
        "lines": ordered,
    }
    table.record.write_text(json.dumps(record, indent=1) + "\n")
    small = json.loads(table.studies.read_text()) if table.studies.is_file() else {}
    run = {line["name"] for line in ordered}
    left = [name for name in table.systems if name not in run]
    table.page.write_text(page(table.title, table.name, record, small, left))
