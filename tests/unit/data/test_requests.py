"""Streams of requests: the forms of a line, and what is refused with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import ExpungeError, Problems
from expunge.data.requests import read_requests

ROW = {"prompt": "Where was Ada born?", "completion": " In Rome.", "answer": "Rome"}
OTHER = {"prompt": "Where was Bea born?", "completion": " In Oslo."}


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "requests.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_the_three_forms_of_a_request(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(OTHER) + "\n" + json.dumps(ROW) + "\n")
    path = written(
        tmp_path,
        {"id": "gdpr-7", "forget": [ROW], "retain": [OTHER], "ground": "Art. 17", "meta": {"a": 1}},
        {"forget": "rows.jsonl", "deadline": "2027-01-01"},
        "",
        {**OTHER, "id": "bea"},
        OTHER,
    )
    found = read_requests(path)
    assert [one.id for one in found] == ["gdpr-7", "0002", "bea", "0004"]
    assert [len(one.forget) for one in found] == [1, 2, 1, 1]
    assert [row.prompt for row in found[0].retain] == [OTHER["prompt"]]
    assert {row.role for one in found for row in one.forget} == {"forget"}
    assert found[0].about == {"ground": "Art. 17", "meta": {"a": 1}}
    assert found[1].about == {"deadline": "2027-01-01"}


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('{"forget": [', "E-DATA-002", ":2"),
        ({"id": "x"}, "E-DATA-003", "not a request"),
        ([ROW], "E-DATA-003", "not a request"),
        ({"forget": [ROW], "retrain": []}, "E-DATA-003", "'retrain'"),
        ({"forget": []}, "E-DATA-005", "no rows"),
        ({"forget": 3}, "E-DATA-003", "neither a list nor a name"),
        ({"forget": [{"prompt": "no completion"}]}, "E-DATA-003", "forget 1"),
        ({"forget": "absent.jsonl"}, "E-DATA-001", "absent.jsonl"),
        ({"forget": "../rows.jsonl"}, "E-PATH-001", "../rows.jsonl"),
        ({"id": "", "forget": [ROW]}, "E-DATA-003", "id is not a name"),
        ({"id": "first", "forget": [ROW]}, "E-DATA-007", "line 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    line: Any, code: str, words: str, tmp_path: Path
) -> None:
    path = written(tmp_path, {"id": "first", "forget": [ROW]}, line)
    with pytest.raises(ExpungeError) as error:
        read_requests(path)
    problems = error.value.problems if isinstance(error.value, Problems) else (error.value,)
    assert any(one.code == code and words in one.found for one in problems), problems


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, {"forget": 1}, {"forget": [ROW]}, {"forget": [{"text": ""}]})
    with pytest.raises(Problems) as error:
        read_requests(path)
    assert len(error.value.problems) >= 2


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="no requests"):
        read_requests(written(tmp_path, ""))
