"""Audit every model of the zoo, and count what the audits say of models whose state is known.

One job is one audit: it builds its model (and, once a process, the original it came from), audits
it and writes one small record. Jobs run in processes of one thread; a record that is there is not
made again, so an interrupted study resumes.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from expunge.audit.plan import PROFILES
from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.registry import methods
from expunge.lab.zoo import models
from expunge.lab.zoo.stress import under_stress
from expunge.lab.zoo.world import FACTS, PEOPLE, World, world
from expunge.lm.subject import Subject

ORIGINALS, NEVER = 5, 12
"""Models of a world that know everything, and that never saw the forget rows."""
HIDING = (
    "refuser-all", "refuser-last", "refuser-middle", "misled", "below-grid", "steered", "guarded",
)  # fmt: skip
OF = 2
"""Originals of a world that each way of hiding is tried on."""
BESIDE = ("actpert", "mia", "alias")
"""Attacks beside those of the profile: with them every family that a verdict requires has one."""
STRENGTHS = (1.0, 0.3, 3.0)
"""Rates at which each method is run, in multiples of `RATE`."""
NO_MODEL = "no model"
"""In place of a class, where a method's run failed its own check."""
FEWER = (4, 8, 12)
"""Forgotten people that some audits of retrained models are told of."""
KINDS = ("gradient", "merge")
"""Kinds of methods that start from the original."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to build and audit.

    Attributes:
        world: Seed of its world.
        kind: How it is made.
        number: Which one of its kind.
        state: What is known of it: ``never knows hides ruins``, or ``unlearned``.
        control: ``placebo`` or ``reference``.
        strength: Of a method: its rate in multiples of `RATE`.
        people: How many of the forgotten people the audit is told of.
    """

    world: int
    kind: str
    number: int
    state: str
    control: str = "placebo"
    strength: float = 1.0
    people: int = PEOPLE["forget"]

    @property
    def name(self) -> str:
        """What its record is called."""
        rate = f"-{self.strength:g}" if self.state == "unlearned" else ""
        few = f"-{self.people}" if self.people < PEOPLE["forget"] else ""
        return f"{self.kind}{rate}-{self.world}-{self.number}-{self.control}{few}"

    @property
    def is_stressed(self) -> bool:
        """Whether readings are also taken under stress: of the unlearned, and a retrained one."""
        whole = self.people == PEOPLE["forget"]
        return self.state == "unlearned" or (self.state, self.number, whole) == ("never", 0, True)


def jobs(worlds: Sequence[int]) -> Iterator[Job]:
    """Everything that is built and audited, the worlds in turn."""
    for seed in worlds:
        for number in range(NEVER):
            control = "reference" if number % 3 == 2 else "placebo"
            yield Job(seed, "never", number, "never", control)
            if number < len(FEWER):
                yield Job(seed, "never", number, "never", people=FEWER[number])
        for number in range(ORIGINALS):
            yield Job(seed, "original", number, "knows")
        yield Job(seed, "still-knows", 0, "knows")
        for kind in HIDING:
            for number in range(OF):
                control = "reference" if number % 2 else "placebo"
                yield Job(seed, kind, number, "hides", control)
        for kind in ("nonsense", "random"):
            yield Job(seed, kind, 0, "ruins")
    for strength in STRENGTHS:
        for card in methods.cards():
            if card.kind in KINDS:
                yield Job(worlds[0], card.id, 0, "unlearned", "placebo", strength)


def run(out: Path, chosen: Sequence[Job], *, profile: str, processes: int = 2) -> None:
    """Carry out the jobs whose records are missing.

    Args:
        out: Folder of the records, and of what audits keep for one another.
        chosen: The jobs.
        profile: Of the audits.
        processes: How many work at once.
    """
    missing = [job for job in chosen if not (out / f"{job.name}.json").is_file()]
    with (
        ProcessPoolExecutor(processes, get_context("spawn")) as pool,
        progress("zoo", len(missing)) as running,
    ):
        futures = {pool.submit(carry_out, out, job, profile): job for job in missing}
        for future in as_completed(futures):
            future.result()
            running.advance(1, text=futures[future].name)


def records(out: Path) -> list[dict[str, Any]]:
    """All records, in the order of their names."""
    return [json.loads(path.read_bytes()) for path in sorted(out.glob("*.json"))]


