"""What an audit will do, counted from the parameters of its attacks, and what that needs."""

from dataclasses import replace

import pytest

from expunge.audit import work as counts
from expunge.audit.plan import Entry, Plan
from expunge.audit.work import Rows, memory, seconds, work_of
from expunge.engine.counts import Size
from expunge.engine.estimate import Machine

MACHINE = Machine(speed=5e10, slowness=1.0)
SIZE = Size(parameters=30_000_000, blocks=10, width=512, vocabulary=16_000)
ROWS = Rows(
    forget=32, wordings=2, kept=32, kept_wordings=64, wrong=0, length=20, reply=8, longest=12
)


def chosen(*entries: Entry) -> Plan:
    return Plan(profile="fast", entries=entries, metrics=(), not_run=())


def answers(*entries: Entry, rows: Rows = ROWS) -> float:
    """Answers of these attacks beyond those every audit asks for."""
    return work_of(chosen(*entries), rows, 2).answers - work_of(chosen(), rows, 2).answers


def needs(*entries: Entry, rows: Rows = ROWS, models: int = 2) -> tuple[float, int]:
    work = work_of(chosen(*entries), rows, models)
    return seconds(SIZE, work, MACHINE, 0), memory(SIZE, work, rows, models)


def test_utility_asks_two_models_and_the_original_every_forget_wording() -> None:
    assert work_of(chosen(), ROWS, 2).answers == 2 * 64 + 32 * 2


def test_a_question_is_put_in_every_wording_to_three_models() -> None:
    assert answers(Entry(id="direct")) == 3 * 32 * 2


def test_a_budget_is_of_a_row_whatever_its_wordings() -> None:
    entry = Entry(id="sample", params={"budget": 16}, runs=3)
    assert answers(entry) == 3 * 3 * 32 * 16
    assert answers(entry, rows=replace(ROWS, wordings=4)) == answers(entry)


def test_a_lesson_is_followed_by_questions_at_every_mark_of_the_grid() -> None:
    entry = Entry(id="relearn-ood", params={"steps": 50, "batch_size": 8})
    assert answers(entry) == 3 * (32 * 2 * 4 + counts.RETAIN_ASKED)  # after 5, 10, 20, 50
    work = work_of(chosen(entry), ROWS, 2)
    assert work.updated == 3 * 50
    assert {one.tokens for one in work.lessons} == {8 * 20}


def test_rivals_are_read_not_asked() -> None:
    entry = Entry(id="prob", params={"k": 11})
    assert answers(entry) == 0
    values = work_of(chosen(entry), ROWS, 2).scored[-1]
    assert values.supervised == 32 * 2 * 12 * counts.VALUE_TOKENS


def test_rounding_asks_once_and_copies_the_model_and_the_original() -> None:
    work = work_of(chosen(Entry(id="quant4")), ROWS, 2)
    assert (work.copied, work.rounded) == (6, 3)
    assert answers(Entry(id="quant4")) == 3 * 32 * 2


@pytest.mark.parametrize("id", ["direct", "prob", "lens-exit", "sample", "quant8", "relearn-in"])
def test_each_attack_takes_time_and_more_rows_take_more(id: str) -> None:
    alone = needs(Entry(id=id))[0]
    assert alone > needs()[0]
    assert needs(Entry(id=id), rows=replace(ROWS, forget=320))[0] > 1.5 * alone - needs()[0]


def test_a_lesson_holds_a_copy_with_gradient_and_moments() -> None:
    read = needs(Entry(id="direct"))[1]
    taught = needs(Entry(id="direct"), Entry(id="relearn-in"))[1]
    assert taught > read + 3 * 4 * SIZE.parameters


def test_a_reference_is_one_more_model_in_memory() -> None:
    assert needs(models=3)[1] == needs(models=2)[1] + 4 * SIZE.parameters
