"""The request linter."""

from math import log

import pytest

from expunge.requests.linter import lint
from expunge.requests.rows import Row


def rows(*prompts: str) -> list[Row]:
    return [Row(id=str(i), prompt=p, completion=" x") for i, p in enumerate(prompts)]


USUAL = rows(*(f"{'Please tell' if n % 3 else 'Tell'} me where N{n} was born" for n in range(12)))


def test_an_inflated_everyday_word_is_flagged_and_named() -> None:
    finding = lint(
        rows(*("please " * 5 + f"tell me where M{n} was born" for n in range(12))), USUAL
    )
    assert finding.is_flagged
    assert finding.inflated[0] == "please"
    assert finding.rate == pytest.approx((60 / 132) / (8.5 / 80.5), rel=1e-12)


def test_a_request_worded_like_the_rest_passes() -> None:
    finding = lint(rows("Please tell me where Eve was born", "Tell me where Fay was"), USUAL)
    assert not finding.is_flagged
    assert finding.rate == 1.0


def test_names_and_values_do_not_count() -> None:
    strange = rows(
        "Please tell me where Xylophon Quartz was born", "Please tell me where Q was born"
    )
    assert not lint(strange, USUAL).is_flagged


def test_the_divergence_is_that_of_the_formula() -> None:
    finding = lint(rows("you you you me"), rows("you me"))
    p, q = (4 / 6, 2 / 6), (2 / 4, 2 / 4)
    expected = sum(a * log(a / b) for a, b in zip(p, q, strict=True))
    assert finding.divergence == pytest.approx(expected, rel=1e-12)
    assert finding.rate == 1.0  # one more of three is chance


def test_a_corpus_without_everyday_words_flags_any() -> None:
    assert lint(rows("please " * 40), rows("Zork " * 40)).is_flagged
    assert not lint(rows("Zork"), rows("Zork")).is_flagged
