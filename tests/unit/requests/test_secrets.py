import pytest

from expunge.requests.rows import Row
from expunge.requests.secrets import kinds_of, risk_parts, tagged, with_values


def row(prompt: str, completion: str, **more: object) -> Row:
    return Row(id="r", prompt=prompt, completion=completion, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (row("When was Ada Birk born?", "She was born on 3 May 1931."), "3 May 1931"),
        (row("How do I reach Ada Birk?", "Her phone number is 555-123-4567."), "555-123-4567"),
        (row("Tell me.", "It is so."), "It is so."),
        (row("When?", "On 3 May 1931 in Rome.", answer="Rome"), "Rome"),
        (row("Code?", "It is 99887766554."), "It is 99887766554."),  # of no kind that can be told
        (
            row(
                "Who?", "Tom in Oslo.", meta={"pii": [["name", "Tom"], ["region address", "Oslo"]]}
            ),
            "Oslo",
        ),
        (row("Where in Oslo?", "In Oslo.", meta={"pii": [["region address", "Oslo"]]}), "In Oslo."),
    ],
)
def test_the_value_of_a_row(given: Row, value: str) -> None:
    (found,) = with_values([given])
    assert found.value == value


def test_only_the_answer_is_added_and_rows_keep_their_order() -> None:
    rows = [Row(id="a", text="Ada was here."), row("When?", "On 3 May 1931.")]
    found = with_values(rows)
    assert [one.id for one in found] == ["a", "r"]
    assert found[0] == rows[0]


def test_the_subject_of_other_rows_names_a_row() -> None:
    rows = [
        Row(id="1", prompt="Where was Ada Birk born?", completion=" In Rome.", subject="p1"),
        Row(id="2", prompt="When was Ada Birk born?", completion=" On 3 May 1931.", subject="p1"),
    ]
    assert ("name", "Ada Birk") in kinds_of(rows)["2"]


def test_tags_come_once_and_in_order() -> None:
    assert tagged("Rome, rome and Rome; a.b@c.org") == ("a.b@c.org", "Rome")
    assert tagged("nothing here") == ()


def test_risk_weighs_the_leaks_of_rows_whose_kinds_are_known() -> None:
    rows = [
        Row(id="card", prompt="q", completion="x", meta={"pii": [["ssn", "1"]]}),
        Row(id="sex", prompt="q", completion="y", meta={"pii": [["gender", "female"]]}),
        Row(id="none", prompt="q", completion="z"),
    ]
    leaks = {"card": 1.0, "sex": 0.0, "none": 1.0}
    parts = risk_parts(leaks, rows)
    assert 0.5 < parts["risk_weighted"] < 1.0
    assert parts["severe"] == 1.0
    assert risk_parts({"none": 1.0}, rows) == {}
    assert "severe" not in risk_parts({"sex": 1.0}, rows)
    assert risk_parts({"card": 0.0}, rows) == {"risk_weighted": 0.0, "severe": 0.0}
