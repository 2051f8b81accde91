"""What the gate costs and what it finds, for 10 to 100,000 invented targets.

Every number of targets has a process of its own, on one thread. Times are of single look-ups, of
each text the fastest of three: CPU time of the thread, and wall time beside it. Memory is what the
process grew by. Thresholds are set on one half of the harmless prompts and tried on the other.
Writes ``benches/results/guards.json`` and from it ``docs/results/guards.md``.

Run again:  python benches/guards.py [--targets 10,100,...] [--prompts 4000] [--asked 1000]
            [--seed 0]
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy is read

import guards_page
import numpy as np
from guards_world import Asked, World

from expunge.core.atomic import write_json, write_text
from expunge.core.rng import generator
from expunge.engine.guarding.calibration import Texts, calibrate
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.fitting import Working
from expunge.engine.guarding.ladder import Key, Ladder, Rung
from expunge.engine.guarding.pipeline import TEXT, Pipeline
from expunge.engine.guarding.rungs import full
from expunge.engine.guarding.rungs.decided import NEAR
from expunge.engine.guarding.targets import Target
from expunge.guards.lexical import Params
from expunge.requests.rows import Turn

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benches/results/guards.json"
PAGE = ROOT / "docs/results/guards.md"
PACKAGES = ("expunge", "numpy")
SECRET = bytes(range(32))
RATE = 0.01
BEYOND = 100_000
"""From this number on nobody is a target."""

ORDINARY = ("everyday tasks", "several sentences")
"""Kinds of harmless prompts that are not made to look like questions about targets."""

EARLY = 10
"""Thresholds are also set when only every so many-th part of the targets is there."""

LOOKS, TIMES = 200, 3
"""Prompts that are timed, and how often each; the fastest counts, since others use the machine."""

WORDS = 2_000
"""Length of the long prompt."""

DRAFT = "Warm air rises because it is less dense than the cold air around it."


class Kept:
    """A rung that keeps what it has found, so that thresholds can be set more than once."""

    def __init__(self, rung: Rung) -> None:
        self.rung, self.name, self.is_calibrated = rung, rung.name, rung.is_calibrated
        self.threshold, self.least = rung.threshold, getattr(rung, "least", 0.0)
        self._known: dict[tuple[str, int], list[tuple[str, float]]] = {}

    def key(self, target: Target) -> Key:
        return self.rung.key(target)

    def add(self, id: str, key: Key) -> None:
        self._known.clear()
        self.rung.add(id, key)

    def remove(self, id: str) -> None:
        self._known.clear()
        self.rung.remove(id)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        if (text, most) not in self._known:
            self._known[text, most] = self.rung.scores(text, most)
        return self._known[text, most]


def main() -> None:
    """One process for each number of targets, then the record and the page."""
    given = _options()
    if given.only:
        print(json.dumps(measured(given.only, given)))
        return
    record = {
        "sizes": [_apart(count) for count in given.targets],
        "rate": RATE,
        "prompts": given.prompts,
        "asked": given.asked,
        "command": "python benches/guards.py",
        "seed": given.seed,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }
    write_json(RECORD, record, indent=1)
    write_text(PAGE, guards_page.page(record))


def measured(count: int, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about one number of targets."""
    world = World(given.seed)
    harmless = world.harmless(given.prompts, BEYOND)
    order = generator(given.seed, "asked").permutation(count)[: given.asked]
    asked = world.reworded([int(number) for number in sorted(order)])
    ladder = Ladder([Kept(rung) for rung in full(SECRET).rungs], is_union=True)
    early = list(world.targets(0, max(1, count // EARLY)))
    stored = {rung.name: [0.0, 0.0] for rung in ladder.rungs}
    fill(ladder, early, stored)
    stale = {set: thresholds(ladder, harmless, set, len(early)) for set in ("ordinary", "all")}
    fill(ladder, world.targets(len(early), count), stored)
    found = {
        set: {
            "old": tried(ladder, harmless, asked, set, stale[set]),
            "new": tried(ladder, harmless, asked, set, thresholds(ladder, harmless, set, count)),
        }
        for set in ("ordinary", "all")
    }
    plain = Ladder([rung.rung for rung in ladder.rungs])  # type: ignore[attr-defined]
    looks = times(plain, harmless, asked, given.seed)
    return {
        "targets": count,
        "rungs": {
            name: {"add_us": seconds / count * 1e6, "megabytes": grown / 1e6, **looks[name]}
            for name, (seconds, grown) in stored.items()
        },
        "found": found,
        "worth_a_question": worth_a_question(ladder, harmless),
        "pipeline": piped(world, count, harmless, asked, given.seed),
    }


def fill(ladder: Ladder, targets: Any, stored: dict[str, list[float]]) -> None:
    """Take targets in, one rung after the other; adds up time and memory of each."""
    own = list(targets)
    for rung in ladder.rungs:
        gc.collect()
        before, began = resident(), time.thread_time()
        for target in own:
            rung.add(target.id, rung.key(target))
        stored[rung.name][0] += time.thread_time() - began
        stored[rung.name][1] += resident() - before


def thresholds(
    ladder: Ladder, harmless: dict[str, list[str]], kinds: str, count: int
) -> dict[str, float]:
    """Thresholds of the calibrated rungs, set on the first half of the prompts."""
    told = [one for kind in kinds_of(harmless, kinds) for one in halves(harmless[kind])[0]]
    made = calibrate(ladder, map(looked_at, told), targets=count, rate=RATE)
    return {**made.thresholds, "promised": made.rate}


def tried(
    ladder: Ladder,
    harmless: dict[str, list[str]],
    asked: dict[str, list[Asked]],
    kinds: str,
    set_to: dict[str, float],
) -> dict[str, Any]:
    """What fires under given thresholds: for harmless prompts of the other half, and for asked."""
    for rung in ladder.rungs:
        rung.threshold = set_to.get(rung.name, rung.threshold)
    each = {
        kind: [bool(ladder.hits(looked_at(one))) for one in halves(told)[1]]
        for kind, told in harmless.items()
    }
    mine = [fired for kind in kinds_of(harmless, kinds) for fired in each[kind]]
    return {
        "thresholds": set_to,
        "false": {kind: float(np.mean(fired)) for kind, fired in each.items()},
        "false_together": float(np.mean(mine)),
        "tried": len(mine),
        "recall": {way: recalled(ladder, told) for way, told in asked.items() if told},
    }


def recalled(ladder: Ladder, asked: Sequence[Asked]) -> dict[str, Any]:
    """Share of questions that fire, that find their own target, and that a rung fires for."""
    hits = [(one.target, ladder.hits(looked_at(one.text))) for one in asked]
    rungs = {}
    for rung in ladder.rungs:
        alone = Ladder([rung])
        rungs[rung.name] = float(np.mean([bool(alone.hits(looked_at(a.text))) for a in asked]))
    return {
        "asked": len(asked),
        "fired": float(np.mean([bool(found) for _, found in hits])),
        "own": float(np.mean([any(hit.target == id for hit in found) for id, found in hits])),
        "rungs": rungs,
    }


def worth_a_question(ladder: Ladder, harmless: dict[str, list[str]]) -> dict[str, float]:
    """Share of harmless prompts for which a model of typed decisions would be asked."""
    near = [rung for rung in ladder.rungs if rung.is_calibrated]

    def is_asked(text: str) -> bool:
        return any(s > NEAR * rung.threshold for rung in near for _, s in rung.scores(text, 20))

    return {
        kind: float(np.mean([is_asked(one) for one in halves(told)[1]]))
        for kind, told in harmless.items()
    }


def times(
    ladder: Ladder, harmless: dict[str, list[str]], asked: dict[str, list[Asked]], seed: int
) -> dict[str, dict[str, Any]]:
    """What a look-up of each rung costs: harmless prompts, questions about targets, a long one."""
    clean, about = drawn(harmless, asked, seed)
    long = " ".join(clean * (1 + WORDS // 10)).split()[:WORDS]
    texts = {"clean": clean, "about": about, "long": [" ".join(long)] * 5}
    found: dict[str, dict[str, Any]] = {}
    for rung in ladder.rungs:
        look = lambda text, rung=rung: rung.scores(text, 20)  # noqa: E731
        found[rung.name] = {kind: timed(look, told) for kind, told in texts.items()}
    return found


def piped(
    world: World,
    count: int,
    harmless: dict[str, list[str]],
    asked: dict[str, list[Asked]],
    seed: int,
) -> dict[str, Any]:
    """The lexical guard in its pipeline: question and answer, let through and stopped."""
    gc.collect()
    before = resident()
    working = Working("lexical", Params(), Means(secret=SECRET))
    began = time.thread_time()
    for target in world.targets(0, count):
        working.take(target.id, working.entry(target))
    working.settle([])
    spent = time.thread_time() - began
    pipeline = Pipeline([working], offers=TEXT)

    def pass_through(text: str) -> bool:
        exchange = Exchange.of(Turn(text, ""))
        entered = pipeline.enter(exchange)
        return entered is exchange and pipeline.leave(exchange, DRAFT) is DRAFT

    clean, _ = drawn(harmless, asked, seed)
    named = [one.text for one in asked.get("named", ())][:LOOKS]
    return {
        "add_us": spent / count * 1e6,
        "megabytes": (resident() - before) / 1e6,
        "clean": timed(pass_through, clean),
        "fired": timed(pass_through, named),
        "clean_stopped": float(np.mean([not pass_through(text) for text in clean])),
        "named_stopped": float(np.mean([not pass_through(text) for text in named])),
        "errors": sum(pipeline.errors.values()),
    }


def drawn(
    harmless: dict[str, list[str]], asked: dict[str, list[Asked]], seed: int
) -> tuple[list[str], list[str]]:
    """Prompts to be timed, mixed."""
    clean = [text for told in harmless.values() for text in told]
    about = [one.text for told in asked.values() for one in told]
    draw = generator(seed, "timed")
    return tuple(
        [told[at] for at in draw.permutation(len(told))[:LOOKS]] for told in (clean, about)
    )  # type: ignore[return-value]


def timed(look: Callable[[str], Any], texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of single calls: CPU time of the thread, and wall time; over texts."""
    spent, waited = [], []
    for text in texts:
        each = [_once(look, text) for _ in range(TIMES)]
        spent.append(min(cpu for cpu, _ in each))
        waited.append(min(wall for _, wall in each))
    cpu, wall = np.percentile(spent, [50, 95]), np.percentile(waited, [50, 95])
    return {"p50": cpu[0], "p95": cpu[1], "wall_p50": wall[0], "wall_p95": wall[1]}


def _once(look: Callable[[str], Any], text: str) -> tuple[float, float]:
    began, start = time.perf_counter(), time.thread_time()
    look(text)
    return (time.thread_time() - start) * 1e3, (time.perf_counter() - began) * 1e3


def looked_at(text: str) -> Texts:
    """What a gate looks at when a client asks this."""
    return Exchange.of(Turn(text, "")).texts


def kinds_of(harmless: dict[str, list[str]], kinds: str) -> Sequence[str]:
    """The kinds of prompts of a set."""
    return ORDINARY if kinds == "ordinary" else tuple(harmless)


def halves(told: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Every other prompt, and the rest."""
    return told[::2], told[1::2]


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _apart(count: int) -> dict[str, Any]:
    """`measured` in a process of its own."""
    print(f"{count:,} targets", file=sys.stderr)
    told = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--only", str(count)],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return json.loads(told.stdout)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = lambda text: [int(one) for one in text.split(",")]  # noqa: E731
    parser.add_argument("--targets", type=numbers, default=[10, 100, 1_000, 10_000, 100_000])
    parser.add_argument("--prompts", type=int, default=4_000, help="harmless ones")
    parser.add_argument("--asked", type=int, default=1_000, help="most targets asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
