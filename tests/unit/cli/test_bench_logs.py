"""``expunge bench --logs``: its parameters, and what of a long summary people are shown."""

import json

import pytest

from expunge.cli.bench import _in_short, arguments
from expunge.core.errors import ExpungeError


@pytest.fixture
def log(tmp_path):
    """A published log of MUSE with made-up numbers."""
    rows = {"value_by_index": {str(n): {"rougeL_f1": 0.5, "rougeL_recall": 0.75} for n in (0, 1)}}
    names = ("forget_verbmem_ROUGE", "forget_knowmem_ROUGE", "retain_knowmem_ROUGE")
    path = tmp_path / "MUSE_EVAL.json"
    path.write_text(json.dumps(dict.fromkeys(names, rows)))
    return path


def test_parameters_of_the_benchmark_are_handed_on():
    given = arguments(name="muse:books", set=["against=books", "rows=3"])
    assert given["params"] == {"against": "books", "rows": "3"}
    assert (given["benchmark"], given["split"]) == ("muse", "books")
    assert "set" not in given


def test_a_parameter_changes_what_is_read_from_a_log(run, log):
    usual = run("bench", "muse", "--logs", str(log), "--json").value
    recall = run("bench", "muse", "--logs", str(log), "--set", "statistic=recall", "--json").value
    found = [summary["values"]["knowmem_forget"]["mean"] for summary in (usual, recall)]
    assert found == [50, 75]


def test_an_unknown_parameter_is_refused(run, log):
    ran = run("bench", "muse", "--logs", str(log), "--set", "statistics=f1", "--json")
    assert ran.value["error"]["code"] == "E-USE-002"


@pytest.mark.parametrize("command", [("bench",), ("check", "bench")])
def test_a_log_that_is_not_there_is_called_a_log(run, tmp_path, command):
    ran = run(*command, "tofu", "--logs", str(tmp_path / "none.json"), "--json")
    assert ran.value["error"]["code"] == "E-DATA-001"
    assert ran.value["error"]["expected"] == "a log."


def test_the_check_reads_the_log(run, log):
    assert run("check", "bench", "muse", "--logs", str(log), "--json").value["problems"] == []
    ran = run("check", "bench", "tofu", "--logs", str(log), "--json")
    assert ran.value["error"]["code"] == "E-DATA-003"


def test_a_row_that_was_not_scored_is_left_out_and_counted(run, log):
    content = json.loads(log.read_text())
    content["retain_knowmem_ROUGE"]["value_by_index"]["0"] = None
    log.write_text(json.dumps(content))
    value = run("bench", "muse", "--logs", str(log), "--json").value["values"]["knowmem_retain"]
    assert (value["mean"], value["n"]) == (50, 1)
    assert value["note"].startswith("1 of 2 rows")


def test_people_see_numbers_and_notes_and_no_rows(run, log):
    shown = run("bench", "muse", "--logs", str(log)).out
    assert "knowmem forget" in shown
    assert "not measurable" in shown
    assert "per row" not in shown


def test_a_benchmark_with_a_shape_of_its_own_is_shown_in_it():
    values = {"p": {"mean": 0.5}}
    assert _in_short({"shape": {"p": 0.5}, "notes": {}, "values": values}) == {"shape": {"p": 0.5}}
    assert _in_short({"notes": {"p": "few"}, "values": values}) == {"p": 0.5, "notes": {"p": "few"}}


def test_a_file_that_is_no_log_of_the_benchmark_is_refused(tmp_path):
    from expunge.lab.bench import run_bench

    other = tmp_path / "log.json"
    other.write_text('{"key": "k", "log": {"strangers": {}}}')
    with pytest.raises(ExpungeError, match="no log of dusk"):
        run_bench("dusk", logs=other)
