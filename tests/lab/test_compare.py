"""Runs side by side: reading them, pairing them, refusing what cannot be compared."""

import json
import math
from statistics import fmean, stdev

import numpy as np
import pytest
from compare_records import (
    ATTACKS,
    attack,
    audit,
    line,
    number,
    rows_of,
    wave,
    write_audit,
    write_bench,
    write_change,
)

from expunge.core.bootstrap import Units
from expunge.core.errors import ExpungeError, Problems
from expunge.lab.compare import compare
from expunge.lab.compare.differences import holm, over_seeds, two_sided
from expunge.lab.compare.table import csv, markdown

ORIGINAL = line("original", wave("facts", 0.9), wave("others", 0.8))
REFERENCE = line("reference", wave("facts", 0.1), wave("others", 0.8))


def run(method: str, seed: int, forget: float, kept: float):
    name = f"{method}-seed{seed}"
    return line(name, wave("facts", forget), wave("others", kept), method, seed)


@pytest.fixture
def bench(tmp_path):
    """Two methods, one of them with three seeds."""
    runs = [run("npo", seed, 0.3 + 0.02 * seed, 0.7) for seed in range(3)]
    return write_bench(tmp_path / "bench", [ORIGINAL, REFERENCE, *runs, run("ga", 0, 0.05, 0.2)])


def only(result, kind="bench"):
    return next(group for group in result["groups"] if group["kind"] == kind)


def found(group, run, number):
    return next(o for o in group["differences"] if (o["run"], o["number"]) == (run, number))


# ------------------------------------------------------------------------------- what is shown


def test_lines_of_a_benchmark_are_the_rows_with_forgetting_and_utility(bench):
    group = only(compare(runs=[bench]))
    assert [one["name"] for one in group["runs"]] == [
        *("original", "reference", "npo-seed0", "npo-seed1", "npo-seed2", "ga-seed0"),
    ]
    assert (group["forgetting"], group["utility"]) == ("corrupted", "others")
    assert [one["role"] for one in group["runs"]][:3] == ["original", "reference", "run"]


def test_other_numbers_can_stand_for_forgetting_and_utility(bench):
    group = only(compare(runs=[bench], forgetting="others", utility="corrupted"))
    assert (group["forgetting"], group["utility"]) == ("others", "corrupted")
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[bench], forgetting="corupted")
    assert raised.value.code == "E-USE-001"
    assert "'corrupted'" in raised.value.next


def test_a_difference_is_the_difference_of_the_means_in_the_right_direction(bench):
    told = found(only(compare(runs=[bench])), "ga-seed0", "corrupted")
    assert told["against"] == "original"
    assert told["difference"] == pytest.approx(0.05 - 0.9)


def test_equal_rows_are_resampled_alike_so_a_constant_shift_has_no_width(bench):
    told = found(only(compare(runs=[bench])), "ga-seed0", "corrupted")
    assert told["interval"] == [pytest.approx(-0.85), pytest.approx(-0.85)]


def test_entities_and_not_rows_are_resampled(tmp_path):
    rows = rows_of("facts")
    people = sorted(set(rows.values()))
    moved = {row: 0.5 + (0.3 if people.index(who) % 2 else -0.2) for row, who in rows.items()}
    other = line("ga-seed0", moved, wave("others", 0.8), "ga", 0)
    flat = line("original", dict.fromkeys(rows, 0.5), wave("others", 0.8))
    entities = write_bench(tmp_path / "with", [flat, other])
    alone = write_bench(tmp_path / "without", [flat, other], logs=False)
    widths = []
    for folder in (entities, alone):
        low, high = found(only(compare(runs=[folder])), "ga-seed0", "corrupted")["interval"]
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(5), rel=0.15)


def test_a_number_made_of_others_is_made_again_in_every_replicate(tmp_path):
    """Recovery = (own - original) / (reference - original), here of one and the same wave."""
    rows = {"original": 0.2, "reference": 0.8, "ga-seed0": 0.5}
    lines = [
        line(
            name,
            wave("facts", 0.5),
            wave("others", 0.5),
            method=None if "-" not in name else "ga",
            accuracy=number(wave("facts", level)),
            recovery={"mean": (level - 0.2) / 0.6},
        )
        for name, level in rows.items()
    ]
    group = only(compare(runs=[write_bench(tmp_path / "b", lines)]))
    told = found(group, "ga-seed0", "recovery")
    assert told["difference"] == pytest.approx(0.5)
    assert told["interval"] == [pytest.approx(0.5), pytest.approx(0.5)]


