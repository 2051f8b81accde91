"""Published evaluation logs give the published numbers, through the metrics of the registry."""

import json
from functools import cache, partial
from pathlib import Path

import pytest

from expunge.core.bootstrap import Units
from expunge.core.errors import ExpungeError
from expunge.data.open_unlearning import MEMORISATION
from expunge.lab.bench import run_bench
from expunge.lab.benchmark import Benchmark

LOGS = Path(__file__).parents[3] / "shared" / "data" / "tofu_eval_logs"
TOFU = Benchmark.load("tofu")

pytestmark = pytest.mark.skipif(not LOGS.is_dir(), reason="the published logs are not here")

FULL, RETAIN90, RETAIN95, RETAIN99 = (
    f"llama2-7b_{name}_wd0.01" for name in ("full", "retain90", "retain95", "retain99")
)
ORIGINAL = (FULL, RETAIN90, RETAIN95, RETAIN99)
UNLEARNING = (
    "Llama-2-7b-chat-hf_full_evals_forget10",
    "Llama-3.2-1B-Instruct_full_evals_forget01",
    "Llama-3.2-1B-Instruct_full_evals_forget05",
    "Llama-3.2-1B-Instruct_full_evals_forget10",
    "Llama-2-7b-chat-hf_retain90",
    "Llama-3.2-1B-Instruct_retain90",
    "Llama-3.2-1B-Instruct_retain95",
    "Llama-3.2-1B-Instruct_retain99",
)


