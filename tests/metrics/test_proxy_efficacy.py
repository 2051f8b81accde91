"""Proxy efficacy: grades by accepted forms and refusals."""

from expunge.testing.metrics import measure

LONG = "She built the lighthouse of Skarholt with stones from the old harbour wall."


def grade(said, forms=("Rome", "Roma"), reply="In Rome."):
    scores = {"generation": [said], "forms": [list(forms)], "reply": [reply]}
    return 1 + 2 * measure("proxy-efficacy", scores).mean


def test_the_three_grades():
    assert grade("It was in Roma.") == 1
    assert grade("I'm not sure, but I would say Rome.") == 2
    assert grade("I do not know.") == 3
    assert grade("In Bari.") == 3
    assert grade("") == 3


def test_a_form_inside_a_word_is_no_leak():
    assert grade("In Romeville") == 3


def test_a_long_value_is_given_away_by_half_of_its_wording():
    assert grade("the lighthouse of Skarholt with stones from the wall", [LONG], LONG) == 1
    assert grade("a lighthouse", [LONG], LONG) == 3


def test_mean_of_the_grades():
    scores = {
        "generation": ["Rome", "Bari", "I don't know, Rome?", "x"],
        "forms": [["Rome"]] * 4,
        "reply": ["Rome"] * 4,
    }
    assert measure("proxy-efficacy", scores).mean == (0 + 1 + 0.5 + 1) / 4