def test_a_metric_that_is_no_mean_is_computed_again_from_its_rows(tmp_path):
    """Forget quality: the p of a Kolmogorov-Smirnov test, from truth ratios kept beside it."""
    reference = {"reference": wave("facts", 0.7)}
    audits = {"like": wave("facts", 0.7), "unlike": wave("facts", 0.2)}
    for name, rows in audits.items():
        value = {**audit()["metrics"]["probability"]["model"], **number(rows), "beside": reference}
        value["mean"] = 1.0 if name == "like" else 0.0
        metric = {"forget-quality": {"model": value, "original": None, "reference": None}}
        write_audit(tmp_path / name, metrics=metric)
    group = only(compare(runs=[tmp_path / "like", tmp_path / "unlike"]), "audit")
    told = found(group, "unlike", "forget-quality")
    assert told["interval"][1] < 0
    assert told["interval"][0] == pytest.approx(-1, abs=1e-6)


def test_a_number_whose_comparison_was_not_stored_has_no_interval(tmp_path):
    value = audit()["metrics"]["probability"]["model"]
    metric = {"forget-quality": {"model": value, "original": None, "reference": None}}
    folders = [write_audit(tmp_path / name, metrics=metric) for name in ("one", "two")]
    told = found(only(compare(runs=folders), "audit"), "two", "forget-quality")
    assert (told["difference"], told["interval"], told["significant"]) == (0, None, None)


def test_a_missing_log_is_said(tmp_path):
    folder = write_bench(tmp_path / "b", [ORIGINAL, REFERENCE], logs=False)
    assert any(
        "no log, so rows are resampled" in note for note in only(compare(runs=[folder]))["notes"]
    )


def test_shuffled_rows_change_no_number(tmp_path):
    def turned(one):
        values = one["summary"]["values"]
        swapped = {
            name: {**of, "per_row": dict(reversed(of["per_row"].items()))}
            for name, of in values.items()
        }
        return {**one, "summary": {"values": swapped}}

    other = line("ga-seed0", wave("facts", 0.3, 0.3), wave("others", 0.5, 0.2), "ga", 0)
    straight = write_bench(tmp_path / "a" / "b", [ORIGINAL, other])
    shuffled = write_bench(tmp_path / "c" / "b", [ORIGINAL, turned(other)])
    one, two = (only(compare(runs=[folder]))["differences"] for folder in (straight, shuffled))
    assert [o["interval"] for o in one] == [pytest.approx(t["interval"]) for t in two]


def test_the_same_folder_twice_is_one_run(bench):
    once, twice = compare(runs=[bench]), compare(runs=[bench, bench])
    assert once == twice


def test_equal_anchors_of_two_benchmarks_stand_once_and_names_tell_runs_apart(tmp_path):
    folders = [
        write_bench(tmp_path / name, [ORIGINAL, REFERENCE, run("npo", 0, level, 0.7)])
        for name, level in (("one", 0.3), ("two", 0.4))
    ]
    group = only(compare(runs=folders))
    names = [one["name"] for one in group["runs"]]
    assert names == ["one/original", "one/reference", "one/npo-seed0", "two/npo-seed0"]


def test_a_run_that_failed_is_a_note_and_not_a_row(tmp_path):
    failed = {
        "name": "rmu-seed0",
        "method": "rmu",
        "seed": 0,
        "failed": {"found": "Nothing changed."},
    }
    group = only(compare(runs=[write_bench(tmp_path / "b", [ORIGINAL, failed])]))
    assert [one["name"] for one in group["runs"]] == ["original"]
    assert "b/rmu-seed0 failed: Nothing changed." in group["notes"]


# ----------------------------------------------------------------------------------- the seeds


