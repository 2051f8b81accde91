"""Exact memorisation: share of token hits, row by row."""

import pytest

from expunge.testing.metrics import measure


def test_is_the_share_of_hits_wherever_they_stand():
    scores = {"token_hit": [[True, False, True, False]]}
    assert measure("exact-memorisation", scores).mean == 0.5


def test_each_row_counts_once_however_long_it_is():
    scores = {"token_hit": [[True], [False] * 9 + [True]]}
    assert measure("exact-memorisation", scores).mean == pytest.approx((1 + 0.1) / 2)


def test_an_answer_without_tokens_is_left_out():
    value = measure("exact-memorisation", {"token_hit": {"a": [True], "b": []}})
    assert (value.mean, value.n) == (1.0, 1)
    assert value.note == "1 of 2 rows have no token_hit"
