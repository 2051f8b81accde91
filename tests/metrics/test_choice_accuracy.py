"""Choice accuracy: ties, orders, and what a copy goes through before it is asked."""

import pytest

from expunge.core import registry
from expunge.core.errors import ExpungeError
from expunge.data.abilities import choice_row
from expunge.lm.gather import Models
from expunge.lm.subject import Subject
from expunge.lm.weathered import PLEA, weathered
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

OPTIONS = ["wax", "tin", "oat", "fog"]
ROWS = [choice_row(f"What is thing {i}?", OPTIONS, i % 4, f"q{i}") for i in range(8)]


def accuracy(scores, correct):
    return measure("choice-accuracy", {"choice_scores": scores, "choice_correct": correct})


@pytest.fixture(scope="module")
def subject():
    tokenizer = tiny_tokenizer([f"{row.prompt}{row.completion}" for row in ROWS], vocab=320)
    return Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)


def test_orders_are_averaged_within_a_question():
    value = accuracy({"q": [[0, -1], [0, -1], [-1, 0], [-1, 0]], "r": [[0, -1]]}, [[0], [1]])
    assert value.mean is None, "lists and named rows do not match"
    value = accuracy([[[0, -1], [0, -1], [-1, 0], [-1, 0]], [[0, -1]]], [[0], [1]])
    assert value.per_row == {"0": 0.5, "1": 0.0}
    assert value.mean == 0.25


def test_equal_options_are_worth_their_share():
    assert accuracy([[[-2.0] * 5]], [[3]]).mean == pytest.approx(0.2)
    assert accuracy([[[-1.0, -1.0, -3.0]]], [[0, 2]]).mean == 0.5


def test_a_row_without_scores_is_said():
    value = accuracy({"a": [[0, -1]], "b": []}, {"a": [0], "b": [1]})
    assert (value.mean, value.n) == (1, 1)
    assert "1 of 2 rows" in value.note


@pytest.mark.parametrize("after", ["quantising", "relearning", "tuning", "plea"])
def test_the_model_stays_as_it_is(subject, after):
    before = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    copy, rows = weathered(subject, ROWS, after, seed=0)
    assert all(subject.model.state_dict()[name].equal(weight) for name, weight in before.items())
    changed = any(
        not copy.model.state_dict()[name].equal(weight) for name, weight in before.items()
    )
    assert changed == (after != "plea")
    assert len(rows) == (4 if after == "relearning" else 8)


def test_what_was_relearned_is_not_asked(subject):
    asked = {
        seed: {r.id for r in weathered(subject, ROWS, "relearning", seed)[1]} for seed in (0, 1)
    }
    assert asked[0] == {r.id for r in weathered(subject, ROWS[::-1], "relearning", 0)[1]}
    assert asked[0] != asked[1]


def test_relearning_brings_the_answers_back(subject):
    rows = [choice_row("Which one?", OPTIONS, 2, f"q{i}") for i in range(16)]
    module = registry.metrics.load("choice-accuracy")
    models = Models(model=subject)
    found = {
        after: measure(
            "choice-accuracy",
            module.read(models, {"": rows}, module.Params(after=after, rotate=False)),
        ).mean
        for after in ("nothing", "relearning")
    }
    assert found["relearning"] == 1 > found["nothing"]


def test_a_plea_stands_before_the_question_and_its_letters(subject):
    _, rows = weathered(subject, ROWS[:1], "plea", 0)
    assert rows[0].prompt.startswith(PLEA)
    assert rows[0].meta["asked"].startswith(PLEA)


def test_unknown_settings_are_refused():
    for name in ("by", "after"):
        with pytest.raises(ExpungeError) as refusal:
            measure("choice-accuracy", {}, **{name: "guessing"})
        assert refusal.value.code == "E-USE-003"


@pytest.mark.parametrize("metric", ["choice-accuracy", "choice-mass"])
@pytest.mark.parametrize("order", [[float("nan"), 0.0], [0.0, float("nan")]])
def test_scores_that_are_no_numbers_are_neither_right_nor_wrong(metric, order):
    scores = {"choice_scores": [[order], [[0.0, -1.0]]], "choice_correct": [[0], [0]]}
    value = measure(metric, scores)
    assert value.mean is None
    assert "1 of 2 rows are not a number" in value.note