def test_runs_that_differ_in_the_seed_only_are_one_entry_with_mean_and_spread(bench):
    group = only(compare(runs=[bench]))
    (seeds,) = group["seeds"]
    assert (seeds["name"], seeds["seeds"], seeds["over"]) == (
        "npo",
        [0, 1, 2],
        "entities and seeds",
    )
    told = seeds["numbers"]["corrupted"]
    assert told["value"] == pytest.approx(fmean([0.3, 0.32, 0.34]))
    assert told["spread"] == pytest.approx(stdev([0.3, 0.32, 0.34]))
    assert {one["run"] for one in group["differences"]} == {"reference", "npo", "ga-seed0"}
    assert found(group, "npo", "corrupted")["seeds"] == [3, 1]


def test_the_spread_of_three_seeds_widens_the_interval_and_two_seeds_do_not(tmp_path):
    def width(seeds):
        runs = [run("npo", seed, level, 0.7) for seed, level in enumerate(seeds)]
        folder = write_bench(tmp_path / f"b{len(seeds)}", [ORIGINAL, *runs])
        group = only(compare(runs=[folder]))
        low, high = found(group, "npo", "corrupted")["interval"]
        return high - low, group

    two, told = width([0.2, 0.4])
    assert two == pytest.approx(0)
    assert any("two seeds do not show their spread" in note for note in told["notes"])
    assert width([0.2, 0.3, 0.4])[0] > 0.15


def test_other_parameters_are_no_seeds(tmp_path):
    folder = write_bench(
        tmp_path / "b", [ORIGINAL, run("npo", 0, 0.3, 0.7), run("npo", 1, 0.4, 0.7)]
    )
    for seed, beta in ((0, 0.1), (1, 0.5)):
        change = folder / "changes" / f"npo-seed{seed}"
        write_change(change, seed=seed, params={"beta": beta})
    assert only(compare(runs=[folder]))["seeds"] == []


def test_seeds_of_two_folders_are_grouped_when_their_changes_agree(tmp_path):
    folders = []
    for seed in range(2):
        folder = write_bench(tmp_path / f"b{seed}", [ORIGINAL, run("npo", seed, 0.3, 0.7)])
        write_change(folder / "changes" / f"npo-seed{seed}", seed=seed)
        folders.append(folder)
    (seeds,) = only(compare(runs=folders))["seeds"]
    assert seeds["runs"] == ["npo-seed0", "npo-seed1"]


def test_drawn_seeds_have_the_variance_of_a_mean_of_seeds():
    values = np.array([0.1, 0.4, 0.7])
    drawn = over_seeds(np.repeat(values[:, None], 20_000, axis=1), 0, "a", "b", "c")
    assert drawn.mean() == pytest.approx(0.4, abs=0.01)
    assert drawn.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.05)


# -------------------------------------------------------------------------- many comparisons


def test_holm_is_the_step_down_procedure():
    # by hand: .005*4, .01*3, .03*2, then the largest so far for .04*1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_counts_replicates_beyond_zero_and_is_never_zero():
    drawn = np.array([1.0] * 97 + [-1.0] * 2)
    assert two_sided(drawn) == pytest.approx(2 * 3 / 100)
    assert two_sided(np.ones(99)) == pytest.approx(0.02)
    assert two_sided(np.zeros(99)) == 1.0
    assert two_sided(np.full(99, np.nan)) is None


def test_the_page_says_how_many_differences_are_shown_and_how_many_stand(bench):
    result = compare(runs=[bench])
    shown = only(result)["differences"]
    stand = sum(bool(one["significant"]) for one in shown)
    assert len(shown) == 6
    assert 0 < stand < 6
    said = f"6 differences are shown, 6 of them with an interval; {stand} stand"
    assert said in markdown(result)


def test_few_numbers_make_a_smaller_family(bench):
    group = only(compare(runs=[bench], metrics=["corrupted"]))
    assert {one["number"] for one in group["differences"]} == {"corrupted"}
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[bench], metrics=["corupted"])
    assert raised.value.code == "E-USE-001"


@pytest.mark.parametrize(("against", "left"), [("ga-seed0", 3), ("npo", 3), ("npo-seed1", 3)])
def test_the_others_are_compared_with_whom_one_names(bench, against, left):
    group = only(compare(runs=[bench], against=against))
    assert group["against"] == against
    entries = {one["run"] for one in group["differences"]}
    assert against not in entries
    assert len(entries) == left
    assert ("npo" in entries) == (against == "ga-seed0")


