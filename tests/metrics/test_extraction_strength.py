"""Extraction strength: the tail that is recalled, corrected and as published."""

import pytest

from expunge.testing.metrics import measure


@pytest.mark.parametrize(
    ("hits", "expected"),
    [
        ([True, True, True, True], 1.0),
        ([True, False, True, True], 0.5),
        ([False, False, False, True], 0.25),
        ([True, True, True, False], 0.0),
    ],
)
def test_counts_the_tail_behind_the_last_miss(hits, expected):
    assert measure("extraction-strength", {"token_hit": [hits]}).mean == expected


def test_published_script_gives_one_over_n_when_the_last_token_is_wrong():
    scores = {"token_hit": [[True, True, True, False]]}
    assert measure("extraction-strength", scores, compat=True).mean == 0.25


def test_published_and_corrected_forms_differ_nowhere_else():
    scores = {"token_hit": [[False, True], [True, True, True], [True, False, True, True]]}
    corrected, published = (
        measure("extraction-strength", scores, compat=compat) for compat in (False, True)
    )
    assert corrected.per_row == published.per_row


def test_long_and_short_answers_count_alike():
    scores = {"token_hit": [[True], [False] * 9 + [True]]}
    assert measure("extraction-strength", scores).mean == pytest.approx((1 + 0.1) / 2)
