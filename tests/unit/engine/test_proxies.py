"""Look-alikes: what a model writes after examples, what of it counts, and who stands in for it."""

from typing import Any

import pytest

from expunge.core.events import Event, listening
from expunge.engine.proxies import parsed, proxies_of, turn_of, turns_by_row
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.names import names_of
from expunge.requests.rows import Row, Turn
from expunge.testing.methods import taught_subject, world


def task_of(**roles: Any) -> Task:
    subject, rows = taught_subject(), world()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain, **roles},
    )  # fmt: skip


NEW = world().holdout


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the model writes in each round, and what it was asked."""
    asked: list[list[Turn]] = []

    def says(*rounds: list[str]) -> list[list[Turn]]:
        def ask(self: Subject, turns: list[Turn], *, samples: int, **_: Any) -> list[list[str]]:
            asked.append(list(turns))
            given = rounds[len(asked) - 1] if len(asked) <= len(rounds) else []
            return [[given[at % len(given)] if given else "" for at in range(samples)]
                    for _ in turns]  # fmt: skip

        monkeypatch.setattr(Subject, "ask", ask)
        return asked

    return says


def line(row: Row) -> str:
    return f" {row.prompt}\nAnswer:{row.completion}\n\nQuestion: And"


def test_question_and_answer_are_read_up_to_the_next_example() -> None:
    assert parsed(" Who?\nAnswer: Ann.\n\nQuestion: Where?", False) == ("Who?", " Ann.")
    assert parsed("Who?\nAnswer: Ann.\nShe sings.", False) == ("Who?", " Ann.")
    assert parsed("Who?\nAnswer:", False) is None
    assert parsed("\nAnswer: Ann.", False) is None
    assert parsed("Who?\nAnd where?\nAnswer: Ann.", False) is None
    assert parsed("Ann sings.\n\nBert dances.", True) == ("", "Ann sings.")
    assert parsed(" \n", True) is None


def test_the_examples_are_forget_rows_that_ask_the_same(written) -> None:
    asked = written([line(NEW[0])])
    task = task_of()
    proxies_of(task, 1, "model")
    for row, turn in zip(task.forget, asked[0], strict=True):
        assert turn.running
        assert str(turn.prompt).endswith("\n\nQuestion:")
        shown = [one for one in task.forget if str(one.prompt) in str(turn.prompt)]
        assert len(shown) == 4
        own = [one for one in shown if one.meta["attribute"] == row.meta["attribute"]]
        assert len(own) == 4  # four people, so four rows ask the same


def test_what_the_model_writes_is_taken_and_nothing_twice(written) -> None:
    written([line(row) for row in NEW[:3]], [line(row) for row in NEW[3:6]])
    found = turns_by_row(proxies_of(task_of(), 3, "model"))
    turns = [turn for own in found.values() for turn in own]
    assert len(turns) == len(set(turns)) == 6
    assert {turn.prompt for turn in turns} == {row.prompt for row in NEW[:6]}


def test_rows_to_forget_and_to_keep_are_no_look_alikes(written) -> None:
    rows = world()
    copied = [line(rows.retain[0]), line(rows.forget[0]), line(rows.forget[-1])]
    reworded = f" Where was {rows.forget[0].subject} buried?\nAnswer: In a mill."
    written([*copied, reworded])
    assert any(names_of([rows.forget[0]])[rows.forget[0].id])
    found = turns_by_row(proxies_of(task_of(), 4, "model"))
    assert [turn for own in found.values() for turn in own] == []


def test_a_model_that_writes_nothing_of_use_is_not_asked_again(written) -> None:
    asked = written(["blah blah"])
    proxies_of(task_of(), 3, "model")
    assert len(asked) == 1


def test_rows_never_seen_stand_in_and_the_reader_is_told(written) -> None:
    written(["nonsense"])
    heard: list[Event] = []
    task = task_of(holdout=NEW)
    with listening(heard.append):
        made = proxies_of(task, 3, "auto")
    assert any("invented 0 of 36" in event.text for event in heard)
    by_prompt = {row.prompt: row for row in NEW}
    for row, record in zip(task.forget, made, strict=True):
        assert record["id"] == row.id
        told = [by_prompt[one["prompt"]] for one in record["proxies"]]
        assert len({one.id for one in told}) == 3
        assert {one.meta["attribute"] for one in told} == {row.meta["attribute"]}
        assert {one["origin"] for one in record["proxies"]} == {"unseen"}


def test_without_hold_out_rows_subjects_are_invented(written) -> None:
    written([])
    made = proxies_of(task_of(), 2, "invented")
    turns = [turn for own in turns_by_row(made).values() for turn in own]
    known = {row.prompt for role in ("forget", "retain") for row in getattr(world(), role)}
    assert len(turns) == 24
    assert not {turn.prompt for turn in turns} & known


def test_the_model_alone_leaves_gaps_where_it_gives_too_few(written) -> None:
    written([])
    made = proxies_of(task_of(holdout=NEW), 2, "model")
    assert [record["proxies"] for record in made] == [[]] * 12


def test_invented_never_asks_the_model_and_one_seed_gives_the_same(written) -> None:
    asked = written([line(NEW[0])])
    first, second = (proxies_of(task_of(holdout=NEW), 3, "invented") for _ in range(2))
    assert asked == []
    assert first == second


def test_running_text_is_shown_and_read_as_text(written) -> None:
    texts = [Row(id=f"t{at}", text=f"{row.prompt} {row.reply}") for at, row in enumerate(NEW[:4])]
    new = f"{NEW[5].prompt} {NEW[5].reply}"
    asked = written([f"{new}\n\nand more"])
    made = proxies_of(task_of(forget=texts), 1, "model")
    assert str(asked[0][0].prompt).endswith("\n\n")
    assert all(str(text.text) in str(asked[0][0].prompt) for text in texts)
    turns = [turn for own in turns_by_row(made).values() for turn in own]
    assert turns == [Turn("", new, running=True)]


def test_conversations_stay_conversations() -> None:
    told = {"prompt": [{"role": "user", "content": "Who?"}], "completion": "Ann.",
            "running": False}  # fmt: skip
    assert turn_of(told) == Turn(({"role": "user", "content": "Who?"},), "Ann.")


def test_a_model_without_room_is_not_asked(written, monkeypatch) -> None:
    asked = written([line(NEW[0])])
    monkeypatch.setattr(Subject, "has_room", lambda *_, **__: False)
    assert [record["proxies"] for record in proxies_of(task_of(), 1, "model")] == [[]] * 12
    assert asked == [[]]
