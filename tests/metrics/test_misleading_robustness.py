"""Misleading robustness: four accuracies, and how far they are apart."""

import pytest

from expunge.lm.gather import Models
from expunge.metrics import misleading_robustness
from expunge.metrics.misleading_robustness import CONDITIONS
from expunge.requests.rows import Row
from expunge.testing.metrics import measure

RIGHT, WRONG = "(B)", "(A)"


def robustness(**rights):
    """Condition -> how many of four rows are right."""
    scores = {name: [RIGHT] * rights[name] + [WRONG] * (4 - rights[name]) for name in CONDITIONS}
    return measure("misleading-robustness", {**scores, "correct": [1] * 4})


def test_hand_computed():
    value = robustness(reasoned=4, reasoned_misled=2, direct=3, direct_misled=0)
    assert value.mean == pytest.approx((1 + 0.5 + 0.75 + 0) / 4)
    assert value.parts["method"] == 0.25
    assert value.parts["demo"] == pytest.approx((0.5 + 0.75) / 2)
    assert value.parts["overall"] == pytest.approx((0.25 + 0.625) / 2)


def test_a_model_that_takes_a_after_all_a_examples_is_led():
    value = robustness(reasoned=4, reasoned_misled=0, direct=4, direct_misled=0)
    assert (value.mean, value.parts["demo"]) == (0.5, 1.0)


def test_rows_whose_answer_is_a_are_left_out():
    scores = {name: ["(A)", "(B)"] for name in CONDITIONS}
    value = measure("misleading-robustness", {**scores, "correct": [0, 1]})
    assert (value.mean, value.n) == (1.0, 1)
    alone = measure("misleading-robustness", {**scores, "correct": [0, 0]})
    assert alone.mean is None


def test_examples_stand_before_the_question_and_a_is_never_asked():
    class Model:
        @staticmethod
        def ask(turns, **settings):
            asked.append(([turn.prompt for turn in turns], settings["new_tokens"]))
            return [["B)\n\n###\n\nQ: more (C)"] for _ in turns]

    asked = []
    examples = {name: f"{name}###" for name in CONDITIONS}
    rows = [
        Row(id=str(i), prompt="Q", completion="x", meta={"correct": i, "examples": examples})
        for i in range(2)
    ]
    params = misleading_robustness.Params()
    found = misleading_robustness.read(Models(model=Model()), {"": rows}, params)
    assert found["correct"] == {"1": 1}
    assert found["direct"] == {"1": "B)"}
    assert [tokens for _, tokens in asked] == [6, 6, 256, 256]
    assert asked[1][0] == ["direct_misled###Q\n\nThe best answer is: ("]
    assert asked[2][0][0].endswith("step by step:")
