"""Published evaluation logs give the published numbers, through the metrics of the registry."""

import json
from functools import cache
from pathlib import Path

import pytest

from expunge.benchmarks import tofu
from expunge.core.errors import ExpungeError

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu_eval_logs"

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")

ORIGINAL = [
    "llama2-7b_full_wd0.01",
    "llama2-7b_retain90_wd0.01",
    "llama2-7b_retain95_wd0.01",
    "llama2-7b_retain99_wd0.01",
]


@cache
def expected():
    return json.loads((LOGS / "EXPECTED.json").read_text())


def original(name):
    return LOGS / "original" / name / "eval_log_aggregated.json"


def unlearning(name):
    return LOGS / "open_unlearning" / name / "TOFU_EVAL.json"


@pytest.mark.parametrize("name", ORIGINAL)
def test_utility_and_its_parts_equal_the_published_ones(name):
    summary = tofu.summarise_files(original(name))
    for variant, published in expected()["original_format"][name].items():
        utility = published["model_utility"]
        numbers = {part: value for part, value in published.items() if part != "model_utility"}
        assert summary["model_utility"][variant] == pytest.approx(utility, abs=1e-9)
        assert summary["parts"][variant] == pytest.approx(numbers, abs=1e-6)
        assert summary["forget_truth_ratio"][variant] == pytest.approx(
            numbers["forget.truth_ratio"], abs=1e-6
        )


@pytest.mark.parametrize("pair", range(3))
def test_forget_quality_and_distance_equal_the_published_ones(pair):
    names, numbers = list(expected()["original_format_ks"].items())[pair]
    model, reference = (original(name) for name in names.split(" vs "))
    summary = tofu.summarise_files(model, reference, allow_unmatched=not numbers["like_for_like"])
    assert summary["forget_quality"]["d"] == pytest.approx(numbers["D"], rel=1e-12)
    assert summary["forget_quality"]["p"] == pytest.approx(numbers["p"], rel=1e-6)


def test_logs_of_different_rows_are_refused():
    with pytest.raises(ExpungeError) as refusal:
        tofu.summarise_files(original(ORIGINAL[0]), original(ORIGINAL[2]))
    assert refusal.value.code == "E-DATA-013"


def test_a_model_equals_itself():
    summary = tofu.summarise_files(original(ORIGINAL[0]), original(ORIGINAL[0]))
    assert (summary["forget_quality"]["p"], summary["forget_quality"]["d"]) == (1.0, 0.0)


def test_shared_rows_of_two_splits_match_by_what_was_asked_and_answered():
    whole, _ = tofu.read_log(original(ORIGINAL[0]))
    other, _ = tofu.read_log(original(ORIGINAL[2]))
    shared = whole["forget"]["nll"].keys() & other["forget"]["nll"].keys()
    assert len(shared) == 100
    for log in (whole, other):
        log["forget"] = {
            reading: {row: value for row, value in rows.items() if row in shared}
            for reading, rows in log["forget"].items()
        }
    quality = tofu.summarise(whole, other)["forget_quality"]
    assert quality["p"] == pytest.approx(3.569034e-07, rel=1e-6)


@pytest.mark.parametrize("pair", range(4))
def test_the_successors_logs_give_its_forget_quality_and_privacy_leakage(pair):
    names, numbers = list(expected()["open_unlearning"].items())[pair]
    model, reference = (unlearning(name) for name in names.split(" vs "))
    summary = tofu.summarise_files(model, reference)
    assert summary["forget_quality"]["d"] == pytest.approx(numbers["ks_D"], rel=1e-12)
    assert summary["forget_quality"]["p"] == pytest.approx(numbers["forget_quality"], rel=1e-6)
    assert summary["privleak"] == pytest.approx(numbers["privleak"], rel=1e-9)


@pytest.mark.parametrize("pair", range(4))
def test_the_successors_logs_give_its_utility(pair):
    name = list(expected()["open_unlearning_model_utility"])[pair]
    logged = expected()["open_unlearning_model_utility"][name]["logged"]
    summary = tofu.summarise_files(unlearning(name))
    assert summary["model_utility"]["geometric"] == pytest.approx(logged, abs=1e-6)


def test_a_summary_is_not_taken_for_a_log():
    with pytest.raises(ExpungeError) as refusal:
        tofu.summarise_files(
            LOGS / "open_unlearning/Llama-3.2-1B-Instruct_retain90/TOFU_SUMMARY.json"
        )
    assert refusal.value.code == "E-DATA-003"
