"""What small ensembles are trained by, and when one is said to be of no use."""

from dataclasses import replace

import pytest

from expunge.core.registry import methods
from expunge.engine.exact.knowing import Known
from expunge.engine.rates import learning_rate, passes, run_length, trains_head

LARGE, SMALL = 500_000_000, 1_040_000


@pytest.mark.parametrize("method", ["sisa", "s3t"])
def test_the_papers_values_hold_from_half_a_billion_parameters(method: str) -> None:
    params, card = methods.params(method, {}), methods.card(method).extra
    for size in (LARGE, 7_000_000_000):
        assert learning_rate(params, size, adapter=True, card=card) == 2e-5
        assert (passes(params, size), trains_head(params, size)) == (3, False)
        assert run_length(params, 10, size) == 30
    assert learning_rate(params, SMALL, adapter=True, card=card) == pytest.approx(1.2e-3)
    assert (passes(params, SMALL), trains_head(params, SMALL)) == (14, True)
    assert run_length(params, 10, SMALL) == 140


def test_what_is_given_holds_at_every_size() -> None:
    params = replace(methods.params("sisa", {}), epochs=2, lr=3e-4, head="always")
    for size in (LARGE, SMALL):
        assert learning_rate(params, size, adapter=True) == 3e-4
        assert (passes(params, size), run_length(params, 10, size)) == (2, 20)
        assert trains_head(params, size)
        assert not trains_head(replace(params, head="never"), size)
    assert run_length(replace(params, max_steps=7), 10, SMALL) == 7


@pytest.mark.parametrize(
    ("alone", "heard", "words"),
    [
        (0.9, 0.8, ""),
        (0.55, 0.55, "learnt little"),
        (0.9, 0.55, "does not say them"),
        (0.9, 0.61, ""),
    ],
)
def test_half_of_the_original_s_lead_is_enough(alone: float, heard: float, words: str) -> None:
    known = Known(rows=9, base=0.2, original=1.0, alone=alone, heard=heard)
    said = known.caution(5, "probabilities")
    assert words in said
    assert bool(said) == bool(words)


def test_where_the_original_has_no_lead_nothing_is_said() -> None:
    """Rows that the base knows as well, or that nobody does."""
    for level in (0.0, 0.95):
        known = Known(rows=9, base=level, original=level + 0.05, alone=level, heard=0.0)
        assert known.caution(5, "probabilities") == ""
