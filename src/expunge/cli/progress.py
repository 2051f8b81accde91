"""Progress for people: a live bar on a terminal, else one plain line every ten seconds."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from expunge.core.events import Event, listening

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

INTERVAL = 10.0


def shown(*, quiet: bool) -> AbstractContextManager[None]:
    """Show the events of the block on standard error.

    Args:
        quiet: Show nothing.

    Returns:
        A context manager.
    """
    if quiet:
        return nullcontext()
    return _bars() if sys.stderr.isatty() else lines(sys.stderr)


@dataclass(slots=True)
class _Running:
    """A task under way."""

    event: Event
    start: float = field(default_factory=time.monotonic)

    def line(self) -> str:
        """What it does, how far, the rate, the time left, and the peak memory."""
        event, seconds = self.event, time.monotonic() - self.start
        parts = [_count(event), f"{seconds:.0f} s"]
        rate = event.done / seconds if seconds > 0 else 0.0
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
            if event.total:
                parts.append(f"{max(event.total - event.done, 0) / rate:.0f} s left")
        parts.append(f"{peak_megabytes()} MB at most")
        told = f" ({event.text})" if event.text else ""
        return f"{event.task}: {', '.join(part for part in parts if part)}{told}"


class Lines:
    """Plain lines: notes at once, what is under way every ten seconds.

    Args:
        stream: Where the lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        with self._lock:
            if event.kind == "note":
                self._write(f"{event.task}: {event.text}" if event.task else event.text)
            elif event.kind == "end":
                self._running.pop(event.task, None)
            elif event.task in self._running:
                self._running[event.task].event = event
            else:
                self._running[event.task] = _Running(event)

    def tell(self) -> None:
        """Write one line on the innermost task, if one is under way."""
        with self._lock:
            if self._running:
                self._write(next(reversed(self._running.values())).line())

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


@contextmanager
def lines(stream: TextIO, interval: float = INTERVAL) -> Iterator[None]:
    """Write a plain line every `interval` seconds while the block runs.

    A thread keeps the clock: a step that takes minutes and says nothing must not look hung.

    Args:
        stream: Where the lines go.
        interval: Seconds between two lines.
    """
    listener, done = Lines(stream), threading.Event()

    def keep_telling() -> None:
        while not done.wait(interval):
            listener.tell()

    clock = threading.Thread(target=keep_telling, name="progress", daemon=True)
    clock.start()
    try:
        with listening(listener):
            yield
    finally:
        done.set()
        clock.join()


def peak_megabytes() -> int:
    """The most memory this process has held, in 10^6 bytes."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 10**6


@contextmanager
def _bars() -> Iterator[None]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[memory]} {task.fields[told]}"),
    )
    display = Progress(*columns, console=Console(stderr=True), transient=True)
    with display, listening(Bars(display)):
        yield


class Bars:
    """A live bar for each task under way.

    Args:
        progress: The display, with the fields ``rate``, ``memory`` and ``told``.
    """

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if event.kind == "note":
            told = f"{event.task}: {event.text}" if event.task else event.text
            self._progress.console.print(told, markup=False, highlight=False)
        elif event.kind == "end":
            if event.task in self._bars:
                self._progress.remove_task(self._bars.pop(event.task))
        else:
            self._move(event)

    def _move(self, event: Event) -> None:
        if event.task not in self._bars:
            self._bars[event.task] = self._progress.add_task(
                event.task, total=event.total, rate="", memory="", told=""
            )
        bar = self._bars[event.task]
        speed = self._progress.tasks[self._progress.task_ids.index(bar)].speed
        self._progress.update(
            bar,
            completed=event.done,
            total=event.total,
            rate=f"{speed:.3g}/s" if speed else "",
            memory=f"{peak_megabytes()} MB",
            told=event.text,
        )


def _count(event: Event) -> str:
    if event.total:
        return f"{event.done:g} of {event.total:g} ({event.done / event.total:.0%})"
    return f"{event.done:g}" if event.done else ""
