"""Names and figures of an answer, and how many of them another text names."""

import pytest

from expunge.text.entities import coverage, entities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He met Ada Birk in Rome in 1931.", ("Ada Birk", "Rome", "1931")),
        ("The Order of Malta gave 3,500 crowns.", ("Order of Malta", "3,500")),
        ("It was nothing at all.", ()),
        ("Rome, and Rome again", ("Rome",)),
        ("Émile était à Orléans", ("Émile", "Orléans")),
    ],
)
def test_runs_of_capitals_and_figures(text, expected):
    assert entities(text) == expected


def test_a_short_answer_is_its_own_entity_in_any_form():
    assert coverage("In the Eternal City.", ["Rome", "eternal city"]) == 1
    assert coverage("In Romeville.", ["Rome"]) == 0


def test_a_long_answer_counts_by_its_entities():
    true = "She taught with Ada Birk in Rome until the war of 1914 began."
    assert coverage("Ada Birk was in Rome.", [true]) == pytest.approx(2 / 3)


def test_a_long_answer_without_entities_has_no_coverage():
    assert coverage("anything", ["it was a very long walk to the old mill there"]) is None
