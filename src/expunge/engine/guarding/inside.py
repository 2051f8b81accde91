"""Guards inside a model: what their gate said of an exchange at the door, and the model they need.

A forward pass knows token ids, and the gate looks at what they stand for. What came in by the
guard's own door was looked at there as well: with the texts as they were before anything was taken
out of them.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange
from expunge.engine.guarding.ladder import Hit

if TYPE_CHECKING:
    from expunge.lm.subject import Subject

MOST = 4096
"""Exchanges that are remembered between the door and the model."""


class Seen:
    """What a gate said of the latest exchanges, by what the model is asked for them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[Hit, ...]] = OrderedDict()
        self._lock = Lock()

    def note(self, ids: Sequence[int], hits: Iterable[Hit]) -> None:
        """Remember what the gate said of an exchange."""
        name = _name(ids)
        with self._lock:
            self._kept[name] = tuple(hits)
            self._kept.move_to_end(name)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)

    def of(self, ids: Sequence[int]) -> tuple[Hit, ...]:
        """What it said of a prompt; nothing where that came in by another way."""
        with self._lock:
            return self._kept.get(_name(ids), ())


def seen_by(desk: Desk) -> Seen:
    """What the gate of a desk said of the latest exchanges."""
    with _LOCK:
        found: Seen = vars(desk).setdefault("_seen_at_the_door", Seen())
    return found


def looked_at(exchange: Exchange, desk: Desk) -> list[Hit]:
    """Ask the gate about an exchange, and let the model know what it said."""
    hits, subject = desk.hits(exchange), desk.means.subject
    if hits and subject is not None:
        turn = exchange.turn
        seen_by(desk).note(subject.encoder.prompt(turn.prompt, turn.running), hits)
    return hits


def hits_of(ids: Sequence[int], texts: Iterable[str], desk: Desk) -> list[Hit]:
    """The targets that a prompt is about, of those that are there: by itself, or by the door.

    Args:
        ids: The prompt as the model reads it.
        texts: What it says.
        desk: The guard's.
    """
    best: dict[str, Hit] = {}
    for hit in (*seen_by(desk).of(ids), *desk.ladder.hits(texts)):
        known = best.get(hit.target)
        if hit.target in desk.entries and (known is None or hit.score > known.score):
            best[hit.target] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.target))


def needed(means: Means, guard: str) -> "Subject":
    """The guarded model in this process.

    Raises:
        ExpungeError: ``E-SERVE-003`` when there is none.
    """
    if means.subject is None:
        raise ExpungeError(
            "E-SERVE-003",
            f"The guard {guard} works inside the model, and there is none in this process.",
            "a model in this process for such a guard.",
            "Serve the model with --model, or choose a guard that works on text.",
        )
    return means.subject


_LOCK = Lock()


def _name(ids: Sequence[int]) -> bytes:
    return blake2b(",".join(map(str, ids)).encode(), digest_size=16).digest()
