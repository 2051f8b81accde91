"""Progress as events: rooms tell what they do, whoever listens decides how it looks.

Listeners live in a context variable, so two runs in two threads never hear each other, and
without a listener nothing happens. An exception a listener raises reaches the emitter: that is
how a run is cancelled.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: ``begin`` and ``end`` frame a task, ``advance`` moves it, ``note`` says something.
        task: Name of the task (empty for a note that belongs to none).
        done: Units finished so far.
        total: Units in all, or None when not known.
        text: For people.
        data: For programs.
    """

    kind: Literal["begin", "advance", "note", "end"]
    task: str
    done: float = 0.0
    total: float | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]

_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hand every event of the block to ``listener``, after those already listening."""
    token = _LISTENERS.set((*_LISTENERS.get(), listener))
    try:
        yield
    finally:
        _LISTENERS.reset(token)


def emit(event: Event) -> None:
    """Hand ``event`` to everybody who listens."""
    for listener in _LISTENERS.get():
        listener(event)


def note(text: str, **data: Any) -> None:
    """Say something that moves no task forward."""
    emit(Event("note", "", text=text, data=data))


class Progress:
    """A running task; made by `progress`.

    Attributes:
        task: Name of the task.
        total: Units in all, or None when not known.
        done: Units finished so far.
    """

    def __init__(self, task: str, total: float | None) -> None:
        self.task, self.total, self.done = task, total, 0.0

    def advance(self, by: float = 1, text: str = "", **data: Any) -> None:
        """Report ``by`` more units as done."""
        self.done += by
        self._emit("advance", text, data)

    def _emit(
        self, kind: Literal["begin", "advance", "end"], text: str, data: Mapping[str, Any]
    ) -> None:
        emit(Event(kind, self.task, self.done, self.total, text, data))


@contextmanager
def progress(task: str, total: float | None = None, text: str = "") -> Iterator[Progress]:
    """Frame a task; its ``end`` is sent also when the block fails.

    Example:
        >>> heard = []
        >>> with listening(lambda event: heard.append((event.kind, event.done))):
        ...     with progress("npo", total=2) as p:
        ...         p.advance(1, text="forget NLL 5.1")
        >>> heard
        [('begin', 0.0), ('advance', 1.0), ('end', 1.0)]
    """
    running = Progress(task, total)
    running._emit("begin", text, {})
    try:
        yield running
    finally:
        running._emit("end", "", {})


def track(items: Iterable[Item], task: str, total: float | None = None) -> Iterator[Item]:
    """Yield ``items``, reporting each as done once the caller asks for the next."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(task, total) as running:
        for item in items:
            yield item
            running.advance()
