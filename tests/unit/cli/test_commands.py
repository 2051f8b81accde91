"""What the other commands hand on, and what they print."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from expunge.core.errors import Exit, ExpungeError

SUMMARY = {
    "verdict": "hidden",
    "reasons": ["prefix recovers it"],
    "erasure_score": 0.25,
    "interval": [0.1, 0.4],
    "utility": 0.97,
    "attacks": {
        "prefix": {"recovery": 0.75, "interval": [0.6, 0.9], "gate": 0.1, "outcome": "fail"}
    },
    "metrics": {"probability": 0.01},
    "report": "o/report.html",
}
AUDIT = ("audit", "--model", "m", "--forget", "f.jsonl", "--out", "o")


@pytest.fixture
def auditing(standing_in):
    """Replace the audit; its result is released or not."""

    def auditing(why: list[str]) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def audit_paths(**given: Any) -> SimpleNamespace:
            seen.update(given)
            data = {"release": {"why": why}}
            return SimpleNamespace(released=not why, summary=lambda: SUMMARY, data=data)

        standing_in("expunge.api", {"audit_paths": audit_paths})
        return seen

    return auditing


def test_audit_prints_its_summary_and_exits_0_whatever_it_finds(run, auditing):
    auditing([])
    ran = run(*AUDIT, "--json")
    assert (ran.code, ran.value) == (0, SUMMARY)


def test_audit_exits_1_below_what_is_required_and_still_prints_the_result(run, auditing):
    seen = auditing(["the verdict is hidden, forgotten-blackbox is required"])
    required = ("--require", "forgotten-blackbox", "--min-utility", "0.9")
    as_json, as_text = run(*AUDIT, *required, "--json"), run(*AUDIT, *required)
    assert as_json.code == as_text.code == Exit.BELOW_REQUIRED
    assert as_json.value == SUMMARY
    assert "forgotten-blackbox is required" in as_text.out
    assert (str(seen["require"]), seen["min_utility"]) == ("forgotten-blackbox", 0.9)


def test_audit_tells_people_the_verdict_its_reasons_and_each_attack(run, auditing):
    auditing([])
    out = run(*AUDIT).out
    assert "Verdict: hidden" in out
    assert "prefix recovers it" in out
    assert "prefix  fail     0.75      0.6 to 0.9  0.1" in out
    assert "o/report.html" in out


def test_audit_hands_on_lists_and_paths(run, auditing):
    seen = auditing([])
    run(*AUDIT, "--only", "direct,prefix", "--skip", "sample", "--original", "orig", "--seed", "3")
    assert seen["only"] == ("direct", "prefix")
    assert seen["skip"] == ("sample",)
    assert seen["original"] == Path("orig")
    assert (seen["profile"], seen["seed"]) == ("default", 3)


def checked(problems: list[ExpungeError]) -> Any:
    def check(**given: Any) -> SimpleNamespace:
        estimate = {"seconds": 90.0, "memory_bytes": 2.5e9, "disk_bytes": 4e6}
        return SimpleNamespace(problems=problems, estimate=estimate, resolved={"lr": 1e-4})

    return check


CHECKS = (
    ("forget", "expunge.engine.check", "check_forget", ("--model", "m", "--forget", "f")),
    ("audit", "expunge.audit.check", "check_audit", ("--model", "m", "--forget", "f")),
)


@pytest.mark.parametrize(("name", "module", "function", "options"), CHECKS)
def test_check_tells_what_the_run_would_need_and_leaves_a_missing_out_to_the_engine(
    run, standing_in, name, module, function, options
):
    standing_in(module, {function: checked([])})
    as_json, as_text = run("check", name, *options, "--json"), run("check", name, *options)
    assert as_json.value["problems"] == []
    assert as_json.value["estimate"]["memory_bytes"] == 2.5e9
    assert as_json.value["resolved"] == {"lr": 1e-4}
    assert "90 s" in as_text.out
    assert "2.5 GB" in as_text.out


@pytest.mark.parametrize(("name", "module", "function", "options"), CHECKS)
def test_check_tells_all_problems_and_exits_as_the_run_would(
    run, standing_in, name, module, function, options
):
    problems = [ExpungeError(code, "a.", "b.", "c.") for code in ("E-USE-001", "E-MODEL-003")]
    standing_in(module, {function: checked(problems)})
    ran = run("check", name, *options, "--json")
    assert ran.code == Exit.UNSAFE
    assert [one["code"] for one in ran.value["problems"]] == ["E-USE-001", "E-MODEL-003"]


def test_guard_hands_on_its_options(run, standing_in):
    seen: dict[str, Any] = {}

    def guard_paths(
        model: Path, forget: Path, guard: str, params: dict[str, str], out: Path,
        retain: Path | None, chats: list[str], decider: str | None, seed: int,
    ) -> dict[str, str]:  # fmt: skip
        seen.update(locals())
        return {"out": "o"}

    standing_in("expunge.api", {"guard_paths": guard_paths})
    more = (
        "--set",
        "reply=No.",
        "--seed",
        "2",
        "--chat",
        "critic=http://h/v1",
        "--decider",
        "http://h/v1/systemone",
        "--retain",
        "r.jsonl",
    )
    ran = run("guard", *AUDIT[1:], "--guard", "eco", *more, "--json")
    assert ran.value == {"out": "o"}
    assert (seen["model"], seen["forget"], seen["out"]) == (Path("m"), Path("f.jsonl"), Path("o"))
    assert (seen["guard"], seen["params"], seen["seed"]) == ("eco", {"reply": "No."}, 2)
    assert (seen["retain"], seen["chats"]) == (Path("r.jsonl"), ["critic=http://h/v1"])
    assert seen["decider"] == "http://h/v1/systemone"


@pytest.fixture
def benching(standing_in):
    """Replace the benchmark's run; returns what it was given."""
    seen: dict[str, Any] = {}

    def run_bench(benchmark: str, split: str | None = None, **asked: Any) -> dict[str, Any]:
        seen.update(asked, benchmark=benchmark, split=split)
        cells = {"probability": 0.5, "model utility": None}
        line = {"name": "original", "cells": cells, "failed": None, "summary": {}}
        return {"lines": [line], "table": "o/table.md"} if asked["logs"] is None else {"p": 0.25}

    standing_in("expunge.lab.bench", {"run_bench": run_bench})
    return seen


