"""Spots that several models share."""

from dataclasses import replace

import pytest

from expunge.lm.representations import spots
from expunge.lm.siblings import shared_places
from expunge.lm.subject import Subject
from expunge.testing.micro import micro_world
from expunge.testing.tiny import tiny_model, tiny_tokenizer

WORLD = micro_world(people=2)


def subject(**shape):
    return Subject(
        tiny_model("llama", vocab=len(WORLD.tokenizer), positions=64, **shape), WORLD.tokenizer
    )


def test_models_of_one_shape_share_the_spots_of_the_rows_they_can_read():
    fits = WORLD.forget[0]
    odd = [
        replace(fits, id="long", completion=fits.completion * 20),
        replace(fits, id="elsewhere", answer="something else"),
    ]
    one = subject()
    places, note = shared_places(one, {"original": subject(seed=1)}, [fits, *odd])
    assert places == spots(one, [fits])
    assert note == "2 of 3 rows cannot be read or do not hold their value and are left out"


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (None, "no original to compare with"),
        (subject(layers=3), "do not fit one another (E-USE-006)"),
        (
            Subject(tiny_model("llama", positions=64), tiny_tokenizer(["Where?"])),
            "do not fit one another (E-MODEL-011)",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said(other, why):
    places, note = shared_places(subject(), {"original": other}, WORLD.forget)
    assert not places
    assert why in note


def test_every_missing_model_is_named():
    _, note = shared_places(subject(), {"original": None, "reference": None}, WORLD.forget)
    assert note == "no original and no reference to compare with"
