import json
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import ExpungeError
from expunge.core.limits import DIGITS, KEYS, LINE_BYTES, NESTING
from expunge.data.jsonl import MOST_PROBLEMS, read_rows, write_rows
from expunge.data.retain import choose_retain, neutral_rows
from expunge.data.strict_json import parse_line
from expunge.requests.rows import Row


def problems_of(path, role=None):
    with pytest.raises(ExpungeError) as caught:
        read_rows(path, role)
    return list(getattr(caught.value, "problems", [caught.value]))


def problems_in(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return problems_of(path)


def test_rows_are_written_and_read_back(tmp_path):
    rows = [
        Row(id="1", role="forget", text="a\u2028b\x85c"),
        Row(id="2", role="forget", prompt="é?", completion="ü", meta={"n": [1.5, None]}),
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl", "forget") == rows
    written = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 2
    assert "é" in written


def test_lines_end_at_a_line_feed_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "a\u2028b\x85c"}\r\n\n  \n{"text": "d"}'.encode())
    rows = read_rows(path, "retain")
    assert [row.text for row in rows] == ["a\u2028b\x85c", "d"]
    assert rows[1].id == Row.parse({"text": "d"}, where="x:4").id
    assert {row.role for row in rows} == {"retain"}


def test_a_byte_order_mark_at_the_beginning_is_skipped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    assert read_rows(path)[0].text == "a"
    assert (
        problems_in(tmp_path, b'{"text": "a"}\n\xef\xbb\xbf{"text": "b"}')[0].code == "E-DATA-002"
    )


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ('{"text": "a"}\n{"text": "b"', "E-DATA-002", ":2:13"),
        ('  {"text": b}', "E-DATA-002", ":1:12"),
        ('{"text": "a"} {"text": "b"}', "E-DATA-002", ":1:15"),
        ('{"text": "a\tb"}', "E-DATA-002", ":1:12"),
        ('{"text": "a", "text": "b"}', "E-DATA-002", ":1:2"),
        ('{"text": "a", "meta": {"x": NaN}}', "E-DATA-008", ":1:29"),
        ('{"text": "a", "meta": {"x": -Infinity}}', "E-DATA-008", ":1:29"),
        ('{"text": "a", "meta": {"x": 1e999}}', "E-DATA-008", ":1:29"),
        ('{"text": "a", "meta": {"x": ' + "9" * (DIGITS + 1) + "}}", "E-DATA-008", ":1:29"),
        ('{"text": "a", "meta": ' + "[" * 40 + "]" * 40 + "}", "E-DATA-009", ":1:"),
        ('{"text": "a", "meta": ' + "[" * 100_000, "E-DATA-009", ":1:"),
        (b'{"text": "\xff"}', "E-DATA-010", ":1:11"),
        ('{"text": "a"}'.encode("utf-16"), "E-DATA-010", ":1:1"),
        ('{"text": "\\ud800"}', "E-DATA-010", ":1"),
        ('{"text": "\\u0000"}', "E-DATA-010", ":1"),
        ('["text"]', "E-DATA-003", ":1"),
        ("7", "E-DATA-003", ":1"),
        ('{"promt": "a", "prompt": "b", "completion": "c"}', "E-DATA-004", ":1"),
        ("", "E-DATA-005", ""),
        ("\n\n", "E-DATA-005", ""),
    ],
)
def test_hostile_lines_are_refused_with_their_place(tmp_path, content, code, place):
    problem = problems_in(tmp_path, content)[0]
    assert problem.code == code
    assert f"rows.jsonl{place}" in problem.found
    str(problem).encode()


def test_too_many_keys_are_refused_and_the_most_allowed_are_not():
    many = {str(i): i for i in range(KEYS + 1)}
    with pytest.raises(ExpungeError, match="E-DATA-009"):
        parse_line(json.dumps(many).encode(), "x:1")
    del many["0"]
    assert parse_line(json.dumps(many).encode(), "x:1") == many


