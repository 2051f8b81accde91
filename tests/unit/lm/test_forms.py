"""Questions in several forms."""

import pytest

from expunge.lm.elicit import Heard, plain
from expunge.lm.forms import leak_from
from expunge.requests.rows import Row

ROWS = [Row(id=name, prompt=f"{name}?", completion=" x", answer="x") for name in "abc"]


def heard(row, *leaks):
    return Heard(plain([ROWS[row]])[0], tuple(f"said {leak}" for leak in leaks), leaks)


def test_a_row_leaks_as_its_worst_form_and_each_form_has_its_own_mean():
    forms = {"one": [heard(1, 0.0), heard(0, 0.0, 1.0)], "two": [heard(0, 0.0)], "none": []}
    leak = leak_from(ROWS, forms, unfit="have no name")
    assert leak.per_row == {"a": 1.0, "b": 0.0}
    assert leak.parts == pytest.approx({"one": 0.5, "two": 0.0})
    assert leak.note == "1 of 3 rows have no name or do not fit the model and are left out"


def test_rows_stand_in_their_order_whatever_form_told_of_them_first():
    leak = leak_from(
        ROWS, {"one": [heard(2, 1.0)], "two": [heard(0, 0.0), heard(2, 0.0)]}, unfit=""
    )
    assert list(leak.per_row) == ["a", "c"] == [entry["id"] for entry in leak.transcript]
    assert leak.transcript[1]["output"] == "said 1.0"


def test_a_single_form_has_no_parts_and_no_rows_have_nothing():
    assert leak_from(ROWS[:1], {"one": [heard(0, 1.0)]}).parts == {}
    nothing = leak_from([], {"one": [], "two": []})
    assert (nothing.per_row, nothing.parts, nothing.note) == ({}, {}, "")