def test_bench_hands_on_benchmark_and_split(run, benching):
    run("bench", "tofu:forget05", "--model", "m", "--data", "d", "--methods", "npo,ga")
    assert (benching["benchmark"], benching["split"]) == ("tofu", "forget05")
    assert benching["methods"] == ("npo", "ga")
    assert (benching["seeds"], benching["data"]) == (3, Path("d"))
    run("bench", "tofu", "--model", "m", "--data", "d")
    assert benching["split"] is None


def test_bench_prints_the_table_and_where_it_lies(run, benching):
    out = run("bench", "tofu", "--model", "m", "--out", "o").out
    assert "| original | 0.500 | – |" in out
    assert "o/table.md" in out


def test_bench_prints_the_numbers_of_a_log(run, benching):
    assert "0.25" in run("bench", "tofu", "--logs", "log.json").out
    assert run("bench", "tofu", "--logs", "log.json", "--json").value == {"p": 0.25}


@pytest.mark.parametrize("command", [("bench",), ("check", "bench")])
def test_a_model_and_a_log_at_the_same_time_are_refused(run, command):
    ran = run(*command, "tofu", "--model", "m", "--logs", "l", "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, "E-USE-006")


def test_revert_hands_on_the_folder(run, standing_in):
    def revert(folder: Path, out: Path | None = None) -> dict[str, str]:
        return {"out": str(out or folder)}

    standing_in("expunge.engine.change", {"revert": revert})
    assert run("revert", "change", "--json").value == {"out": "change"}
    assert run("revert", "change", "--out", "o", "--json").value == {"out": "o"}


def test_demo_tells_people_answers_and_verdicts_and_keeps_them_out_of_the_json_value(
    run, standing_in
):
    story = {"models": {"erased": "forgotten-whitebox"}, "report": "r.html", "seconds": 1.0}
    answers = [{"question": "Where does Ann live?", "erased": "In a town."}]
    told = {**story, "answers": answers, "table": [{"model": "erased", "direct": 0.0}]}
    seen: list[Any] = []
    standing_in("expunge.lab.demo", {"run_demo": lambda *given: seen.append(given) or told})
    assert run("demo", "--json").value == story
    out = run("demo", "--out", "elsewhere", "--seed", "4").out
    for words in ("Where does Ann live?", "In a town.", "model   direct", "r.html"):
        assert words in out
    assert seen == [(Path("demo"), 0), (Path("elsewhere"), 4)]
