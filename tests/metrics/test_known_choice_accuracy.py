"""Known choice accuracy: only what the original knew counts."""

import pytest

from expunge.testing.metrics import measure

TRUE, FALSE, TIE = [[-0.1, -2.0, -3.0]], [[-2.0, -0.1, -3.0]], [[-1.0, -1.0, -3.0]]


def accuracy(model, original):
    return measure(
        "known-choice-accuracy",
        {
            "choice_scores": model,
            "choice_correct": [[0]] * len(model),
            "original:choice_scores": original,
        },
    )


def test_questions_the_original_gets_wrong_are_left_out_and_counted():
    value = accuracy([TRUE, TRUE, FALSE, FALSE], [TRUE, FALSE, TRUE, FALSE])
    assert (value.mean, value.n) == (0.5, 2)
    assert value.note.startswith("2 of 4 questions left out")


def test_a_tie_of_the_original_is_not_knowledge():
    value = accuracy([TRUE, TRUE], [TRUE, TIE])
    assert value.n == 1


def test_a_tie_of_the_model_is_shared():
    assert accuracy([TIE], [TRUE]).mean == pytest.approx(0.5)


def test_the_original_itself_is_always_right_on_what_it_knows():
    # In one order of two it prefers the letter and not the option; in the mean it does know.
    wavering = [[-0.1, -5.0, -6.0], [-1.1, -1.0, -6.0]]
    assert accuracy([wavering], [wavering]).mean == 1.0


def test_a_model_that_always_says_one_letter_gets_chance_and_not_its_letter():
    constant = [[-0.1, -5.0, -5.0], [-5.0, -0.1, -5.0], [-5.0, -5.0, -0.1]]
    assert accuracy([constant], [TRUE]).mean == pytest.approx(1 / 3)


def test_without_the_original_or_its_knowledge_nothing_is_measured():
    given = {"choice_scores": [TRUE], "choice_correct": [[0]]}
    assert "original" in measure("known-choice-accuracy", given).note
    nothing = accuracy([TRUE, TRUE], [FALSE, FALSE])
    assert nothing.mean is None
    assert "none of the 2" in nothing.note


def test_a_model_whose_scores_are_no_numbers_is_not_measurable():
    scores = {
        "choice_scores": [[[float("nan"), 0.0]]],
        "original:choice_scores": [[[1.0, 0.0]]],
        "choice_correct": [[0]],
    }
    value = measure("known-choice-accuracy", scores)
    assert value.mean is None
    assert "not a number" in value.note