def test_brackets_inside_strings_are_no_nesting():
    text = '[{"' * 60 + "\\\\\\" + '"'
    line = json.dumps({"text": text}).encode()
    assert parse_line(line, "x:1") == {"text": text}
    deep = json.loads("[" * NESTING + "]" * NESTING)
    assert parse_line(json.dumps(deep).encode(), "x:1") == deep


def test_the_nearest_known_column_is_suggested(tmp_path):
    problem = problems_in(tmp_path, '{"completions": "a", "prompt": "b", "completion": "c"}')[0]
    assert "'completion'" in problem.next


def test_ids_that_stand_twice_are_found_and_default_ids_differ(tmp_path):
    problem = problems_in(tmp_path, '{"id": "a", "text": "b"}\n{"id": "a", "text": "c"}\n')[0]
    assert problem.code == "E-DATA-007"
    assert "rows.jsonl:2" in problem.found
    path = tmp_path / "same.jsonl"
    path.write_text('{"text": "b"}\n{"text": "b"}\n')
    assert len({row.id for row in read_rows(path)}) == 2


def test_problems_are_collected_up_to_a_number(tmp_path):
    assert len(problems_in(tmp_path, "{}\n" * 3 + '{"text": "a"}\n' + "{}\n" * 3)) == 6
    problems = problems_in(tmp_path, "{}\n" * 200)
    assert len(problems) == MOST_PROBLEMS
    assert "rows.jsonl:50" in problems[-1].found


def test_a_line_of_exactly_the_limit_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    text = "a" * (LINE_BYTES - len('{"text": ""}'))
    path.write_text(f'{{"text": "{text}"}}\n{{"text": "b"}}')
    assert [len(row.text) for row in read_rows(path)] == [len(text), 1]
    path.write_text(f'{{"text": "{text}a"}}\n{{"text": "b"}}')
    assert [problem.code for problem in problems_of(path)] == ["E-DATA-009"]


def test_a_line_of_101_megabytes_is_refused_in_little_memory(tmp_path):
    path = tmp_path / "rows.jsonl"
    with open(path, "wb") as handle:
        handle.write(b'{"text": "a"}\n{"text": "')
        handle.truncate(101_000_000)
    tracemalloc.start()
    problem = problems_of(path)[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem.code == "E-DATA-009"
    assert "rows.jsonl:2" in problem.found
    assert peak < 8 * LINE_BYTES


@pytest.mark.parametrize("name", ["absent.jsonl", "folder", "file/rows.jsonl"])
def test_what_cannot_be_opened_is_said(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    problem = problems_of(tmp_path / name)[0]
    assert problem.code == "E-DATA-001"
    assert name.split("/")[-1] in problem.found


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('{}[]":,\\ud80NaInfity0123e+- \n', max_size=40)))
def test_nothing_but_our_errors_comes_out_of_any_line(line):
    data = line if isinstance(line, bytes) else line.encode()
    with suppress(ExpungeError):
        assert isinstance(Row.parse(parse_line(data, "x:1"), where="x:1"), Row)


def test_neutral_rows_are_many_different_and_short():
    rows = neutral_rows(120)
    assert len(rows) == 120
    assert len({row.text for row in rows}) == len({row.id for row in rows}) == 120
    assert all(row.role == "retain" and 5 < len(row.text.split()) < 30 for row in rows)
    assert neutral_rows(7) == rows[:7]
    assert neutral_rows(0) == []


def test_the_retain_set_is_the_users_then_the_holdout_then_ours():
    mine, other = [Row(id="1", text="a", role="retain")], [Row(id="2", text="b", role="holdout")]
    assert choose_retain(mine, other) == (mine, "given")
    rows, origin = choose_retain([], other)
    assert (origin, [row.id for row in rows], rows[0].role) == ("holdout", ["2"], "retain")
    rows, origin = choose_retain([], [])
    assert origin == "bundled"
    assert len(rows) >= 120