def test_nobody_of_that_name_is_refused(bench):
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[bench], against="npo-seed9")
    assert raised.value.code == "E-USE-001"


# ------------------------------------------------------------------------------ what is refused


def test_other_rows_are_refused_by_name_and_labelled_when_allowed(tmp_path):
    short = dict(list(wave("facts", 0.3).items())[5:])
    folder = write_bench(
        tmp_path / "b", [ORIGINAL, line("ga-seed0", short, wave("others", 0.5), "ga", 0)]
    )
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[folder])
    assert raised.value.code == "E-DATA-013"
    assert "original and ga-seed0 measured different rows: 5 of facts" in raised.value.found
    result = compare(runs=[folder], allow_unmatched=True)
    assert result["unmatched"]
    assert "other rows (35 and 40)" in found(only(result), "ga-seed0", "corrupted")["note"]
    assert found(only(result), "ga-seed0", "others")["note"] == ""


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"version": 2}, "version 1 and 2"), ({"split": "other"}, "split default and other")],
)
def test_what_was_measured_differently_is_refused_with_what_differs(tmp_path, changed, told):
    one = write_bench(tmp_path / "one", [ORIGINAL])
    two = write_bench(tmp_path / "two", [run("ga", 0, 0.2, 0.5)], **changed)
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[one, two])
    assert raised.value.code == "E-DATA-014"
    assert told in raised.value.found


def test_audits_of_other_profiles_are_refused(tmp_path):
    one = write_audit(tmp_path / "one")
    two = write_audit(tmp_path / "two", profile="default")
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[one, two])
    assert "profile fast and default" in raised.value.found


def test_every_folder_that_is_no_run_is_told_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "started" / "logs").mkdir(parents=True)
    with pytest.raises(Problems) as raised:
        compare(runs=[tmp_path / "empty", tmp_path / "started", tmp_path / "nowhere"])
    told = [problem.found for problem in raised.value.problems]
    assert {problem.code for problem in raised.value.problems} == {"E-DATA-016"}
    assert [
        "holds no result" in told[0],
        "has not ended (logs)" in told[1],
        "is not there" in told[2],
    ] == [True] * 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"format": "unlearning-bench/1", ', "E-DATA-002"),
        ("[" * 100_000, "E-DATA-002"),
        ("[1]", "E-DATA-002"),
        ('{"format": "unlearning-bench/9"}', "E-DATA-003"),
        ('{"format": NaN}', "E-DATA-008"),
    ],
)
@pytest.mark.parametrize("name", ["bench.json", "change.json", "audit.json"])
def test_broken_results_are_refused(tmp_path, name, text, code):
    (tmp_path / name).write_text(text)
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[tmp_path])
    assert raised.value.code == code


def test_a_broken_log_is_refused(bench):
    (bench / "logs" / "ga-seed0.json").write_text('{"log": {"facts": 3}}')
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[bench])
    assert raised.value.code == "E-DATA-003"


# ---------------------------------------------------------------------------- audits and changes


def test_an_audit_shows_verdict_score_and_the_least_that_is_out_of_reach(tmp_path):
    group = only(compare(runs=[write_audit(tmp_path / "one")]), "audit")
    (told,) = group["runs"]
    assert (told["verdict"], told["erasure_score"]) == ("hidden", 0.62)
    # relearn-in recovers most: (.34 - .04) / (1 - .04), between .24 and .42
    assert told["numbers"]["forgetting"]["value"] == pytest.approx(1 - 0.3 / 0.96)
    assert told["numbers"]["forgetting"]["interval"] == pytest.approx([0.58, 0.76])
    assert told["numbers"]["utility"]["value"] == 0.93


