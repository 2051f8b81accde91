"""A whole audit on scripted models: verdicts, controls, cache, record."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from scripted_audit import (
    EVERYTHING,
    FORGET,
    HOLDOUT,
    KEPT,
    RETAIN,
    FakeAttacks,
    Scripted,
    model,
    original,
    prompts,
    reference,
    run,
)

from expunge.audit.plan import PROFILES
from expunge.audit.schema import check_record, schema
from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.results import Verdict
from expunge.requests.rows import Row, Turn

REFUSER = {"prefix": 0.78, "prob": 0.8, "lens-exit": 0.93, "lens": 0.8, "relearn-in": 0.96}
PLACEBO: dict[str, Any] = {"reference": None, "holdout": HOLDOUT}


class Wall:
    """A gate that lets nothing of the forget set through."""

    def before(self, turn: Turn) -> str | None:
        return "I cannot talk about that." if turn.prompt in prompts(FORGET) else None

    def after(self, turn: Turn, text: str) -> str:
        return text


@pytest.mark.parametrize("control", [{}, PLACEBO], ids=["reference", "placebo"])
@pytest.mark.parametrize(
    ("subject", "verdict"),
    [
        (original, Verdict.NOT_FORGOTTEN),
        (lambda: model(REFUSER), Verdict.HIDDEN),
        (lambda: model({"relearn-in": 0.3}), Verdict.HIDDEN),
        (lambda: model({}), Verdict.FORGOTTEN_BLACKBOX),
        (lambda: model({}, knows=frozenset()), Verdict.BROKEN),
        (lambda: model({}, says="a a a a a a a a a a", knows=frozenset()), Verdict.BROKEN),
    ],
    ids=["original", "refuser", "npo-over", "retrained", "collapsed", "gibberish"],
)
def test_models_of_known_state(subject: Any, verdict: Verdict, control: dict[str, Any]) -> None:
    done = run(subject(), **control)
    assert done.verdict is verdict, done.reasons


def test_erasure_score_of_original_and_retrained() -> None:
    assert run(original()).data["erasure_score"] <= 0.1
    assert run(model()).data["erasure_score"] >= 0.9


def test_what_hides_is_named_with_its_numbers() -> None:
    done = run(model({"relearn-in": 0.3}))
    (failing,) = [reason for reason in done.reasons if " fails" in reason]
    assert failing.startswith("relearn-in fails: recovery 0.")
    assert "gate 0.10" in failing


@pytest.mark.parametrize("control", [{}, PLACEBO], ids=["reference", "placebo"])
@pytest.mark.parametrize(("auc", "side"), [(0.1, "over-forgotten"), (0.95, "membership")])
def test_membership_on_either_side_is_hidden_and_named(
    auc: float, side: str, control: dict[str, Any]
) -> None:
    given = {"profile": "default", "holdout": HOLDOUT, **control}
    done = run(model({"mia": auc}), **given)
    assert done.verdict is Verdict.HIDDEN
    assert any(reason.startswith(f"mia fails: {side}: AUC") for reason in done.reasons)
    attack = done.data["attacks"]["mia"]
    assert attack["leak"]["control"] == 0.5
    assert attack["recovery"] == pytest.approx(abs(auc - 0.5))
    assert (attack["statistic"], attack["gate"]) == ("difference", 0.15)
    assert set(attack["beside"]["model"]["holdout"]) == {row.id for row in HOLDOUT}
    warned = any(limit.startswith("Membership compares") for limit in done.data["limits"])
    assert warned == (control is PLACEBO)


def test_membership_without_hold_out_rows_says_nothing() -> None:
    done = run(model({"mia": 0.1}), profile="default")
    assert done.data["attacks"]["mia"]["outcome"] == "uninformative"


def test_membership_is_no_recovery() -> None:
    plain, marked = (
        run(model(leaks), profile="default", holdout=HOLDOUT) for leaks in ({}, {"mia": 0.95})
    )
    assert marked.data["erasure_score"] == plain.data["erasure_score"]


def test_a_cost_is_reported_and_decides_nothing(attacks: FakeAttacks) -> None:
    subject, before = model({"sa": 0.5}), original()
    done = run(subject, original=before, profile="extended")
    assert done.verdict is run(model({}), profile="extended").verdict
    assert any(reason.startswith("reported only, sa fails: cost 0.4") for reason in done.reasons)
    assert "pipeline" not in done.data["families"]
    assert subject.mounted.count("sa") == 1
    assert "sa" not in before.mounted


def test_with_every_family_passing_the_weights_are_spoken_of() -> None:
    done = run(model({}), profile="default")
    assert done.verdict is Verdict.FORGOTTEN_WHITEBOX
    assert run(model({"actpert": 0.6}), profile="default").verdict is Verdict.HIDDEN


def test_the_record_commits_to_rows_and_plan() -> None:
    data = run(model({})).data
    assert {role: one["rows"] for role, one in data["data"].items()} == {
        "forget": len(FORGET), "retain": len(RETAIN), "neighbour": 20,
    }  # fmt: skip
    other = run(model({}), forget=FORGET[1:]).data["data"]
    assert other["forget"]["digest"] != data["data"]["forget"]["digest"]
    assert other["retain"] == data["data"]["retain"]
    planned = {one["id"]: one for one in data["plan"]}
    assert planned["sample"] == {"id": "sample", "version": 1, "params": {"budget": 4}, "runs": 1}


def test_families_without_an_attack_are_open_and_named() -> None:
    data = run(model()).data
    assert data["open_families"] == ["perturbation"]
    assert data["families"]["perturbation"] == "inconclusive"
    assert "perturbation: no attack of this family" in data["not_run"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"original": None}, "no original"),
        ({"original": Scripted("original", KEPT)}, "the original knows 0 of 80"),
        ({"reference": original()}, "the reference knows"),
    ],
)
def test_evidence_that_carries_no_verdict(options: dict[str, Any], reason: str) -> None:
    done = run(model(), **options)
    assert done.verdict is Verdict.INVALID
    assert done.reasons[0].startswith(reason)
    check_record(done.data)


def test_without_an_original_a_model_that_still_answers_is_found() -> None:
    done = run(original(), original=None)
    assert done.verdict is Verdict.NOT_FORGOTTEN
    assert any("No original was given" in sentence for sentence in done.data["limits"])
    assert done.data["models"]["original"] is None
    check_record(done.data)


def test_without_any_control_the_audit_is_invalid() -> None:
    nameless = [
        Row(id=f"forget-{i}", role="forget", text=f"alpha beta {i} gamma") for i in range(70)
    ]
    knowing = Scripted("original", KEPT | prompts(nameless), EVERYTHING)
    done = run(model(), forget=nameless, original=knowing, reference=None)
    assert done.verdict is Verdict.INVALID
    assert done.reasons[0].startswith("no control")


def test_missing_holdout_rows_are_made_up_for_by_invented_ones() -> None:
    done = run(model(), reference=None, holdout=HOLDOUT[:30])
    assert done.data["control"] == {"kind": "placebo", "rows": 80, "invented": 50}
    assert any("50 invented" in limit for limit in done.data["limits"])


def test_rows_the_original_does_not_know_are_not_attacked() -> None:
    class Partial(Scripted):
        pass

    half = Partial("original", KEPT | prompts(FORGET), EVERYTHING | {"direct": 0.8})
    data = run(model(), original=half).data
    known = data["request"]["known"]
    assert 40 <= known < 80
    assert data["attacks"]["prefix"]["n"] == known
    assert any("were not attacked" in limit for limit in data["limits"])


def test_a_guard_over_the_original_is_guarded() -> None:
    guarded = Scripted("original", KEPT | prompts(FORGET), EVERYTHING, gate=Wall())
    done = run(guarded)
    assert done.verdict is Verdict.GUARDED
    attacks = done.data["attacks"]
    assert attacks["direct"]["outcome"] == "pass"
    assert attacks["direct-past-runtime"]["outcome"] == "fail"
    assert not attacks["direct-past-runtime"]["with_runtime"]
    assert "prob-past-runtime" not in attacks
    assert done.data["erasure_score"] <= 0.1


def test_the_same_audit_twice_is_the_same_but_for_the_time(tmp_path: Path) -> None:
    def said(**options: Any) -> str:
        data = dict(run(model(REFUSER), **PLACEBO, **options).data)
        assert data.pop("seconds") > 0
        return json.dumps(data)

    once = said()
    assert said() == once
    assert said(cache=tmp_path) == once
    assert said(cache=tmp_path) == once
    assert said(seed=1) != once


def test_kept_results_serve_the_same_weights_only(tmp_path: Path) -> None:
    run(model(), cache=tmp_path)
    theirs, ours, other = original(), model(), Scripted("other", KEPT)
    run(ours, original=theirs, cache=tmp_path)
    assert (theirs.mounted, ours.mounted) == ([], [])
    run(other, original=theirs, cache=tmp_path)
    assert theirs.mounted == []
    assert sorted(other.mounted) == sorted(entry.id for entry in PROFILES["fast"])


def test_kept_results_of_other_rows_or_seeds_are_not_used(tmp_path: Path) -> None:
    run(model(), cache=tmp_path)
    for change in ({"seed": 5}, {"forget": FORGET[:70]}, {"retain": RETAIN[:20]}):
        theirs = original()
        run(model(), original=theirs, cache=tmp_path, **change)
        assert theirs.mounted, change


def test_a_damaged_cache_is_made_again_and_said(tmp_path: Path) -> None:
    once = run(model(), cache=tmp_path).data
    for path in tmp_path.iterdir():
        path.write_text("{")
    heard: list[Event] = []
    with listening(heard.append):
        again = run(model(), cache=tmp_path).data
    assert {**again, "seconds": 0} == {**once, "seconds": 0}
    assert any("unreadable" in event.text for event in heard)


def test_the_original_is_attacked_once_when_it_is_audited() -> None:
    theirs = original()
    run(theirs, original=theirs, **PLACEBO)
    assert theirs.mounted.count("prefix") == 2  # forget rows and placebo rows


def test_random_attacks_run_three_times_in_the_default_profile() -> None:
    subject = model()
    data = run(subject, profile="default").data
    assert subject.mounted.count("relearn-in") == 3
    assert data["attacks"]["sample"]["runs"] == 3
    assert data["attacks"]["sample"]["parts"]["model"] == {"budget": 16.0, "worst_run": 0.0}
    assert data["attacks"]["direct"]["runs"] == 1


def test_what_gets_nothing_out_of_the_original_is_tried_on_nobody_else(tmp_path: Path) -> None:
    """Its lead over any control is at most its own leak, so no outcome could depend on the rest."""
    known = KEPT | prompts(FORGET)
    poor = {"mask": 0.06, "role": 0.6}
    before = Scripted("original", known, EVERYTHING | poor)
    subject, control = model({"mask": 1.0}), reference()
    heard: list[Event] = []
    with listening(heard.append):
        done = run(subject, original=before, reference=control)
    assert [one.mounted.count("mask") for one in (before, subject, control)] == [1, 0, 0]
    assert [one.mounted.count("role") for one in (before, subject, control)] == [1, 1, 1]
    mask = done.data["attacks"]["mask"]
    assert mask["outcome"] == "uninformative"
    assert mask["note"].startswith("the original itself gives away 0.0")
    assert (mask["leak"]["model"], mask["per_row"]["model"], mask["runs"]) == (None, {}, 1)
    assert done.data["attacks"]["role"]["outcome"] == "pass"
    assert done.verdict is run(model(), original=before).verdict
    mine = [event for event in heard if event.task == "audit"]
    assert mine[-1].done == mine[-1].total
    check_record(json.loads(json.dumps(done.data)))
    done.to_html(tmp_path / "report.html")
    assert mask["note"] in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_progress_names_the_attack_and_ends_where_it_said() -> None:
    heard: list[Event] = []
    with listening(heard.append):
        run(model())
    mine = [event for event in heard if event.task == "audit"]
    assert mine[-1].kind == "end"
    assert mine[-1].done == mine[-1].total
    assert any(event.text == "relearn-in on the control" for event in mine)


def test_only_and_skip_choose_attacks_and_are_recorded() -> None:
    data = run(model(), only=["direct", "lens_exit"]).data
    assert list(data["attacks"]) == ["direct", "lens-exit"]
    assert "prefix: left out by the options" in data["not_run"]
    assert data["verdict"] == "inconclusive"
    skipped = run(model(), skip=["relearn-in"]).data
    assert "relearn-in" not in skipped["attacks"]
    assert "relearn-in: left out by the options" in skipped["not_run"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"only": ["prefx"]}, "E-USE-001"),
        ({"skip": ["nothing"]}, "E-USE-001"),
        ({"profile": "quick"}, "E-USE-003"),
        ({"require": "forgotten"}, "E-USE-003"),
        ({"forget": []}, "E-DATA-005"),
        ({"retain": FORGET[:3]}, "E-DATA-006"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], code: str) -> None:
    with pytest.raises(ExpungeError) as caught:
        run(model(), **options)
    assert caught.value.code == code


def test_an_attack_that_destroyed_the_model_decides_nothing(attacks: FakeAttacks) -> None:
    attacks.invalid_on = {("relearn-in", "model")}
    data = run(model()).data
    assert data["attacks"]["relearn-in"]["outcome"] == "inconclusive"
    assert "destroyed the model (model)" in data["attacks"]["relearn-in"]["note"]
    assert data["open_families"] == ["perturbation", "training"]


def test_a_fallback_form_brings_its_own_gate(attacks: FakeAttacks) -> None:
    attacks.fallback = {"prob": 0.25}
    prob = run(model({"prob": 0.15})).data["attacks"]["prob"]
    assert (prob["threshold"], prob["gate"]) == (0.10, 0.25)


def test_a_release_needs_class_and_utility() -> None:
    assert run(model()).released
    assert run(model(), require="forgotten-blackbox").released
    hidden = run(model(REFUSER), require="forgotten-blackbox")
    assert not hidden.released
    forgetful = model({}, knows=prompts(RETAIN[:27]) | KEPT - prompts(RETAIN))
    assert run(forgetful, require=Verdict.FORGOTTEN_BLACKBOX, min_utility=0.5).released
    strict = run(forgetful, require=Verdict.FORGOTTEN_BLACKBOX)
    assert strict.verdict is Verdict.FORGOTTEN_BLACKBOX
    assert not strict.released


def test_the_record_fits_its_schema_and_says_nothing_too_much() -> None:
    for subject, options in (
        (model(REFUSER), {}),
        (original(), PLACEBO),
        (model(), {"original": None}),
    ):
        data = run(subject, **options).data
        jsonschema.validate(data, schema())
        check_record(data)
        text = json.dumps(data, allow_nan=False).lower()
        assert "guarantee" not in text
        assert "erased" not in text


def test_a_record_of_another_format_is_refused() -> None:
    data = dict(run(model()).data)
    for wrong in ({"verdict": "clean"}, {"more": 1}, {"utility": {"value": 3}}):
        with pytest.raises(ExpungeError, match="E-DATA-003"):
            check_record(data | wrong)


def test_every_row_and_the_worst_leaks_are_in_the_record() -> None:
    data = run(model({"prefix": 0.5})).data
    prefix = data["attacks"]["prefix"]
    assert set(prefix["per_row"]["model"]) == {row.id for row in FORGET}
    first = data["examples"][0]
    assert first["leak"] == 1.0
    assert first["attack"] == "prefix"
    assert prefix["per_row"]["model"][first["id"]] == 1.0
    assert first["original"].endswith(".")
    assert first["model"] == "I have no idea about it."
    assert data["attacks"]["relearn-in"]["curve"]["steps"] == [0, 50]
    assert len(data["attacks"]["relearn-in"]["per_row"]["model"]) == 64


def test_metrics_stand_beside_the_original_and_the_reference() -> None:
    metrics = run(model()).data["metrics"]
    assert metrics["probability"]["model"]["mean"] < metrics["probability"]["original"]["mean"]
    assert metrics["forget-quality"]["reference"] is None


def test_summary_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = import_module("expunge.report")
    monkeypatch.setattr(report, "render_audit", lambda data: "<p>", raising=False)
    done = run(model(REFUSER), paths={"model": "runs/candidate"})
    done.save(tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == done.summary()
    assert summary["report"] == str(tmp_path / "report.html")
    assert summary["attacks"]["prefix"]["outcome"] == "fail"
    assert set(summary["attacks"]["prefix"]) == {"recovery", "interval", "gate", "outcome"}
    assert json.loads((tmp_path / "audit.json").read_text()) == done.data
    assert done.data["models"]["model"]["label"] == "candidate"


def test_a_neighbour_set_nobody_kept_is_damage() -> None:
    done = run(model({}, knows=prompts(RETAIN)))
    assert done.verdict is Verdict.BROKEN
    assert done.data["utility"]["neighbour"] == {"model": 0.0, "original": 1.0}


def test_without_retain_rows_bundled_text_stands_in() -> None:
    def bundled(subject: Scripted) -> Scripted:
        from expunge.data.retain import choose_retain

        subject.knows |= prompts(choose_retain((), ())[0])
        return subject

    done = run(bundled(model()), retain=(), neighbour=(), original=bundled(original()))
    assert any("bundled text" in limit for limit in done.data["limits"])
    assert done.data["utility"]["value"] == 1.0


def test_reference_is_mounted_on_the_forget_rows() -> None:
    theirs = reference()
    data = run(model(), reference=theirs).data
    assert theirs.mounted.count("prefix") == 1
    assert set(data["attacks"]["prefix"]["per_row"]["control"]) == {row.id for row in FORGET}
