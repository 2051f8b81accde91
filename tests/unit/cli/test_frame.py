"""Exit codes, the one JSON value, and the words of every class of failure."""

import errno
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from expunge.cli.options import names, settings
from expunge.core.errors import CODES, Exit, ExpungeError, Problems

FORGET = ("forget", "--model", "m", "--forget", "f.jsonl", "--out", "o")
DONE = {
    "out": "o",
    "method": "npo",
    "steps": 12,
    "resumed_from": None,
    "seconds": 3.25,
    "weights_changed": True,
    "forget_nll": 5.0,
    "retain_nll": 0.5,
    "utility_drop": 0.0125,
    "stopped_by": "placebo",
}


@pytest.fixture
def forgetting(standing_in):
    """Replace the engine's forget by a function."""
    return lambda work: standing_in("expunge.engine.run", {"forget": work})


def failing(error: BaseException) -> Any:
    def work(**given: Any) -> dict[str, Any]:
        raise error

    return work


def ours(code: str) -> ExpungeError:
    return ExpungeError(code, "This was found.", "something else.", "Do that.")


class TorchMemory(RuntimeError):
    pass


TorchMemory.__name__ = "OutOfMemoryError"


def test_success_is_exit_0_and_one_json_value_that_is_the_engines(run, forgetting):
    forgetting(lambda **given: DONE)
    ran = run(*FORGET, "--json")
    assert ran.code == 0
    assert ran.value == DONE


def test_people_read_words_and_the_next_command_instead_of_json(run, forgetting):
    forgetting(lambda **given: DONE)
    ran = run(*FORGET)
    assert "stopped by" in ran.out
    assert "placebo" in ran.out
    assert "expunge audit --model o --forget f.jsonl" in ran.out
    assert "{" not in ran.out


def test_the_options_reach_the_engine_resolved(run, forgetting):
    seen: dict[str, Any] = {}
    forgetting(lambda **given: seen.update(given) or DONE)
    run(
        *FORGET,
        *("--retain", "r.jsonl", "--method", "simnpo", "--set", "beta=0.1", "--set", "lr=auto"),
        *("--with", "melu:5", "--with", "wagle", "--adapter", "lora", "--utility-budget", "0.05"),
        *("--max-minutes", "2.5", "--stop-at", "nll=4", "--seed", "7"),
    )
    assert seen == {
        "model": Path("m"),
        "forget": Path("f.jsonl"),
        "out": Path("o"),
        "retain": Path("r.jsonl"),
        "neighbour": None,
        "holdout": None,
        "reference": None,
        "method": "simnpo",
        "params": {"beta": "0.1", "lr": "auto"},
        "wrappers": ("melu:5", "wagle"),
        "adapter": "lora",
        "utility_budget": 0.05,
        "max_minutes": 2.5,
        "stop_at": "nll=4",
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        *((ours(code), code, exit_code) for code, (exit_code, _) in CODES.items()),
        (KeyboardInterrupt(), "E-RUN-004", Exit.INTERRUPTED),
        (MemoryError(), "E-REQ-003", Exit.MISSING_REQUIREMENT),
        (OSError(errno.ENOMEM, "no memory"), "E-REQ-003", Exit.MISSING_REQUIREMENT),
        (TorchMemory("CUDA out of memory"), "E-REQ-003", Exit.MISSING_REQUIREMENT),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "E-REQ-003",
            Exit.MISSING_REQUIREMENT,
        ),
        (OSError(errno.ENOSPC, "full"), "E-REQ-002", Exit.MISSING_REQUIREMENT),
        (OSError(errno.EDQUOT, "quota"), "E-REQ-002", Exit.MISSING_REQUIREMENT),
        (
            Exception("Error while serializing: No space left on device (os error 28)"),
            "E-REQ-002",
            Exit.MISSING_REQUIREMENT,
        ),
        (PermissionError(errno.EACCES, "denied", "o"), "E-PATH-002", Exit.BAD_INPUT),
        (ZeroDivisionError("division by zero"), "E-INT-001", Exit.INTERNAL),
        (RuntimeError("shapes differ"), "E-INT-001", Exit.INTERNAL),
    ],
    ids=lambda value: str(value)[:40],
)
def test_each_failure_has_its_code_and_no_traceback(run, forgetting, error, code, exit_code):
    forgetting(failing(error))
    as_json, as_text = run(*FORGET, "--json"), run(*FORGET)
    assert as_json.code == as_text.code == exit_code
    assert as_json.value["error"]["code"] == code
    assert set(as_json.value["error"]) == {"code", "found", "expected", "next"}
    assert all(as_json.value["error"].values())
    assert as_text.out == ""
    for part in as_json.value["error"].values():
        assert part in as_text.err
    assert "Traceback" not in as_json.err + as_text.err