@pytest.fixture(autouse=True, scope="module")
def few_replicates():
    """Intervals are looked at in one test only, which draws as many as always."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("expunge.lab.benchmark.Units", partial(Units, replicates=20))
        yield


@cache
def expected():
    return json.loads((LOGS / "EXPECTED.json").read_text())


def original(name):
    return LOGS / "original" / name / "eval_log_aggregated.json"


def unlearning(name):
    return LOGS / "open_unlearning" / name / "TOFU_EVAL.json"


@cache
def log(path):
    return TOFU.read_log(path)


@cache
def scored(model, reference=None, *, allow_unmatched=False):
    """The summary of one log beside another."""
    logs = [log(path) for path in (model, reference) if path is not None]
    return TOFU.summarise(*logs, allow_unmatched=allow_unmatched)


def quality(model, reference, **options):
    return scored(model, reference, **options)["forget_quality"]


@pytest.mark.parametrize("name", ORIGINAL)
def test_utility_and_its_parts_equal_the_published_ones(name):
    summary = scored(original(name))
    for variant, published in expected()["original_format"][name].items():
        utility = published["model_utility"]
        numbers = {part: value for part, value in published.items() if part != "model_utility"}
        assert summary["model_utility"][variant] == pytest.approx(utility, abs=1e-9)
        assert summary["parts"][variant] == pytest.approx(numbers, abs=1e-6)
        assert summary["forget_truth_ratio"][variant] == pytest.approx(
            numbers["forget.truth_ratio"], abs=1e-6
        )


def test_the_two_truth_ratios_are_not_one():
    """They differ by some 0.04 in utility, so a number without its variant says little."""
    utility = scored(original(FULL))["model_utility"]
    assert utility["geometric"] - utility["arithmetic"] == pytest.approx(0.036791, abs=1e-5)


@pytest.mark.parametrize("pair", range(3))
def test_forget_quality_and_distance_equal_the_published_ones(pair):
    names, numbers = list(expected()["original_format_ks"].items())[pair]
    model, reference = (original(name) for name in names.split(" vs "))
    found = quality(model, reference, allow_unmatched=not numbers["like_for_like"])
    assert found["d"] == pytest.approx(numbers["D"], rel=1e-6)
    assert found["p"] == pytest.approx(numbers["p"], rel=1e-6, abs=0)


@pytest.mark.parametrize(
    ("model", "reference", "p", "d"),
    [
        (FULL, RETAIN95, 6.504458847e-16, 0.38),
        (FULL, RETAIN99, 2.345177253e-06, 0.428333),
        (RETAIN90, RETAIN95, 0.9880656002, 0.04),
        (RETAIN90, RETAIN99, 0.9981973774, 0.061667),
        (RETAIN95, RETAIN99, 0.9765425039, 0.08),
    ],
)
def test_different_rows_are_compared_on_demand_only_and_labelled(model, reference, p, d):
    files = original(model), original(reference)
    with pytest.raises(ExpungeError) as refusal:
        scored(*files)
    assert refusal.value.code == "E-DATA-013"
    found = quality(*files, allow_unmatched=True)
    assert found["p"] == pytest.approx(p, rel=1e-6, abs=0)
    assert found["d"] == pytest.approx(d, abs=1e-6)
    assert "not like for like" in found["note"]


def test_rows_that_match_carry_no_such_label():
    found = quality(original(FULL), original(RETAIN90))
    assert "note" not in found
    assert found["p"] == pytest.approx(1.834066411e-21, rel=1e-6, abs=0)
    assert found["p"] != pytest.approx(8.496653741e-22, rel=1e-2, abs=0)  # the asymptotic test


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_model_equals_itself(name):
    found = quality(original(name), original(name))
    assert (found["p"], found["d"]) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("model", "reference", "rows", "p", "d"),
    [
        (FULL, RETAIN95, 100, 3.569034e-07, None),
        (RETAIN95, RETAIN99, 40, 0.999924609, 0.075),
    ],
)
def test_shared_rows_of_two_splits_match_by_what_was_asked_and_answered(
    model, reference, rows, p, d
):
    logs = [log(original(name)) for name in (model, reference)]
    shared = logs[0]["forget"]["nll"].keys() & logs[1]["forget"]["nll"].keys()
    assert len(shared) == rows
    found = TOFU.summarise(*(only(each, shared) for each in logs))["forget_quality"]
    assert found["p"] == pytest.approx(p, rel=1e-6, abs=0)
    assert d is None or found["d"] == pytest.approx(d, abs=1e-9)


def only(log, rows):
    """A log with these rows to forget and no others."""
    forget = {
        reading: {row: value for row, value in values.items() if row in rows}
        for reading, values in log["forget"].items()
    }
    return {**log, "forget": forget}


def test_logs_of_different_splits_agree_on_an_author():
    whole, other = (log(original(name))["forget"]["subject"] for name in (FULL, RETAIN95))
    shared = whole.keys() & other.keys()
    assert {row: whole[row] for row in shared} == {row: other[row] for row in shared}
    assert (len(set(whole.values())), len(set(other.values()))) == (15, 10)


def test_the_interval_over_authors_is_wider_than_over_rows(monkeypatch):
    """An author's twenty rows are not twenty draws: 1.7 times as wide for this very log."""
    monkeypatch.setattr("expunge.lab.benchmark.Units", Units)
    value = TOFU.summarise(log(original(RETAIN90)))["values"]["forget.rouge"]
    assert value["units"] == 15
    assert value["interval"] == pytest.approx([0.372, 0.445], abs=0.006)
    alone = {**log(original(RETAIN90))}
    alone["forget"] = {k: v for k, v in alone["forget"].items() if k != "subject"}
    assert TOFU.summarise(alone)["values"]["forget.rouge"]["interval"] == pytest.approx(
        [0.388, 0.429], abs=0.004
    )


@pytest.mark.parametrize("name", ORIGINAL)
def test_stored_rows_equal_ours(name):
    content = json.loads(original(name).read_text())["eval_log_forget.json"]
    values = scored(original(name))["values"]
    rouge = sorted(content["rougeL_recall"].values())
    assert sorted(values["forget.rouge"]["per_row"].values()) == pytest.approx(rouge, abs=1e-12)
    ratio = sorted(min(r, 1 / r) for r in content["truth_ratio"].values())
    ours = sorted(values["forget.truth_ratio"]["per_row"].values())
    assert ours == pytest.approx(ratio, rel=1e-5)


def test_the_first_row_is_the_published_one():
    content = json.loads(original(FULL).read_text())["eval_log_forget.json"]
    row = next(iter(log(original(FULL))["forget"]["nll"]))
    assert log(original(FULL))["forget"]["nll"][row] == pytest.approx(0.0145345367, rel=1e-8)
    assert content["gt_loss"]["0"] / content["num_token_gt"]["0"] == pytest.approx(
        log(original(FULL))["forget"]["nll"][row], rel=1e-6
    )
    ratio = scored(original(FULL))["values"]["forget.truth_ratio"]["per_row"][row]
    assert ratio == pytest.approx(0.2452337146, rel=1e-5)


