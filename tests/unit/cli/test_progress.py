"""What people see while a command runs."""

import io
import re
import time
from contextlib import contextmanager
from typing import Any

import pytest

from expunge.cli import progress as rendering
from expunge.core.events import note, progress

FORGET = ("forget", "--model", "m", "--forget", "f.jsonl", "--out", "o")


def test_a_line_says_what_how_far_how_fast_how_long_and_how_much_memory():
    stream = io.StringIO()
    with rendering.lines(stream, interval=0.05), progress("npo", total=120) as running:
        running.advance(30, text="forget NLL 5.1")
        time.sleep(0.3)
    lines = stream.getvalue().splitlines()
    assert lines
    count, rate = r"npo: 30 of 120 \(25%\), \d+ s", r"[\d.e+]+/s, \d+ s left"
    found = re.fullmatch(rf"{count}, {rate}, (\d+) MB at most \(forget NLL 5\.1\)", lines[0])
    assert found
    assert int(found[1]) > 1


def test_a_step_that_says_nothing_still_shows_signs_of_life():
    stream = io.StringIO()
    with rendering.lines(stream, interval=0.05), progress("loading"):
        time.sleep(0.4)
    assert len(stream.getvalue().splitlines()) >= 2


def test_lines_keep_the_interval_however_many_events_come():
    stream = io.StringIO()
    with rendering.lines(stream, interval=60), progress("npo", total=1000) as running:
        for _ in range(1000):
            running.advance()
    assert stream.getvalue() == ""


def test_the_innermost_task_is_told_and_the_outer_one_after_it():
    stream = io.StringIO()
    listener = rendering.Lines(stream)
    with rendering.listening(listener), progress("audit", total=9):
        with progress("direct", total=4):
            listener.tell()
        listener.tell()
    listener.tell()
    told = [line.split(":")[0] for line in stream.getvalue().splitlines()]
    assert told == ["direct", "audit"]


def test_a_note_is_written_at_once():
    stream = io.StringIO()
    with rendering.lines(stream, interval=60):
        note("learning rate 0.001 for 1.2M parameters")
        assert stream.getvalue() == "learning rate 0.001 for 1.2M parameters\n"


def test_no_thread_outlives_the_command():
    import threading

    with rendering.lines(io.StringIO(), interval=60):
        assert any(one.name == "progress" for one in threading.enumerate())
    assert not any(one.name == "progress" for one in threading.enumerate())


def test_bars_appear_move_and_vanish():
    from rich.console import Console
    from rich.progress import Progress

    page = io.StringIO()
    display = Progress(console=Console(file=page, force_terminal=True), disable=True)
    bars = rendering.Bars(display)
    with rendering.listening(bars), progress("npo", total=4) as running:
        running.advance(3, text="forget NLL 5.1")
        note("step 3")
        [bar] = display.tasks
        assert (bar.completed, bar.total, bar.fields["told"]) == (3, 4, "forget NLL 5.1")
        assert bar.fields["memory"].endswith("MB")
    assert display.tasks == []
    assert "step 3" in page.getvalue()


def noting(**given: Any) -> dict[str, Any]:
    note("a word on the way")
    return {"out": "o"}


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_goes_to_standard_error_and_quiet_keeps_it(run, standing_in, quiet):
    standing_in("expunge.engine.run", {"forget": noting})
    ran = run(*FORGET, "--json", *(["--quiet"] if quiet else []))
    assert ran.value == {"out": "o"}
    assert ("a word on the way" in ran.err) is not quiet


@pytest.mark.parametrize("is_terminal", [False, True])
def test_bars_are_for_terminals_and_lines_for_the_rest(monkeypatch, is_terminal):
    @contextmanager
    def chosen(name):
        used.append(name)
        yield

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return is_terminal

    used: list[str] = []
    monkeypatch.setattr(rendering.sys, "stderr", Stream())
    monkeypatch.setattr(rendering, "_bars", lambda: chosen("bars"))
    monkeypatch.setattr(rendering, "lines", lambda stream: chosen("lines"))
    with rendering.shown(quiet=False):
        pass
    assert used == ["bars" if is_terminal else "lines"]
