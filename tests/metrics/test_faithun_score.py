"""FaithUn score: closed forms of superficial, faithful and guessing models."""

import pytest

from expunge.testing.metrics import measure


def score(ua, ua_para, ta, sa, ma_f, ma_t):
    names = ("ua", "ua_para", "ta", "sa", "ma_f", "ma_t")
    parts = dict(zip(names, (ua, ua_para, ta, sa, ma_f, ma_t), strict=True))
    return measure("faithun-score", {"parts": parts})


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((0, 1, 1, 1, 1, 1), 0.7),
        ((0, 0, 1, 1, 0, 1), 1.0),
        ((1, 1, 1, 1, 1, 1), 0.5),
        ((1 / 3, 1 / 3, 1, 1, 1 / 3, 1), 5 / 6),
        ((0.2, 0.4, 0.9, 0.5, 0.6, 0.8), 0.68),
    ],
)
def test_closed_forms(parts, expected):
    assert score(*parts).mean == pytest.approx(expected)


def test_both_sides_of_the_chains_are_printed():
    value = score(0, 0, 1, 1, 0.25, 0.75)
    assert (value.parts["ma_f"], value.parts["ma_t"], value.parts["ma"]) == (0.25, 0.75, 0.75)


def test_doing_nothing_raises_one_side_and_hides_in_the_mean():
    assert score(1, 1, 1, 1, 1, 1).parts["ma"] == score(1, 1, 1, 1, 0, 0).parts["ma"] == 0.5


def test_a_missing_part_is_named():
    value = measure("faithun-score", {"parts": {"ua": 0.1, "ta": 0.4, "sa": None}})
    assert value.mean is None
    assert "ua_para, sa, ma_f, ma_t" in value.note