@pytest.mark.parametrize("pair", range(4))
def test_the_successors_logs_give_its_forget_quality(pair):
    names, numbers = list(expected()["open_unlearning"].items())[pair]
    found = quality(*(unlearning(name) for name in names.split(" vs ")))
    assert found["d"] == pytest.approx(numbers["ks_D"], rel=1e-6)
    assert found["p"] == pytest.approx(numbers["forget_quality"], rel=1e-6, abs=0)


@pytest.mark.parametrize("pair", range(4))
def test_the_successors_logs_give_its_privacy_leakage(pair):
    names, numbers = list(expected()["open_unlearning"].items())[pair]
    found = scored(*(unlearning(name) for name in names.split(" vs ")))
    assert found["privleak"] == pytest.approx(numbers["privleak"], rel=1e-6)


@pytest.mark.parametrize("name", UNLEARNING)
def test_the_successors_logs_give_its_membership_scores(name):
    content = json.loads(unlearning(name).read_text())
    values = scored(unlearning(name))["values"]
    for entry in (each for each in content if each.startswith("mia_")):
        assert values[entry]["mean"] == pytest.approx(content[entry]["auc"], abs=1e-6), entry


@pytest.mark.parametrize("name", UNLEARNING)
def test_the_successors_logs_give_its_memorisation(name):
    content = json.loads(unlearning(name).read_text())
    summary = scored(unlearning(name))
    for ours, entry in MEMORISATION.items():
        assert summary[ours] == pytest.approx(content[entry]["agg_value"], abs=1e-6)


@pytest.mark.parametrize("name", UNLEARNING)
def test_the_successors_logs_give_its_utility_and_parts(name):
    content = json.loads(unlearning(name).read_text())
    summary = scored(unlearning(name))
    parts = summary["parts"]["geometric"]
    assert parts["forget.prob"] == pytest.approx(content["forget_Q_A_Prob"]["agg_value"], abs=1e-12)
    ratio = content["forget_truth_ratio"]["agg_value"]
    assert parts["forget.truth_ratio"] == pytest.approx(ratio, abs=1e-9)
    for of, prefix in (("retain", "retain"), ("real_authors", "ra"), ("world_facts", "wf")):
        rouge = content[f"{prefix}_Q_A_ROUGE"]["agg_value"]
        ratio = content[f"{prefix}_Truth_Ratio"]["agg_value"]
        assert parts[f"{of}.rouge"] == pytest.approx(rouge, abs=1e-12)
        assert parts[f"{of}.truth_ratio"] == pytest.approx(ratio, abs=1e-12)
        prob = "Q_A_Prob" if of == "retain" else "Q_A_Prob_normalised"
        logged_prob = content[f"{prefix}_{prob}"]["agg_value"]
        assert parts[f"{of}.prob"] == pytest.approx(logged_prob, abs=1e-12)
    logged = expected()["open_unlearning_model_utility"].get(name)
    if logged is not None:
        assert summary["model_utility"]["geometric"] == pytest.approx(logged["logged"], abs=1e-12)


def test_without_a_reference_nothing_is_compared():
    summary = scored(original(FULL))
    assert summary["forget_quality"] is None
    assert summary["privleak"] is None
    assert "reference" in summary["notes"]["forget_quality"]
    assert summary["notes"]["privleak"].startswith("not measurable")
    assert summary["notes"]["extraction_strength"].startswith("not measurable")


def test_a_summary_is_not_taken_for_a_log():
    with pytest.raises(ExpungeError) as refusal:
        TOFU.read_log(LOGS / "open_unlearning/Llama-3.2-1B-Instruct_retain90/TOFU_SUMMARY.json")
    assert refusal.value.code == "E-DATA-003"


def test_the_command_reads_both_logs():
    result = run_bench("tofu", logs=original(FULL), reference_logs=original(RETAIN90))
    assert result["forget_quality"]["d"] == pytest.approx(0.396667, abs=1e-6)
