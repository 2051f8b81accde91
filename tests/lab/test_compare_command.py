"""``expunge compare`` as people and programs call it."""

import json

import pytest
from compare_records import line, wave, write_audit, write_bench

from expunge.cli import main
from expunge.core.errors import Exit

LONG = "a-method-of-a-name-so-long-that-lines-become-longer-than-a-console-is-wide-seed0" * 2


@pytest.fixture
def folder(tmp_path):
    lines = [
        line("original", wave("facts", 0.9), wave("others", 0.8)),
        line(LONG, wave("facts", 0.2), wave("others", 0.7), "ga", 0),
    ]
    return write_bench(tmp_path / "bench", lines)


def ran(capsys, *arguments):
    code = main([str(one) for one in arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_people_see_tables_and_how_many_differences_stand(capsys, folder):
    code, out, _ = ran(capsys, "compare", folder)
    assert code == 0
    for told in ("restor default", "Forgetting and utility", "Differences from original", "Holm"):
        assert told in out
    assert "2 differences are shown" in out


def test_json_is_one_value_and_format_json_the_same(capsys, folder):
    _, out, _ = ran(capsys, "compare", folder, "--json")
    _, again, _ = ran(capsys, "compare", folder, "--format", "json")
    assert json.loads(out) == json.loads(again)
    assert json.loads(out)["format"] == "unlearning-comparison/1"


def test_markdown_and_csv_keep_their_lines_whole(capsys, folder, tmp_path):
    for form, file in (("markdown", "comparison.md"), ("csv", "comparison.csv")):
        code, out, _ = ran(capsys, "compare", folder, "--format", form, "--out", tmp_path / "out")
        assert code == 0
        assert out == (tmp_path / "out" / file).read_text()
        assert max(map(len, out.splitlines())) > 120


def test_the_page_is_named_once_it_is_written(capsys, folder, tmp_path):
    _, out, _ = ran(capsys, "compare", folder, "--out", tmp_path / "out")
    assert "comparison.html" in out
    assert (tmp_path / "out" / "comparison.html").is_file()


def test_mixed_runs_are_taken(capsys, folder, tmp_path):
    code, out, _ = ran(capsys, "compare", folder, write_audit(tmp_path / "audit"), "--json")
    assert code == 0
    assert [group["kind"] for group in json.loads(out)["groups"]] == ["bench", "audit"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "E-USE-007"),
        (("nowhere",), "E-DATA-016"),
        (("nowhere", "--format", "pdf"), "E-USE-003"),
    ],
)
def test_what_is_wrong_is_said_with_a_code(capsys, arguments, code):
    exit_code, out, _ = ran(capsys, "compare", *arguments, "--json")
    assert exit_code == Exit.BAD_INPUT
    assert json.loads(out)["error"]["code"] == code


def test_the_others_can_be_compared_with_any_run(capsys, folder):
    chosen = ("--against", LONG, "--metrics", "others", "--json")
    _, out, _ = ran(capsys, "compare", folder, *chosen)
    (one,) = json.loads(out)["groups"][0]["differences"]
    assert (one["run"], one["number"]) == ("original", "others")
    assert one["difference"] == pytest.approx(0.1)
