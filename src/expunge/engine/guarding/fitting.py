"""A guard fitted to targets: what is stored, and the guard at work on it.

A guard's file defines, beside ``CARD`` and ``Params``, what it needs of these:

    entry(target, params, means) -> {...}      what it stores of one target; JSON values. What must
                                               not lie about in the clear stands under "sealed"
    shared(targets, params, means) -> Shared   what all targets share; made anew when they change
    settled(desk)                              after `shared`, and when a stored guard is opened:
                                               sets its gate by what is shared
    ladder(params, means) -> Ladder            its gate, where that is not the standard one
    drafts(params, means) -> Ladder            its gate for drafts of answers, likewise
    enter(exchange, desk) -> Exchange | Reply  before the model; the exchange itself to let it pass
    leave(exchange, draft, desk) -> str | Reply  after the model; the draft itself to let it pass
    attach(model, tokenizer, desk) -> Attached   hooks into a model of this process
    fired(exchange, desk) -> [Hit, ...]        what its gate says, where that is more than a ladder
    roles(params, decider) -> [role, ...]      which roles of its card somebody must play
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from expunge.core.registry import guards
from expunge.engine.guarding.calibration import calibrate, is_due, to_let_through
from expunge.engine.guarding.desk import Desk, Means, mark_of
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.ladder import Hit, Ladder
from expunge.engine.guarding.rungs import of_drafts, standard
from expunge.engine.guarding.targets import Target

if TYPE_CHECKING:
    import numpy.typing as npt

Entry = Mapping[str, Any]
"""What is stored of one target: ``keys`` of both ladders, and the guard's ``own``."""


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What all targets of a guard share.

    Attributes:
        settings: JSON values.
        arrays: Numbers, by name.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: "Mapping[str, npt.NDArray[Any]]" = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class State:
    """A fitted guard as it is stored.

    Attributes:
        guard: Its id.
        version: Of its card.
        params: Its parameters, all of them.
        seed: Of its randomness.
        entries: Target -> what is stored of it.
        shared: What they share.
        thresholds: ``asked/RUNG`` or ``drafted/RUNG`` -> above which score it fires.
    """

    guard: str
    version: int
    params: Mapping[str, Any]
    seed: int
    entries: Mapping[str, Entry]
    shared: Shared
    thresholds: Mapping[str, float]