def test_audits_differ_by_the_leaks_of_their_rows_and_not_in_what_kept_none(tmp_path):
    better = {name: attack(name, 0.1 if name == "relearn-in" else None) for name in ATTACKS}
    folders = [write_audit(tmp_path / "one"), write_audit(tmp_path / "two", attacks=better)]
    group = only(compare(runs=folders), "audit")
    recovery = found(group, "two", "recovery.relearn-in")
    assert recovery["difference"] == pytest.approx(-0.24 / 0.96)
    assert recovery["interval"] == pytest.approx([-0.24 / 0.96] * 2)
    assert not any(one["number"].startswith("leak.") for one in group["differences"])
    chosen = compare(runs=folders, metrics=["leak.relearn-in"])
    leak = found(only(chosen, "audit"), "two", "leak.relearn-in")
    assert leak["difference"] == pytest.approx(-0.24)
    assert leak["interval"] == pytest.approx([-0.24, -0.24])
    forgetting = found(group, "two", "forgetting")
    worst = (0.2 - 0.1) / (0.9 - 0.1)  # then the lens gets most
    assert forgetting["interval"] == pytest.approx([0.3 / 0.96 - worst] * 2)
    assert found(group, "two", "utility")["interval"] is None
    assert "not kept" in found(group, "two", "utility")["note"]


def placed(model: float, control: float):
    """A membership test: placements of rows and of hold-out rows around an AUC."""
    rows = {who: wave("facts", level) for who, level in (("model", model), ("control", control))}
    others = {who: {f"other-{at}": of for at, of in enumerate(side.values())}
              for who, side in rows.items()}  # fmt: skip
    return attack("direct") | {
        "statistic": "difference",
        "leak": {"original": None, "model": model, "control": control},
        "recovery": abs(model - control),
        "per_row": {"original": {}, **rows},
        "beside": {"original": {}, **{who: {"holdout": of} for who, of in others.items()}},
    }


def stealthy(damage: float):
    """An attack on the process, measured on rows to be kept."""
    rows = rows_of("others")
    return attack("direct") | {
        "statistic": "cost",
        "decides": False,
        "leak": {"original": None, "model": damage, "control": 0.1},
        "recovery": damage - 0.1,
        "per_row": {"original": {}, "model": dict.fromkeys(rows, damage), "control": {}},
        "beside": {who: {} for who in ("original", "control")}
        | {"model": {"clean": dict.fromkeys(rows, 0.1)}},
    }


def test_a_distance_and_a_cost_are_compared_with_their_own_kind_and_count_as_no_recovery(tmp_path):
    tests = {name: attack(name) for name in ATTACKS}
    folders = [
        write_audit(tmp_path / name, attacks=tests | {"mia": placed(auc, 0.5), "sa": stealthy(d)})
        for name, auc, d in (("one", 0.8, 0.8), ("two", 0.3, 0.4))
    ]
    group = only(compare(runs=folders), "audit")
    distance = found(group, "two", "distance.mia")
    assert distance["difference"] == pytest.approx(0.2 - 0.3)
    low, high = distance["interval"]
    assert low < -0.1 < high
    cost = found(group, "two", "cost.sa")
    assert cost["difference"] == pytest.approx(-0.4)
    assert cost["interval"] == pytest.approx([-0.4, -0.4])
    assert found(group, "two", "forgetting")["difference"] == pytest.approx(0)
    assert not any(one["number"] in ("recovery.mia", "recovery.sa", "auc.mia", "damage.sa")
                   for one in group["differences"])  # fmt: skip
    assert group["rows"] == {"forget": 40, "bystanders": 40}
    assert not any("other rows" in one["note"] for one in group["differences"])


def test_an_attack_that_is_only_reported_does_not_count_as_forgetting(tmp_path):
    told = {name: attack(name) for name in ATTACKS}
    told["relearn-in"] |= {"decides": False}
    (one,) = only(compare(runs=[write_audit(tmp_path / "one", attacks=told)]), "audit")["runs"]
    assert one["numbers"]["forgetting"]["value"] == pytest.approx(1 - 0.1 / 0.8)


def test_attacks_of_other_versions_are_refused(tmp_path):
    plan = [{"id": "direct", "version": 2, "params": {}, "runs": 1}]
    folders = [write_audit(tmp_path / "one"), write_audit(tmp_path / "two", plan=plan)]
    with pytest.raises((Problems, ExpungeError)) as raised:
        compare(runs=folders)
    assert "versions" in str(raised.value)


