"""Upstream files: three formats, and everything that can be wrong with them."""

import json

import pytest

from expunge.core.errors import ExpungeError, Problems
from expunge.data.upstream import record_id, records

RECORDS = [{"q": "One?", "a": "1"}, {"q": "Two?", "a": "2\u2028b"}]
QA = ("q", "a")


@pytest.fixture
def file(tmp_path):
    def write(content, name="data.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(*args, **options):
    with pytest.raises(ExpungeError) as refusal:
        records(*args, **options)
    return refusal.value


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def test_json_lines_under_any_suffix_split_at_line_feeds_only(file):
    assert records(file(lines(RECORDS)), QA) == RECORDS


def test_a_list_and_a_list_under_a_key(file):
    assert records(file(json.dumps(RECORDS)), QA) == RECORDS
    assert records(file(json.dumps({"data": RECORDS})), QA, under="data") == RECORDS


def test_csv_with_and_without_a_header(file):
    assert records(file("q,a\nOne?,1\n", "x.csv"), QA) == [RECORDS[0]]
    assert records(file("One?,1\n", "x.csv"), QA, header=QA) == [RECORDS[0]]


def test_a_byte_order_mark_is_no_content(file):
    assert records(file(b"\xef\xbb\xbf" + lines(RECORDS).encode()), QA) == RECORDS


def test_every_record_without_a_column_is_reported_with_its_line(file):
    path = file(lines([{"q": "One?"}, *RECORDS, {"a": 3, "q": "Four?"}]))
    with pytest.raises(Problems) as found:
        records(path, QA)
    said = [problem.found for problem in found.value.problems]
    assert ["data.json:1" in said[0], "data.json:4" in said[1], len(said)] == [True, True, 2]


def test_types_of_columns_are_checked(file):
    path = file(lines([{"q": "One?", "n": [1]}]))
    assert records(path, {"q": str, "n": list})
    assert refused(path, {"q": str, "n": (int, float)}).code == "E-DATA-003"


def test_cut_files_are_broken_json(file):
    assert refused(file(lines(RECORDS)[:-8]), QA).code == "E-DATA-002"
    assert refused(file(json.dumps(RECORDS)[:-8]), QA).code == "E-DATA-002"


def test_missing_empty_and_foreign_files(file, tmp_path):
    assert refused(tmp_path / "none.json").code == "E-DATA-001"
    assert refused(file("")).code == "E-DATA-005"
    assert refused(file(b"\xff\xfe\x00")).code == "E-DATA-010"
    assert refused(file("[1]"), QA).code == "E-DATA-003"
    assert refused(file(json.dumps({"other": []})), under="data").code == "E-DATA-003"


def test_a_record_that_stands_twice_is_named(file):
    error = refused(file(lines([*RECORDS, RECORDS[0]])), QA, unique=QA)
    assert error.code == "E-DATA-007"
    assert "record 3 repeats record 1" in error.found
    assert records(file(lines([RECORDS[0], {"q": "One?", "a": "other"}])), QA, unique=QA)


def test_ids_name_question_and_answer():
    assert record_id("q", "a") == record_id("q", "a") != record_id("qa", "")
    assert len(record_id("q", "a")) == 16