def test_an_interruption_says_that_the_same_command_resumes(run, forgetting):
    forgetting(failing(KeyboardInterrupt()))
    assert "the same command resumes" in run(*FORGET).err


def test_several_problems_are_told_together_and_the_unsafe_one_sets_the_exit_code(run, forgetting):
    forgetting(failing(Problems([ours("E-DATA-005"), ours("E-MODEL-003")])))
    as_json, as_text = run(*FORGET, "--json"), run(*FORGET)
    assert as_json.code == Exit.UNSAFE
    assert [one["code"] for one in as_json.value["problems"]] == ["E-DATA-005", "E-MODEL-003"]
    assert "2 problems" in as_text.err
    assert "E-DATA-005" in as_text.err
    assert "E-MODEL-003" in as_text.err


def test_the_traceback_is_shown_where_it_was_asked_for(run, forgetting, monkeypatch):
    monkeypatch.setenv("EXPUNGE_TRACEBACK", "1")
    forgetting(failing(ZeroDivisionError("division by zero")))
    ran = run(*FORGET, "--json")
    assert "Traceback" in ran.err
    assert ran.value["error"]["code"] == "E-INT-001"


def test_what_a_library_prints_stays_off_standard_output(run, forgetting):
    def chatty(**given: Any) -> dict[str, Any]:
        print("{'loss': 1.0}")  # noqa: T201
        return DONE

    forgetting(chatty)
    ran = run(*FORGET, "--json")
    assert ran.value == DONE
    assert "{'loss': 1.0}" in ran.err


def test_a_number_that_json_does_not_allow_is_an_internal_error_and_not_a_broken_value(
    run, forgetting
):
    forgetting(lambda **given: {**DONE, "forget_nll": float("nan")})
    ran = run(*FORGET, "--json")
    assert ran.code == Exit.INTERNAL
    assert ran.value["error"]["code"] == "E-INT-001"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("forget", "--modle", "m"), "E-USE-002", "'--model'"),
        (("forgett",), "E-USE-002", "'forget'"),
        (("check", "audits"), "E-USE-002", "'audit'"),
        (("methods", "npo", "ga"), "E-USE-002", "ga"),
        (("forget", "--model", "m", "--forget", "f"), "E-USE-007", "--out"),
        (("forget", "--out"), "E-USE-007", "--out"),
        ((*FORGET, "--seed", "x"), "E-USE-003", "--seed"),
        ((*FORGET, "--seed", "-1"), "E-USE-003", "--seed"),
        ((*FORGET, "--utility-budget", "2"), "E-USE-003", "--utility-budget"),
        ((*FORGET, "--set", "beta"), "E-USE-003", "beta"),
        (("audit", *FORGET[1:], "--require", "gone"), "E-USE-003", "forgotten-blackbox"),
        (("methods", "npoo"), "E-USE-001", "'npo'"),
    ],
)
def test_a_mistyped_command_line_is_exit_2_with_the_nearest_name(run, arguments, code, words):
    as_json, as_text = run(*arguments, "--json"), run(*arguments)
    assert as_json.code == as_text.code == Exit.BAD_INPUT
    assert as_json.value["error"]["code"] == code
    assert words in as_text.err
    assert as_text.out == ""


