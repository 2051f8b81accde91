"""MELU, modular entity-level sampling: which retain row stands beside which forget row.

Objective:
    that of the wrapped method; only the pairs (f, r) of a step are others. One pass has

    none            (f_i)                               no retain rows at all
    sequential      (f_i, r_i)                          the first |F| retain rows
    random          (f_i, r_u),  u drawn anew           as in TOFU
    cyclic          (f_{i mod |F|}, r_{i mod |R|})      i < max(|F|, |R|)
    direct_only     cyclic over direct neighbours and general rows; indirect_only likewise
    balanced        cyclic over equally many rows of every kind
    melu            per entity (f_{i mod m}, n_{i mod k}),  i < max(m, k), over its m forget rows
                    and its k neighbours, direct or indirect

    So under melu a forget row meets neighbours of its own entity only, and where these are more
    than the forget rows, each of them once. General rows belong to no entity: each stands once
    beside a forget row drawn at random. What makes a retain row a neighbour, and of whom, stands
    in `expunge.engine.related`; one that is a neighbour of several entities goes to the one that
    has the fewest so far.

    A pass of cyclic shows each forget row |R| / |F| times, so equal epochs would be runs of
    different length: an epoch counts the steps of a pass over the forget rows whatever the mode
    (``match_steps=no`` for passes over the pairs).

Reference: Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning, 2025.

Departs from the paper:
    There the kinds and entities are columns of the data; here they are found where they are not
    given (INFERRED). There an entity without neighbours is left out, and so never forgotten; here
    it meets general rows, or any where there are none. Its balanced set leaves general rows
    uncut; here all kinds count alike, and what is cut off in one pass comes in the next. That
    pairs are shuffled over the modules is the default of the authors' trainer. On a tiny model of
    forty people, at equal steps, sequential kept least, general rows included; that melu keeps
    neighbours better than random pairs or cyclic does not show there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine.related import KINDS, Kind, entities_of, related
from expunge.engine.slots.sample import Draw
from expunge.engine.task import Task

CARD = {
    "id": "melu",
    "kind": "wrapper",
    "summary": "Pairs each forget row with rows to be kept of its own entity, or by simpler rules.",
    "paper": "Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "nothing",
    "maturity": "paper",
    "version": 1,
    "value": "mode",
}

Pair = tuple[int, int | None]
"""A forget row and the retain row beside it."""

Modules = Sequence[Sequence[Pair]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How rows are paired, and in which order the pairs come."""

    mode: Literal[
        "none", "sequential", "random", "cyclic", "direct_only", "indirect_only", "balanced", "melu"
    ] = param(
        "melu",
        help="which retain row stands beside a forget row",
        paper="melu",
        choices=(
            "none", "sequential", "random", "cyclic", "direct_only", "indirect_only", "balanced",
            "melu",
        ),
    )  # fmt: skip
    shuffle: Literal["rows", "modules", "none"] = param(
        "rows",
        help="pairs in a new order each pass, whole modules (of melu), or as they stand",
        paper="rows",
        choices=("rows", "modules", "none"),
    )
    general: bool = param(
        True,
        help="whether general rows take part in direct_only, indirect_only, balanced and melu",
        paper=True,
    )
    match_steps: bool = param(
        True, help="an epoch has as many steps in every mode: those of a pass over the forget rows"
    )


@dataclass(frozen=True, slots=True)
class Pairing:
    """Passes over pairs that are made anew for each.

    Attributes:
        modules: Number of the pass -> its pairs; every pass has as many.
        length: Pairs of a pass.
        shuffle: As the parameter.
        size: Pairs of a step, at most.
        seed: Seed of the run.
        steps_per_epoch: Steps the plan counts as one epoch.
        neighbours: Rows of that role, for methods that look at it by itself; drawn uniformly.
    """

    modules: Callable[[int], Modules]
    length: int
    shuffle: str
    size: int
    seed: int
    steps_per_epoch: int
    neighbours: int = 0

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``; what is left of a pass opens the next one's first step."""
        count = min(self.size, self.length)
        places = [divmod(place, self.length) for place in range(step * count, (step + 1) * count)]
        passes = {passed: self.pairs(passed) for passed, _ in places}
        drawn = [passes[passed][place] for passed, place in places]
        met = {passed: _met(pairs, passed) for passed, pairs in passes.items()}
        rows = {"forget": [row for row, _ in drawn]}
        rows["retain"] = [row for _, row in drawn if row is not None]
        if self.neighbours:
            rng = generator(self.seed, "neighbour", step)
            rows["neighbour"] = rng.integers(self.neighbours, size=count).tolist()
        wording = {
            role: generator(self.seed, "wording", role, step).integers(2**31, size=len(r)).tolist()
            for role, r in rows.items()
        }
        return Draw(step, rows, [met[passed][place] for passed, place in places], wording)

    def pairs(self, passed: int) -> list[Pair]:
        """The pairs of a pass, in order."""
        modules = list(self.modules(passed))
        rng = generator(self.seed, "melu", "order", passed)
        if self.shuffle == "modules":
            modules = [modules[place] for place in rng.permutation(len(modules))]
        pairs = list(chain.from_iterable(modules))
        if self.shuffle == "rows":
            pairs = [pairs[place] for place in rng.permutation(len(pairs))]
        return pairs


