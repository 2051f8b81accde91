"""Events: heard by whoever listens, by nobody else, and framed whatever happens."""

from threading import Thread

import pytest

from expunge.core.events import Event, emit, listening, note, progress, track


def heard(events: list[Event]) -> list[tuple[str, str, float]]:
    return [(event.kind, event.task, event.done) for event in events]


def test_without_a_listener_nothing_happens() -> None:
    emit(Event("note", "", text="unheard"))
    assert list(track([1, 2], "count")) == [1, 2]


def test_progress_frames_and_counts() -> None:
    events: list[Event] = []
    with listening(events.append), progress("npo", total=3) as running:
        running.advance(1, text="forget NLL 5.1", nll=5.1)
        running.advance(2)
    assert heard(events) == [
        ("begin", "npo", 0.0),
        ("advance", "npo", 1.0),
        ("advance", "npo", 3.0),
        ("end", "npo", 3.0),
    ]
    assert events[1].text == "forget NLL 5.1"
    assert events[1].data == {"nll": 5.1}
    assert {event.total for event in events} == {3}


def test_the_end_is_sent_when_the_block_fails() -> None:
    events: list[Event] = []
    with pytest.raises(ZeroDivisionError), listening(events.append), progress("npo") as running:
        running.advance(1 / running.done)
    assert heard(events) == [("begin", "npo", 0.0), ("end", "npo", 0.0)]


def test_track_takes_the_total_from_the_length_and_counts_what_was_consumed() -> None:
    events: list[Event] = []
    with listening(events.append):
        for item in track("abc", "letters"):
            if item == "b":
                break
    assert events[0].total == 3
    assert heard(events)[1] == ("advance", "letters", 1.0)


def test_listeners_nest_and_leave() -> None:
    outer: list[Event] = []
    inner: list[Event] = []
    with listening(outer.append):
        with listening(inner.append):
            note("both", unit="nats")
        note("one")
    note("none")
    assert [event.text for event in outer] == ["both", "one"]
    assert [event.text for event in inner] == ["both"]
    assert inner[0].data == {"unit": "nats"}


def test_another_thread_does_not_hear() -> None:
    events: list[Event] = []
    with listening(events.append):
        thread = Thread(target=note, args=("elsewhere",))
        thread.start()
        thread.join()
    assert events == []


def test_a_listener_that_raises_cancels_the_work() -> None:
    def cancel(event: Event) -> None:
        if event.done == 2:
            raise KeyboardInterrupt

    done: list[int] = []
    with pytest.raises(KeyboardInterrupt), listening(cancel):
        done.extend(track(range(5), "work"))
    assert done == [0, 1]
