"""``expunge demo`` from end to end: the story, its files, its numbers, and running it again."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from expunge.audit import plan
from expunge.audit.schema import check_record
from expunge.cli.demo import _page
from expunge.core.events import Event, listening
from expunge.engine import run
from expunge.lab import demo
from expunge.report.demo import ROLES

BLACK_BOX = ("direct", "prob", "prefix", "sample")
COSTLY = (*demo.LEFT_OUT, "lens", "lens-exit", "relearn-in")


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, Any]:
    """A demonstration with a short run and only the attacks that ask."""
    out = tmp_path_factory.mktemp("demo")
    heard: list[Event] = []
    with pytest.MonkeyPatch.context() as patch, listening(heard.append):
        patch.setattr(demo, "LEFT_OUT", COSTLY)
        patch.setattr(demo, "SHARE", 9)
        patch.setattr(plan, "METRICS", ("probability",))
        patch.setattr(run, "forget", partial(run.forget, params={"max_steps": 20}))
        story = demo.run_demo(out)
        first = time.process_time()
        again = demo.run_demo(out)
        spent = time.process_time() - first
    return {"out": out, "story": story, "again": again, "spent": spent, "heard": heard}


def record(told: dict[str, Any], label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((told["out"] / "audits" / label / "audit.json").read_text())
    return found


def test_the_audit_tells_the_contrasts_apart(told):
    models = told["story"]["models"]
    assert list(models) == ["original", "erased", "refuser", "reference"]
    assert models["original"] == "not-forgotten"
    assert models["refuser"] == "hidden"
    assert models["reference"] == "forgotten-blackbox"


def test_the_refuser_answers_nothing_when_asked_and_much_when_the_answer_is_begun(told):
    attacks = record(told, "refuser")["attacks"]
    assert attacks["direct"]["leak"]["model"] <= 0.05
    assert attacks["prefix"]["leak"]["model"] >= 0.5


def test_every_model_has_an_audit_that_fits_its_format(told):
    for label in (*ROLES, demo.PLACEBO):
        check_record(record(told, label))
        assert tuple(record(told, label)["attacks"]) == BLACK_BOX
    assert record(told, "erased")["control"]["kind"] == "reference"
    assert record(told, demo.PLACEBO)["control"]["kind"] == "placebo"


def test_results_on_original_and_reference_are_made_once_for_all_audits(told):
    keys = [json.loads(path.read_text())["key"] for path in (told["out"] / "cache").glob("*.json")]
    mounted = [(key["model"], key["attack"], key["rows"]) for key in keys]
    assert len(mounted) == len(set(mounted))
    for name in ("original", "reference"):
        digest = record(told, "erased")["models"][name]["digest"]
        assert sorted(attack for model, attack, _ in mounted if model == digest) == sorted(
            BLACK_BOX
        )


def test_the_page_tells_the_story_and_promises_nothing(told):
    page = Path(told["story"]["report"]).read_text()
    for answer in told["story"]["answers"]:
        assert answer["question"] in page
    for word in ("<script", "http:", "https:", "erased", "guaranteed"):
        assert word not in page.lower()


def test_answers_are_those_of_the_models(told):
    for answer in told["story"]["answers"]:
        assert answer["truth"] in answer["before"]
        assert answer["truth"] not in answer["refuser"]
        assert answer["truth"] not in answer["reference"]


def test_the_summary_is_what_was_returned(told):
    story = told["again"]
    summary = json.loads((told["out"] / "summary.json").read_text())
    assert summary == {name: story[name] for name in ("models", "report", "seconds")}


def test_running_it_again_reuses_what_was_made(told):
    assert told["again"]["models"] == told["story"]["models"]
    assert told["spent"] < told["story"]["seconds"] / 2


def test_it_says_in_plain_words_what_it_does(told):
    notes = [event.text for event in told["heard"] if event.kind == "note"]
    for role in ROLES.values():
        assert any(text.startswith(f"{role.name}: ") for text in notes)
    ends = [event for event in told["heard"] if event.kind == "end" and event.task == "demo"]
    assert [event.done for event in ends] == [event.total for event in ends]


def test_the_command_shows_answers_verdicts_and_the_report(told):
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(_page(told["story"]))
    for said in ("refuser", "hidden", "reference", "forgotten-blackbox", told["story"]["report"]):
        assert said in captured.get()


@pytest.mark.slow
def test_the_whole_story_fits_its_time_and_finds_what_the_method_hides(tmp_path):
    before = time.process_time()
    story = demo.run_demo(tmp_path / "demo")
    assert time.process_time() - before <= 90
    assert story["models"]["erased"] == "hidden"
    page = Path(story["report"]).read_text()
    assert "What fine-tuning on a few of the facts brings back of the others" in page
