"""Errors say three things, have a stable code, and come together."""

import pickle

import pytest

from expunge.core.errors import CODES, Exit, ExpungeError, Problems, nearest, raise_all

USAGE = ExpungeError("E-USE-001", "There is no 'npoo'.", "a method.", "Did you mean 'npo'?")
UNSAFE = ExpungeError("E-MODEL-003", "Pickled weights.", "safetensors.", "Convert them.")


def test_an_error_says_what_was_found_expected_and_to_do() -> None:
    assert str(USAGE) == (
        "[E-USE-001] There is no 'npoo'. Expected: a method. Next: Did you mean 'npo'?"
    )
    assert USAGE.exit_code is Exit.BAD_INPUT
    assert USAGE.as_json() == {
        "error": {
            "code": "E-USE-001",
            "found": "There is no 'npoo'.",
            "expected": "a method.",
            "next": "Did you mean 'npo'?",
        }
    }


def test_nothing_one_and_many_are_raised_as_such() -> None:
    raise_all([])
    with pytest.raises(ExpungeError) as one:
        raise_all([USAGE])
    assert one.value is USAGE
    with pytest.raises(Problems) as many:
        raise_all([USAGE, UNSAFE])
    assert many.value.problems == (USAGE, UNSAFE)
    assert str(USAGE) in str(many.value)
    assert str(UNSAFE) in str(many.value)
    assert len(many.value.as_json()["problems"]) == 2  # type: ignore[arg-type]


def test_an_unsafe_file_among_many_problems_decides_the_exit_code() -> None:
    assert Problems([USAGE, UNSAFE]).exit_code is Exit.UNSAFE
    assert Problems([USAGE, USAGE]).exit_code is Exit.BAD_INPUT


def test_every_code_has_its_shape_and_no_explanation_twice() -> None:
    assert all(code.startswith("E-") and code[-3:].isdigit() for code in CODES)
    assert len({explanation for _, explanation in CODES.values()}) == len(CODES)


def test_the_nearest_names_come_first_and_otherwise_the_known_ones() -> None:
    assert nearest("npoo", ["ga", "npo", "simnpo"]).startswith("Did you mean 'npo'")
    assert nearest("xyz", ["ga", "npo"]) == "Known: ga, npo."
    assert nearest("xyz", [f"{i:02}" for i in range(25)]).endswith("19 and 5 more.")


def test_errors_reach_other_processes_whole():
    one = ExpungeError("E-USE-001", "this", "that", "other")
    both = Problems([one, ExpungeError("E-USE-002", "a", "b", "c")])
    again = [pickle.loads(pickle.dumps(error)) for error in (one, both)]  # noqa: S301
    assert [str(error) for error in again] == [str(one), str(both)]
    assert again[1].as_json() == both.as_json()
