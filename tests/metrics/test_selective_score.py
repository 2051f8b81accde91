"""Selective score: forgotten here, kept there, beside the original."""

import pytest

from expunge.testing import measure

ORIGINAL = {"ufk_original": 80.0, "sk_original": 40.0, "urk_original": 50.0}


def selective(**parts):
    return measure("selective-score", {"parts": {**ORIGINAL, **parts}})


@pytest.mark.parametrize(
    ("model", "score"),
    [
        ({"ufk": 0.0, "sk": 40.0, "urk": 50.0}, 1.0),
        ({"ufk": 80.0, "sk": 40.0, "urk": 50.0}, 2 / 3),
        ({"ufk": 0.0, "sk": 0.0, "urk": 0.0}, 1 / 3),
        ({"ufk": 20.0, "sk": 10.0, "urk": 40.0}, (0.75 + 0.25 + 0.8) / 3),
    ],
)
def test_the_mean_of_what_was_forgotten_and_kept(model, score):
    value = selective(**model)
    assert value.mean == pytest.approx(score)
    assert sum(value.parts.values()) / 3 == pytest.approx(score)


def test_each_part_moves_the_score_its_own_way():
    base = selective(ufk=40.0, sk=20.0, urk=25.0).mean
    assert selective(ufk=30.0, sk=20.0, urk=25.0).mean > base
    assert selective(ufk=40.0, sk=30.0, urk=25.0).mean > base
    assert selective(ufk=40.0, sk=20.0, urk=35.0).mean > base


def test_an_original_that_never_knew_is_no_measure():
    value = selective(ufk=0.0, sk=40.0, urk=50.0, ufk_original=0.0)
    assert value.mean is None
    assert "knows nothing of ufk" in value.note


def test_a_missing_part_is_named():
    value = selective(ufk=0.0, sk=40.0)
    assert value.mean is None
    assert "urk" in value.note