def prepare(task: Task, params: Params) -> None:
    """Tell how many retain rows are neighbours, and of what kind."""
    kinds = Counter(one.kind for one in related(task.forget, task.retain))
    task.record.update({f"retain_{kind}": kinds[kind] for kind in KINDS})


def sample(task: Task, params: Params) -> Pairing:
    """The pairs of the mode.

    Raises:
        ExpungeError: ``E-DATA-005`` where no retain row is of a kind that the mode goes by.
    """
    settings = task.params
    size = settings.batch_size * settings.accumulation
    modules = _MODES[params.mode](task, params)
    length = sum(map(len, modules(0)))
    steps = -(-(len(task.forget) if params.match_steps else length) // size)
    neighbours = len(task.roles.get("neighbour", ()))
    return Pairing(modules, length, params.shuffle, size, task.seed, steps, neighbours)


def _alone(task: Task, params: Params) -> Callable[[int], Modules]:
    pairs: list[Pair] = [(row, None) for row in range(len(task.forget))]
    return lambda passed: [pairs]


def _sequential(task: Task, params: Params) -> Callable[[int], Modules]:
    rows, kept = len(task.forget), len(task.retain)
    return lambda passed: [[(row, row % kept) for row in range(rows)]]


def _random(task: Task, params: Params) -> Callable[[int], Modules]:
    rows, kept = len(task.forget), len(task.retain)

    def modules(passed: int) -> Modules:
        drawn = generator(task.seed, "melu", "random", passed).integers(kept, size=rows)
        return [list(enumerate(drawn.tolist()))]

    return modules


def _cyclic(task: Task, params: Params) -> Callable[[int], Modules]:
    pairs = _cycled(range(len(task.forget)), range(len(task.retain)))
    return lambda passed: [pairs]


def _one_kind(task: Task, params: Params) -> Callable[[int], Modules]:
    kind = params.mode.removesuffix("_only")
    found = related(task.forget, task.retain)
    if not any(one.kind == kind for one in found):
        raise _none_of(f"{kind} neighbour", params.mode)
    wanted = {kind, *(["general"] if params.general else [])}
    pairs = _cycled(
        range(len(task.forget)), [row for row, one in enumerate(found) if one.kind in wanted]
    )
    return lambda passed: [pairs]


def _balanced(task: Task, params: Params) -> Callable[[int], Modules]:
    groups: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    for row, one in enumerate(related(task.forget, task.retain)):
        groups[one.kind].append(row)
    if not params.general:
        del groups["general"]
    present = [rows for rows in groups.values() if rows]
    if len(present) < 2:
        raise _none_of("second kind of neighbour", params.mode)
    each = min(map(len, present))

    def modules(passed: int) -> Modules:
        turn = range(passed * each, (passed + 1) * each)
        kept = [rows[place % len(rows)] for place in turn for rows in present]
        return [_cycled(range(len(task.forget)), kept)]

    return modules


def _by_entity(task: Task, params: Params) -> Callable[[int], Modules]:
    """One module an entity, and one of general rows."""
    own, found = entities_of(task.forget), related(task.forget, task.retain)
    neighbours: dict[str, list[int]] = {entity: [] for entity in own}
    for row, one in enumerate(found):
        if one.entities:
            fewest = min(one.entities, key=lambda entity: len(neighbours[entity]))
            neighbours[fewest].append(row)
    general = [row for row, one in enumerate(found) if not one.entities]
    instead = general or list(range(len(found)))

    def modules(passed: int) -> Modules:
        rng = generator(task.seed, "melu", "general", passed)
        made = []
        for entity, rows in own.items():
            drawn = rng.choice(instead, size=len(rows)).tolist()
            made.append(_cycled(rows, neighbours[entity] or drawn))
        beside = rng.integers(len(task.forget), size=len(general)).tolist()
        if params.general and general:
            made.append(list(zip(beside, general, strict=True)))
        return made

    return modules


_MODES = {
    "none": _alone,
    "sequential": _sequential,
    "random": _random,
    "cyclic": _cyclic,
    "direct_only": _one_kind,
    "indirect_only": _one_kind,
    "balanced": _balanced,
    "melu": _by_entity,
}


def _cycled(forget: Sequence[int], retain: Sequence[int]) -> list[Pair]:
    """Both in order, the shorter one again from its beginning."""
    places = range(max(len(forget), len(retain)))
    return [(forget[i % len(forget)], retain[i % len(retain)]) for i in places]


def _met(pairs: Sequence[Pair], passed: int) -> list[int]:
    """For each pair of a pass, how often its forget row had been drawn before."""
    times = Counter(row for row, _ in pairs)
    seen = Counter[int]()
    met: list[int] = []
    for row, _ in pairs:
        met.append(passed * times[row] + seen[row])
        seen[row] += 1
    return met


def _none_of(what: str, mode: str) -> ExpungeError:
    return ExpungeError(
        "E-DATA-005",
        f"No {what} among the retain rows, for melu:{mode}.",
        "retain rows that are neighbours of what is to be forgotten.",
        "Give rows with the subject or name, neighbour rows (--neighbour), or their kind in "
        "meta.neighbour; or use --with melu.",
    )
