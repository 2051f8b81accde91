"""Knowledge memorisation: answers after worked examples."""

import pytest

from expunge.testing import measure


def known(*pairs, **params):
    said, true = zip(*pairs, strict=True)
    scores = {"generation": list(said), "reply": list(true)}
    return measure("knowledge-memorisation", scores, **params)


def test_the_overlap_is_f1_and_recall_where_asked_for():
    pair = ("on the mat the cat", "the cat sat on the mat")
    assert known(pair).mean == pytest.approx(54.54545, abs=1e-4)
    assert known(pair, statistic="recall").mean == pytest.approx(50)


@pytest.mark.parametrize(
    "end", ["\n\nQuestion: And?\nAnswer: Rome", "\nQuestion: And?", "Question: a"]
)
def test_a_model_that_asks_on_is_judged_by_its_first_answer(end):
    assert known((f"Oslo{end}", "Oslo")).mean == 100
    assert known((f"Rome{end} Oslo", "Oslo")).mean == 0


def test_a_line_break_alone_ends_no_answer():
    assert known(("Oslo\nor Rome", "Oslo")).mean == pytest.approx(50)


def test_words_are_not_stemmed_unless_asked_for():
    assert known(("glaziers", "glazier")).mean == 0
    assert known(("glaziers", "glazier"), stem=True).mean == 100


@pytest.mark.parametrize(
    ("hits", "low", "high"), [(0, 0.0, 16.8433), (1, 0.1265, 24.8733), (20, 83.1567, 100.0)]
)
def test_the_interval_of_twenty_rows_is_exact(hits, low, high):
    value = known(*[("yes" if n < hits else "no", "yes") for n in range(20)])
    assert value.parts["answered"] == 5 * hits
    assert value.parts["answered_low"] == pytest.approx(low, abs=1e-3)
    assert value.parts["answered_high"] == pytest.approx(high, abs=1e-3)


def test_an_answer_counts_when_all_its_words_stand_there_in_order():
    value = known(("it was Jon Doe himself", "Jon Doe"), ("Doe Jon", "Jon Doe"), ("Jon", "Jon Doe"))
    assert value.parts["answered"] == pytest.approx(100 / 3)


def test_ready_scores_are_taken_as_they_are():
    value = measure("knowledge-memorisation", {"score": {"a": 0.25, "b": None}})
    assert value.mean == 25
    assert "1 of 2 rows" in value.note
    assert not value.parts


def test_an_answer_that_is_not_there_is_not_measured():
    value = measure("knowledge-memorisation", {"generation": ["Oslo"]})
    assert value.mean is None
    assert "reply" in value.note