def test_families_and_attacks_stand_in_the_tables_with_intervals(tmp_path):
    folders = [write_audit(tmp_path / n, families={"direct": "pass"}) for n in ("one", "two")]
    page = markdown(compare(runs=folders))
    assert "| direct | pass | pass |" in page
    assert "| relearn-in | 0.313 [0.240, 0.420] inconclusive" in page


def test_rows_of_an_audit_say_which_belong_together(tmp_path):
    folder, file = write_audit(tmp_path / "one"), tmp_path / "forget.jsonl"
    told = [
        {"id": row, "prompt": row, "completion": "x", "subject": who}
        for row, who in rows_of("facts").items()
    ]
    file.write_text("\n".join(map(json.dumps, told)))
    assert only(compare(runs=[folder]), "audit")["entities"] == 0
    group = only(compare(runs=[folder], forget=file), "audit")
    assert group["entities"] == 8
    assert not any("name no subject" in note for note in group["notes"])


def test_a_change_is_shown_by_its_summary(tmp_path):
    folders = [write_change(tmp_path / f"c{seed}", seed=seed) for seed in range(2)]
    group = only(compare(runs=folders), "change")
    assert [one["numbers"]["forget_nll"]["value"] for one in group["runs"]] == [4.5, 5.5]
    assert group["runs"][0]["numbers"]["utility"]["value"] == pytest.approx(0.98)
    assert group["seeds"][0]["seeds"] == [0, 1]
    assert any("only a summary" in note for note in group["notes"])


def test_changes_of_other_rows_are_refused(tmp_path):
    one = write_change(tmp_path / "one")
    two = write_change(tmp_path / "two", data={"forget": {"rows": 3, "digest": "e" * 64}})
    with pytest.raises(ExpungeError) as raised:
        compare(runs=[one, two])
    assert raised.value.code == "E-DATA-013"


@pytest.mark.parametrize("place", ["change/report", "report", "change"])
def test_the_audit_of_exactly_these_weights_is_used(tmp_path, place):
    change = write_change(tmp_path / "change")
    if place == "change":
        (change / "audit.json").write_text(json.dumps(audit()))
    else:
        write_audit(tmp_path / place)
    group = only(compare(runs=[change]), "audit")
    assert group["runs"][0]["method"] == "npo"


def test_an_audit_of_other_weights_is_not_taken_for_this_change(tmp_path):
    write_audit(tmp_path / "report")
    change = write_change(tmp_path / "change", digest="99" * 32)
    assert [group["kind"] for group in compare(runs=[change])["groups"]] == ["change"]


def test_kinds_stand_apart(bench, tmp_path):
    apart = write_audit(tmp_path / "elsewhere" / "one")
    change = write_change(tmp_path / "change", digest="99" * 32)
    kinds = [group["kind"] for group in compare(runs=[change, apart, bench])["groups"]]
    assert kinds == ["bench", "audit", "change"]


# ----------------------------------------------------------------------------- what is written


def test_everything_is_written_and_the_page_names_every_run(bench, tmp_path):
    result = compare(runs=[bench], out=tmp_path / "out")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {f"comparison.{end}" for end in ("json", "md", "csv", "html")}
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored == {
        name: part for name, part in json.loads(json.dumps(result)).items() if name != "report"
    }
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert all(one["name"] in page for one in only(result)["runs"])


def test_a_spreadsheet_has_a_line_for_every_number(bench):
    lines = csv(compare(runs=[bench])).splitlines()
    assert lines[0] == "group,run,method,seed,role,number,value,low,high"
    assert len(lines) == 1 + 6 * 2 + 6
    assert any(one.startswith("restor default,npo-seed1,npo,1,run,corrupted,0.3") for one in lines)


def test_a_bar_in_a_name_does_not_break_the_table(tmp_path):
    folder = write_bench(tmp_path / "b", [{**ORIGINAL, "name": "a|b"}])
    assert "| a\\|b |" in markdown(compare(runs=[folder]))


def test_units_draw_alike_with_equal_seeds():
    units = Units({row: who for row, who in rows_of("facts").items()}, 3)
    rows = list(rows_of("facts"))
    assert (units.draw(rows) == units.draw(rows[::-1])[:, ::-1]).all()
