"""The benchmark runner: its table, its resumption, and runs that fail."""

import json
import shutil

import pytest

from expunge.benchmarks import tofu
from expunge.core.errors import ExpungeError, Problems
from expunge.lab.bench import check_bench, run_bench
from expunge.lab.bench_table import markdown, table
from expunge.lab.benchmark import Benchmark
from expunge.testing.replicas import write as write_replica
from expunge.testing.replicas.tofu import write as write_tofu
from expunge.testing.tiny import tiny_model, tiny_tokenizer

SETTINGS = {
    "grad-diff": {"max_steps": 2, "lr": 1e-3, "batch_size": 8},
    "npo": {"max_steps": 1, "lr": 0.0, "batch_size": 8},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    write_tofu(root / "data")
    rows = tofu.splits(root / "data", "forget10", tofu.Params())
    texts = [f"{row.prompt}{row.completion}" for some in rows.values() for row in some]
    for seed, name in enumerate(("original", "reference")):
        tokenizer = tiny_tokenizer(texts, vocab=320)
        tiny_model("llama", vocab=len(tokenizer), seed=seed).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def asked(folders):
    return {
        "model": folders / "original",
        "reference": folders / "reference",
        "data": folders / "data",
        "methods": ["grad_diff", "npo"],
        "seeds": 1,
        "settings": SETTINGS,
        "params": {"rows": 20, "new_tokens": 4},
        "out": folders / "out",
    }


@pytest.fixture(scope="module")
def result(asked):
    return run_bench("tofu", **asked)


def numbers(line):
    """A line without the folder it was made in."""
    return {key: value for key, value in line.items() if key not in ("folder", "run")}


def line(result, name):
    return next(line for line in result["lines"] if line["name"] == name)


def test_original_and_reference_stand_above_one_line_a_run(result):
    names = [line["name"] for line in result["lines"]]
    assert names == ["original", "reference", "grad-diff-seed0", "npo-seed0"]


def test_reference_equals_itself_and_the_original_does_not(result):
    assert line(result, "reference")["cells"]["forget quality p"] == 1.0
    assert line(result, "original")["cells"]["D"] > 0


def test_a_run_changed_the_model_it_is_listed_for(result):
    before, after = (line(result, name)["cells"] for name in ("original", "grad-diff-seed0"))
    assert after["probability"] != before["probability"]
    assert line(result, "grad-diff-seed0")["run"]["steps"] == 2


def test_a_run_that_fails_its_own_check_is_a_line_and_not_the_end(result):
    failed = line(result, "npo-seed0")
    assert failed["failed"]["code"] == "E-RUN-001"
    assert "cells" not in failed


def test_page_names_what_failed_and_what_was_not_measurable(result, folders):
    page = (folders / "out" / "table.md").read_text()
    assert "npo-seed0 failed: No weight differs" in page
    assert "Model utility: not measurable on this model: before any forgetting its" in page
    assert page.count("| npo-seed0 | – |") == 2


def test_json_on_disk_is_the_result(result, folders):
    stored = json.loads((folders / "out" / "bench.json").read_text())
    assert stored["lines"] == json.loads(json.dumps(result["lines"]))


def test_a_stored_log_gives_the_same_numbers_again(result, folders):
    logs = [folders / "out" / "logs" / f"{name}.json" for name in ("original", "reference")]
    summary = run_bench("tofu", logs=logs[0], reference_logs=logs[1])
    assert tofu.cells(summary) == {
        **line(result, "original")["cells"],
        "model utility": summary["model_utility"]["geometric"],
    }


@pytest.fixture
def copied(result, asked, tmp_path):
    """What was asked, in a copy of its folder: other tests read the first one."""
    shutil.copytree(asked["out"], tmp_path / "out")
    return {**asked, "out": tmp_path / "out"}


def test_the_same_command_trains_and_evaluates_nothing_again(result, copied, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(Benchmark, "evaluate", never)
    again = run_bench("tofu", **{**copied, "methods": ["grad_diff"]})
    assert [numbers(line) for line in again["lines"]] == [
        numbers(line) for line in result["lines"][:3]
    ]


def test_other_settings_of_the_evaluation_are_evaluated_again(copied):
    one = {**copied, "methods": [], "reference": None, "params": {"rows": 20, "new_tokens": 5}}
    log = copied["out"] / "logs" / "original.json"
    before = json.loads(log.read_text())["key"]
    run_bench("tofu", **one)
    assert json.loads(log.read_text())["key"] != before


def test_all_problems_are_found_before_weights_load(asked):
    with pytest.raises(Problems) as refusal:
        run_bench("tofu", **{**asked, "model": "nowhere", "methods": ["npoo"]})
    assert {problem.code for problem in refusal.value.problems} == {"E-MODEL-001", "E-USE-001"}


def test_check_estimates_more_for_more_seeds(asked):
    one, three = (check_bench("tofu", **{**asked, "out": None, "seeds": seeds}) for seeds in (1, 3))
    assert not one.problems
    assert three.estimate["disk_bytes"] == 3 * one.estimate["disk_bytes"] > 0
    assert three.estimate["seconds"] > one.estimate["seconds"]


def test_missing_options_are_named(folders):
    with pytest.raises(ExpungeError, match="--data was not given"):
        run_bench("tofu", model=folders / "original", out=folders / "x")


def test_a_benchmark_without_details_has_one_table():
    lines = [{"name": "original", "failed": None, "cells": {"ROUGE": 0.5}, "details": {}}]
    page = markdown({"benchmark": "b", "split": "s", "lines": lines, "reference_recipe": "none."})
    assert page.count("| model |") == 1


def test_a_table_without_any_measured_line_still_names_its_models():
    assert table([{"name": "original"}], "cells").splitlines()[-1] == "| original |"


def test_the_base_model_is_looked_at_where_a_number_needs_it(folders, tmp_path):
    write_replica("generic", tmp_path / "rows")
    asked = {
        "model": folders / "original",
        "data": tmp_path / "rows",
        "params": {"metrics": "base-perplexity,mia-reference", "new_tokens": 4, "rows": 20},
    }
    alone = run_bench("generic", **asked, out=tmp_path / "alone")
    beside = run_bench("generic", **asked, base=folders / "reference", out=tmp_path / "beside")
    told, judged = (
        {v["note"] for v in line(each, "original")["summary"]["values"].values()}
        for each in (alone, beside)
    )
    assert any("judged by the original model" in note for note in told)
    assert any("judged by the base model" in note for note in judged)
    assert any(note.startswith("not measurable") for note in told)
    assert not any(note.startswith("not measurable") for note in judged)
