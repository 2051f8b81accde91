"""Values and tables as people read them."""

import io

import pytest
from rich.console import Console

from expunge.cli.facts import columns, duration, facts, plain, size


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "-"),
        ([], "-"),
        (True, "yes"),
        (False, "no"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        (12, "12"),
        ([0.5, 1.0], "0.5 to 1"),
        (["npo", "ga"], "npo, ga"),
        ((1, 2, 3), "1, 2, 3"),
        ("as it is", "as it is"),
    ],
)
def test_a_value_in_words(value, told):
    assert plain(value) == told


@pytest.mark.parametrize(("seconds", "told"), [(42, "42 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_time_span_in_words(seconds, told):
    assert duration(seconds) == told


@pytest.mark.parametrize(("count", "told"), [(999, "999 B"), (1.5e6, "1.5 MB"), (2e12, "2000 GB")])
def test_a_number_of_bytes_in_words(count, told):
    assert size(count) == told


def lines(page: object) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=80, markup=True).print(page)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_nested_names_are_joined_and_text_in_brackets_survives():
    page = facts({"rows": {"forget": 8}, "out_folder": "[bold]x"})
    assert lines(page) == ["rows.forget  8", "out folder   [bold]x"]


def test_a_table_has_a_head_and_a_line_for_each_row():
    page = columns(("attack", "outcome"), [("direct", "pass"), ("lens", None)])
    assert lines(page) == ["attack  outcome", "direct  pass", "lens    -"]