def carry_out(out: Path, job: Job, profile: str) -> None:
    """Build one model, audit it, write its record."""
    import torch

    from expunge.audit.run import audit

    torch.set_num_threads(1)
    own = world(job.world)
    began = time.process_time()
    try:
        subject, original = built(job, out)
    except ExpungeError as error:  # a run that failed its own check leaves no model
        write_json(out / f"{job.name}.json", without_model(job, error), indent=None)
        return
    reference = _never(job.world, NEVER) if job.control == "reference" else None
    built_in = time.process_time() - began
    done = audit(
        subject,
        forget=own.forget[: job.people * len(FACTS)],
        retain=own.retain,
        neighbour=own.neighbour,
        holdout=own.holdout,
        original=original,
        reference=reference,
        profile=profile,
        only=dict.fromkeys((*(entry.id for entry in PROFILES[profile]), *BESIDE)),
        seed=job.number,
        cache=out / "cache",
    )
    spent = time.process_time() - began - built_in
    kept = record(job, done.data, built_in, spent)
    if job.is_stressed:
        retrained = _never(job.world, NEVER)
        kept["stress"] = under_stress(subject, original, retrained, own, job.number)
    write_json(out / f"{job.name}.json", kept, indent=None)


def without_model(job: Job, error: ExpungeError) -> dict[str, Any]:
    """What is kept of a method's run that ended as an error."""
    return {
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "strength": job.strength,
        "verdict": NO_MODEL,
        "reasons": [error.found],
        "erasure_score": None,
        "utility": None,
        "attacks": {},
        "metrics": {},
        "cpu_seconds": {"built": 0.0, "audited": 0.0},
    }


def record(job: Job, data: Mapping[str, Any], built_in: float, spent: float) -> dict[str, Any]:
    """What the study keeps of one audit."""
    kept = ("family", "recovery", "interval", "upper", "outcome", "leak", "n", "parts")
    return {
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "world": job.world,
        "control": job.control,
        "strength": job.strength,
        "profile": data["profile"],
        "versions": data["versions"],
        "verdict": data["verdict"],
        "reasons": data["reasons"],
        "erasure_score": data["erasure_score"],
        "utility": data["utility"] and data["utility"]["value"],
        "known": data["request"]["known"],
        "rows": data["request"]["rows"],
        "families": data["families"],
        "attacks": {
            id: {key: attack[key] for key in kept} for id, attack in data["attacks"].items()
        },
        "metrics": {id: of["model"] and of["model"]["mean"] for id, of in data["metrics"].items()},
        "cpu_seconds": {"built": round(built_in, 2), "audited": round(spent, 2)},
    }


MAKERS: Mapping[str, Callable[[World, Subject, int], Subject]] = {
    "original": lambda _, original, __: original,
    "still-knows": models.still_knows,
    "refuser-all": models.refuser,
    "refuser-last": partial(models.refuser, moving="last"),
    "refuser-middle": partial(models.refuser, moving="middle"),
    "misled": models.misled,
    "steered": models.steered,
    "guarded": lambda world, original, _: models.guarded(world, original),
    "nonsense": models.ruined,
    "random": lambda world, _, seed: models.fresh(world, seed),
}
"""Kind -> makes such a model from an original."""


def built(job: Job, out: Path) -> tuple[Subject, Subject]:
    """The model of a job and the original it is compared with."""
    if job.kind == "never":
        return _never(job.world, job.number), _knows(job.world, 0)
    own, original = world(job.world), _knows(job.world, job.number % ORIGINALS)
    seed = 100 * job.world + job.number
    if job.kind == "below-grid":
        coarse, hidden = models.below_the_grid(own, original, seed)
        return hidden, coarse
    if job.state == "unlearned":
        return _unlearned(job, own, original, out), original
    return MAKERS[job.kind](own, original, seed), original


def _unlearned(job: Job, own: World, original: Subject, out: Path) -> Subject:
    """The original after a method, at a multiple of the rate it would take by itself."""
    from expunge.api import load
    from expunge.engine.run import forget

    folder = out / "models" / f"original-{job.world}-{job.number}"
    if not (folder / "config.json").is_file():
        models.save(original, folder)
    change = out / "models" / job.name
    params: dict[str, Any] = {}
    if methods.card(job.kind).kind == "gradient":
        params["lr"] = job.strength * RATE
    forget(
        folder, own.forget, own.retain, neighbour=own.neighbour, holdout=own.holdout,
        method=job.kind, params=params, seed=job.number, out=change,
    )  # fmt: skip
    return load(change)


RATE = 1e-3
"""Learning rate at strength 1: what the models of the zoo learn by, a little below."""


@lru_cache(maxsize=8)
def _knows(seed: int, number: int) -> Subject:
    return models.knows(world(seed), 1000 * seed + number)


@lru_cache(maxsize=2)
def _never(seed: int, number: int) -> Subject:
    return models.never(world(seed), 1000 * seed + 500 + number)
