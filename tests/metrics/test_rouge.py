"""ROUGE: the closed forms and the knobs that change the number."""

import pytest

from expunge.testing.metrics import measure

SCORES = {"reply": ["the cat sat on the mat"], "generation": ["on the mat the cat"]}


@pytest.mark.parametrize(
    ("overlap", "statistic", "expected"),
    [
        ("l", "recall", 0.5),
        ("l", "precision", 0.6),
        ("l", "f1", 0.5454545454545454),
        ("1", "recall", 0.8333333333333334),
    ],
)
def test_closed_form(overlap, statistic, expected):
    value = measure("rouge", SCORES, overlap=overlap, statistic=statistic)
    assert value.mean == pytest.approx(expected, rel=1e-12)


def test_stems_match_where_whole_words_do_not():
    scores = {"reply": ["she writes novels"], "generation": ["she writing novel"]}
    assert measure("rouge", scores, stem=True).mean == 1
    assert measure("rouge", scores, stem=False).mean == pytest.approx(1 / 3)


def test_silence_recalls_nothing_and_is_counted():
    scores = {"reply": ["yes it is", "no"], "generation": ["", "no"]}
    value = measure("rouge", scores)
    assert (value.mean, value.n) == (0.5, 2)
