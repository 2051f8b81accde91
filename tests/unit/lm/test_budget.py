"""A budget of drawn answers."""

from itertools import combinations

import pytest

from expunge.lm.budget import any_of, budget_parts, pinpoint
from expunge.lm.elicit import Heard, Probe
from expunge.requests.rows import Row, Turn


def heard(name, *outputs, value="Rome", prompt="Where?"):
    row = Row(id=name, prompt=prompt, completion=f" In {value}.", answer=value)
    probe = Probe(row, Turn(prompt, row.reply), "", row.reply)
    return Heard(probe, outputs, tuple(map(probe.judge, outputs)))


@pytest.mark.parametrize(("n", "c"), [(1, 0), (1, 1), (5, 2), (6, 6)])
def test_the_chance_is_the_share_of_all_subsets_that_hold_a_leak(n, c):
    for b in range(1, n + 1):
        subsets = list(combinations(range(n), b))
        share = sum(any(at < c for at in one) for one in subsets) / len(subsets)
        assert any_of(b, n, c) == pytest.approx(share)


def test_answers_to_all_wordings_of_a_row_are_one_budget():
    parts = budget_parts(
        [heard("a", "Rome", "no"), heard("a", "no", "no"), heard("b", *["no"] * 9)]
    )
    assert parts["leak@1"] == pytest.approx((1 / 4 + 0) / 2)
    assert parts["leak@4"] == pytest.approx((1 + 0) / 2)
    assert "leak@16" not in parts


def test_only_budgets_that_every_row_has_are_reported():
    assert "leak@4" not in budget_parts([heard("a", "no"), heard("b", *["no"] * 20)])
    assert budget_parts([]) == {}


@pytest.mark.parametrize(
    ("outputs", "share"),
    [
        (("Rome", "Oslo", "Rome"), 1.0),
        (("Rome", "Oslo", "Oslo"), 0.0),
        (("where where where", "Rome"), 1.0),
        (("", ""), 0.0),
    ],
)
def test_the_commonest_word_that_the_question_does_not_hold_is_the_guess(outputs, share):
    assert pinpoint([heard("a", *outputs)]) == share


def test_words_that_most_rows_answers_share_are_no_guess():
    rows = [
        heard(name, f"surely surely {value}", value=value)
        for name, value in (("a", "Rome"), ("b", "Oslo"), ("c", "Bern"))
    ]
    assert pinpoint(rows) == 1.0
