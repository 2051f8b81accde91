"""What satisfies ``--require``: the class itself, or a stronger claim of having forgotten."""

import pytest

from expunge.core.results import Value, Verdict

STRENGTH = [
    Verdict.FORGOTTEN_BLACKBOX,
    Verdict.FORGOTTEN_WHITEBOX,
    Verdict.RETRAIN_EQUIVALENT,
]


@pytest.mark.parametrize("found", Verdict)
@pytest.mark.parametrize("required", Verdict)
def test_a_verdict_satisfies_itself_and_weaker_claims_only(
    found: Verdict, required: Verdict
) -> None:
    stronger = (
        found in STRENGTH
        and required in STRENGTH
        and STRENGTH.index(found) > STRENGTH.index(required)
    )
    assert found.at_least(required) == (found == required or stronger)


def test_the_number_of_rows_is_that_of_the_rows_measured() -> None:
    assert Value(mean=0.5, per_row={"a": 0.0, "b": 1.0}).n == 2
    assert Value(mean=None, note="no reference").n == 0
