"""Guards whose targets come and go while questions pass."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from threading import Condition, get_ident, local
from typing import Any

from expunge.core.canonical import digest
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Entry, Shared, Working
from expunge.engine.guarding.ladder import Hit, Key, Ladder
from expunge.engine.guarding.targets import Target


class Turns:
    """One thread at a time, and whoever wants to change something before all that only look."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._owner, self._depth, self._changers = 0, 0, 0

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Have it for a look-up."""
        with self._held(is_change=False):
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Have it for a change."""
        with self._held(is_change=True):
            yield

    @contextmanager
    def _held(self, *, is_change: bool) -> Iterator[None]:
        self._take(is_change)
        try:
            yield
        finally:
            with self._condition:
                self._depth -= 1
                if not self._depth:
                    self._owner = 0
                    self._condition.notify_all()

    def _take(self, is_change: bool) -> None:
        own = get_ident()
        with self._condition:
            if self._owner != own:
                self._changers += is_change
                while self._owner or (self._changers and not is_change):
                    self._condition.wait()
                self._changers -= is_change
                self._owner = own
            self._depth += 1


class Shielded(Ladder):
    """A ladder that is looked up and changed by one thread at a time.

    Args:
        inner: The ladder.
        turns: Whose turn it is.
    """

    def __init__(self, inner: Ladder, turns: Turns) -> None:
        self.__dict__.update(vars(inner))  # whatever else there is to be read of it
        self._inner, self._turns = inner, turns

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def keys(self, target: Target) -> dict[str, Key]:
        """See `Ladder`."""
        return self._inner.keys(target)

    def add(self, id: str, keys: Mapping[str, Key]) -> None:
        """See `Ladder`."""
        with self._turns.changing():
            self._inner.add(id, keys)

    def remove(self, id: str) -> None:
        """See `Ladder`."""
        with self._turns.changing():
            self._inner.remove(id)

    def hits(self, texts: Iterable[str], most: int = 20) -> list[Hit]:
        """See `Ladder`."""
        with self._turns.looking():
            return self._inner.hits(texts, most)

    def shortlist(self, texts: Iterable[str], most: int = 20) -> list[Hit]:
        """See `Ladder`."""
        with self._turns.looking():
            return self._inner.shortlist(texts, most)


class LiveDesk(Desk):
    """A desk whose shared settings and numbers change together.

    A thread that has pinned them sees them as they were then, whatever changes meanwhile; any
    other thread sees them as they are.
    """

    def __init__(self, params: Any, means: Means, ladder: Ladder, drafts: Ladder) -> None:
        self.common = Shared()
        self._own = local()
        super().__init__(params, means, ladder, drafts)

    @property
    def shared(self) -> Mapping[str, Any]:
        """What all targets share; JSON values."""
        return self._now.settings

    @shared.setter
    def shared(self, told: Mapping[str, Any]) -> None:
        self.common = Shared(told, self.common.arrays)

    @property
    def arrays(self) -> Any:
        """What all targets share; numbers."""
        return self._now.arrays

    @arrays.setter
    def arrays(self, told: Any) -> None:
        self.common = Shared(self.common.settings, told)

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Let this thread see what is shared as it is now."""
        self._own.common = self.common
        try:
            yield
        finally:
            del self._own.common

    @property
    def _now(self) -> Shared:
        return getattr(self._own, "common", self.common)


class Live(Working):
    """A guard at work that questions and changes reach from many threads.

    A question sees what the targets share as it was at one moment, and never half of a change. A
    change waits for one look-up at the most.
    """

    desk: LiveDesk

    def __init__(self, guard: Any, params: Any, means: Means) -> None:
        super().__init__(guard, params, means)
        self._turns = Turns()
        ladders = (Shielded(one, self._turns) for one in (self.desk.ladder, self.desk.drafts))
        self.desk = LiveDesk(params, means, *ladders)

    @property
    def mark(self) -> str:
        """Names the form of what is stored: another version or other parameters store anew."""
        told = plain(asdict(self.desk.params))
        return digest([self.id, int(self.card["version"]), told])[:32]

    @property
    def shares(self) -> bool:
        """Whether targets share anything that must be made anew when they change."""
        return self.is_calibrated or any(self._made(name) for name in ("shared", "settled"))

    def take(self, id: str, entry: Entry) -> None:
        """See `Working`."""
        with self._turns.changing():
            super().take(id, entry)

    def drop(self, id: str) -> None:
        """See `Working`."""
        with self._turns.changing():
            super().drop(id)

    def prepared(self, targets: Sequence[Target]) -> Shared:
        """What targets would share; thresholds apart, nothing has changed yet."""
        self.calibrate(targets)
        made = self._made("shared")
        return made(targets, self.desk.params, self.desk.means) if made else Shared()

    def share(self, shared: Shared) -> None:
        """Let targets share this from now on, at one stroke."""
        with self._turns.changing():
            self.desk.common = shared
            self._settled()

    def settle(self, targets: Sequence[Target]) -> None:
        """See `Working`."""
        self.share(self.prepared(targets))

    def hits(self, exchange: Exchange) -> list[Hit]:
        """See `Working`."""
        with self._pinned():
            return super().hits(exchange)

    def enter(self, exchange: Exchange) -> Exchange | Reply:
        """See `Working`."""
        with self._pinned():
            return super().enter(exchange)

    def leave(self, exchange: Exchange, draft: str) -> str | Reply:
        """See `Working`."""
        with self._pinned():
            return super().leave(exchange, draft)

    @contextmanager
    def _pinned(self) -> Iterator[None]:
        with self._turns.looking():
            pinned = self.desk.pinned()
            pinned.__enter__()
        try:
            yield
        finally:
            pinned.__exit__(None, None, None)


def plain(value: Any) -> Any:
    """A value as JSON has it: tuples are lists there."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
