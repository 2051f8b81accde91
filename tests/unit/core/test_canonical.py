"""Canonical JSON: one spelling for each value, words for what has none."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.core.canonical import canonical, digest, file_digest
from expunge.core.errors import ExpungeError

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_the_example_of_the_standard() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    assert canonical(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


@given(VALUES)
def test_reading_and_writing_again_changes_no_byte(value: object) -> None:
    spelled = canonical(value)
    # a JSON number is a double: 2.0**53 is spelled without a point and must be read as one
    assert canonical(json.loads(spelled, parse_int=float)) == spelled


def test_the_order_of_keys_does_not_matter_and_the_order_of_a_list_does() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest((1, 2)) == digest([1, 2])


def test_the_digest_is_sha256() -> None:
    # sha256 of the two bytes {}
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 2**53])
def test_a_number_json_cannot_hold_is_refused(number: float) -> None:
    with pytest.raises(ExpungeError, match="E-DATA-008"):
        canonical({"x": [number]})


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}])
def test_half_a_surrogate_pair_is_refused(value: object) -> None:
    with pytest.raises(ExpungeError, match="E-DATA-010"):
        canonical(value)


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object()])
def test_another_type_is_a_defect_of_the_caller(value: object) -> None:
    with pytest.raises(ValueError, match=r"unsupported|keys"):
        canonical(value)


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"{}")
    assert file_digest(tmp_path / "x") == digest({})
    (tmp_path / "x").write_bytes(b"{ }")
    assert file_digest(tmp_path / "x") != digest({})