class Working:
    """One guard at work.

    Attributes:
        card: Its card, as the file holds it.
        module: Its file.
        desk: What it works with.

    Args:
        guard: Its id, or its file as a module.
        params: Its parameters.
        means: What it may use.
    """

    def __init__(self, guard: Any, params: Any, means: Means) -> None:
        self.module: Any = guards.load(guard) if isinstance(guard, str) else guard
        self.card: Mapping[str, Any] = self.module.CARD
        ladder = self._made("ladder") or (lambda *_: standard(means.secret))
        drafts = self._made("drafts") or (lambda *_: of_drafts(means.secret))
        self.desk = Desk(params, means, ladder(params, means), drafts(params, means))
        self._entries: dict[str, Entry] = {}
        self._set_at = 0

    @property
    def id(self) -> str:
        """The guard's id."""
        return str(self.card["id"])

    def entry(self, target: Target) -> Entry:
        """What is stored of a target; not taken in yet.

        Raises:
            ExpungeError: When the guard cannot hold it back; nothing has changed then.
        """
        made = self._made("entry")  # first: a guard that refuses a target need not look at its keys
        own = made(target, self.desk.params, self.desk.means) if made else {}
        keys = {name: ladder.keys(target) for name, ladder in self._ladders.items()}
        entry = {"keys": keys, "own": own}
        stored: Entry = json.loads(json.dumps(entry, allow_nan=False))
        return stored  # through JSON, so that a guard just fitted is the one that is opened later

    def take(self, id: str, entry: Entry) -> None:
        """Take a stored target in, in the place of what it was."""
        if id not in self._entries:
            self.desk.mark ^= mark_of([id])
        for name, ladder in self._ladders.items():
            ladder.add(id, entry["keys"][name])
        self.desk.entries[id] = entry["own"]
        self._entries[id] = entry

    def drop(self, id: str) -> None:
        """Leave a target out."""
        if id in self._entries:
            self.desk.mark ^= mark_of([id])
        for ladder in self._ladders.values():
            ladder.remove(id)
        self.desk.entries.pop(id, None)
        self._entries.pop(id, None)

    def settle(self, targets: Sequence[Target]) -> None:
        """Make anew what the targets share; call it whenever they have changed.

        Args:
            targets: All that are taken in.
        """
        made = self._made("shared")
        if made is not None:
            shared = made(targets, self.desk.params, self.desk.means)
            self.desk.shared, self.desk.arrays = shared.settings, shared.arrays
        self.calibrate(targets)
        self._settled()

    @property
    def is_calibrated(self) -> bool:
        """Whether its gate has thresholds to be set."""
        return any(rung.is_calibrated for rung in self.desk.ladder.rungs)

    def calibrate(self, targets: Sequence[Target]) -> None:
        """Set the thresholds of the gate, where their number has changed much since last time.

        Args:
            targets: All that are taken in.
        """
        if self.is_calibrated and is_due(self._set_at, len(targets)):
            means = self.desk.means
            texts = to_let_through(means.retain, targets, means.seed)
            calibrate(self.desk.ladder, texts, targets=len(targets))
            self._set_at = len(targets)

    def hits(self, exchange: Exchange) -> list[Hit]:
        """The targets a question is about, by whatever way the guard has to find that out."""
        act = self._made("fired")
        return act(exchange, self.desk) if act else self.desk.hits(exchange)

    def enter(self, exchange: Exchange) -> Exchange | Reply:
        """What the guard makes of a question."""
        act = self._made("enter")
        return exchange if act is None else act(exchange, self.desk)

    def leave(self, exchange: Exchange, draft: str) -> str | Reply:
        """What the guard makes of an answer."""
        act = self._made("leave")
        return draft if act is None else act(exchange, draft, self.desk)

    @property
    def _ladders(self) -> dict[str, Ladder]:
        return {"asked": self.desk.ladder, "drafted": self.desk.drafts}

    def _settled(self) -> None:
        made = self._made("settled")
        if made is not None:
            made(self.desk)

    def _made(self, name: str) -> Callable[..., Any] | None:
        """A function of the guard's file, where it defines it."""
        return getattr(self.module, name, None)

    @property
    def state(self) -> State:
        """All of it, to be stored."""
        return State(
            guard=self.id,
            version=int(self.card["version"]),
            params=asdict(self.desk.params),
            seed=self.desk.means.seed,
            entries=dict(self._entries),
            shared=Shared(self.desk.shared, self.desk.arrays),
            thresholds={
                f"{name}/{rung.name}": rung.threshold
                for name, ladder in self._ladders.items()
                for rung in ladder.rungs
            },
        )


def fitted(guard: str, targets: Iterable[Target], params: Any, means: Means) -> Working:
    """A guard fitted to targets."""
    working, own = Working(guard, params, means), list(targets)
    for target in own:
        working.take(target.id, working.entry(target))
    working.settle(own)
    return working


def opened(state: State, means: Means) -> Working:
    """A stored guard, at work again.

    Raises:
        ExpungeError: ``E-USE-001`` when it is not installed.
    """
    working = Working(state.guard, guards.params(state.guard, state.params), means)
    for name, ladder in working._ladders.items():
        for rung in ladder.rungs:
            rung.threshold = state.thresholds.get(f"{name}/{rung.name}", rung.threshold)
    for id, entry in state.entries.items():
        working.take(id, entry)
    working._set_at = len(state.entries)
    working.desk.shared, working.desk.arrays = state.shared.settings, state.shared.arrays
    working._settled()
    return working