def test_a_missing_subcommand_is_named(run):
    ran = run("check")
    assert ran.code == Exit.BAD_INPUT
    assert "E-USE-007" in ran.err
    assert "audit, bench, forget" in ran.err


def test_all_mistakes_of_set_are_told_at_once():
    with pytest.raises(Problems) as raised:
        settings(["beta", "lr=1", "lr=2"])
    assert [one.code for one in raised.value.problems] == ["E-USE-003", "E-USE-006"]


def test_values_of_set_may_hold_an_equals_sign():
    assert settings(["expression=a=b", "layers = -1,3"]) == {"expression": "a=b", "layers": "-1,3"}


def test_lists_with_commas_skip_empty_parts():
    assert names("npo, ga,,") == ("npo", "ga")
    assert names(None) == ()


def all_commands() -> list[tuple[str, ...]]:
    from typer.core import TyperGroup
    from typer.main import get_command

    from expunge.cli.app import app

    def below(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(command, TyperGroup):
            return [
                end
                for name, child in command.commands.items()
                for end in below(child, (*path, name))
            ]
        return [path]

    return below(get_command(app), ())


def test_the_commands_are_those_of_this_release():
    assert {" ".join(path) for path in all_commands()} == {
        *("demo", "forget", "guard", "audit", "bench", "compare", "revert", "sign", "verify"),
        "serve",
        *("methods", "guards", "metrics", "attacks", "benchmarks"),
        *("check forget", "check audit", "check bench", "testbed build", "testbed tofu"),
        *("new method", "new metric", "new attack", "new benchmark", "new guard"),
    }


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_every_command_takes_the_common_options_and_explains_itself(run, path):
    ran = run(*path, "--help")
    assert ran.code == 0
    for option in ("--json", "--seed", "--quiet"):
        assert option in ran.out


def test_no_arguments_show_the_help(run):
    ran = run()
    assert ran.code == 0
    assert "forget" in ran.out


def test_a_closed_pipe_is_no_error(tmp_path):
    program = "import sys; from expunge.cli import main; sys.exit(main(['methods', '--json']))"
    command = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    told = command.stderr.read().decode()
    assert command.wait() == 0
    assert told == ""


def child(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["forget", "--help"], ["methods", "--json"]])
def test_help_and_lists_import_no_torch(arguments):
    heavy = "{'torch', 'transformers', 'peft', 'trl', 'datasets', 'scipy', 'pandas'}"
    ran = child(
        f"import sys; from expunge.cli import main; code = main({arguments});"
        f"print(sorted({heavy} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    assert ran.returncode == 0
    assert ran.stderr.strip().endswith("[]")


def processor_seconds(program: str) -> float:
    measured = (
        "import resource, subprocess, sys;"
        f"command = [sys.executable, '-c', {program!r}];"
        "subprocess.run(command, check=True, stdout=subprocess.DEVNULL);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime)"
    )
    return float(child(measured).stdout)


def test_help_takes_at_most_twice_what_it_takes_of_two_commands_that_do_nothing():
    """Six tenths of a second where that takes three; processors differ."""
    bare = (
        "import typer; app = typer.Typer();"
        "[app.command(name)(lambda: None) for name in ('one', 'two')];"
        "app(['--help'])"
    )
    ours = "import sys; from expunge.cli import main; sys.exit(main(['--help']))"
    both = [(processor_seconds(bare), processor_seconds(ours)) for _ in range(5)]
    least, found = (median(seconds) for seconds in zip(*both, strict=True))
    assert found <= 2 * least


def test_termination_is_reported_like_an_interruption():
    program = (
        "import os, signal, sys, types;"
        "stand_in = types.ModuleType('expunge.engine.run');"
        "stand_in.forget = lambda **given: os.kill(os.getpid(), signal.SIGTERM) or given;"
        "sys.modules['expunge.engine.run'] = stand_in;"
        "from expunge.cli import main;"
        f"sys.exit(main({[*FORGET, '--json']}))"
    )
    ran = child(program)
    assert ran.returncode == Exit.INTERRUPTED
    assert "E-RUN-004" in ran.stdout
