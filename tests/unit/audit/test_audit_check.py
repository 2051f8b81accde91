"""What is wrong with an audit is found before weights load, all at once; what it costs is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_audit import FAMILIES, FORGET, HOLDOUT, RETAIN

from expunge.audit.check import check_audit
from expunge.audit.plan import METRICS, PROFILES, plan
from expunge.audit.verdict import BLACK_BOX
from expunge.core.errors import ExpungeError
from expunge.testing.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    tiny_model("llama").save_pretrained(path)
    tiny_tokenizer([f"{row.prompt}{row.completion}" for row in FORGET]).save_pretrained(path)
    return path


@pytest.fixture
def given(folder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": folder,
        "original": folder,
        "forget": FORGET,
        "retain": RETAIN,
        "holdout": HOLDOUT,
        "out": tmp_path / "audit",
    }


def codes(given: dict[str, Any], **changed: Any) -> list[str]:
    return [problem.code for problem in check_audit(**(given | changed)).problems]


def test_a_sound_audit_has_no_problem_and_an_estimate(given: dict[str, Any]) -> None:
    report = check_audit(**given)
    assert report.problems == []
    assert set(report.estimate) == {"seconds", "memory_bytes", "disk_bytes"}
    built = [entry.id for entry in PROFILES["default"] if entry.id in FAMILIES]
    assert report.resolved["attacks"] == built
    assert report.resolved["control"] == "placebo"


def test_more_rows_runs_and_attacks_cost_more(given: dict[str, Any]) -> None:
    def seconds(**changed: Any) -> float:
        return check_audit(**(given | changed)).estimate["seconds"]

    whole = seconds()
    assert seconds(profile="fast") < whole
    assert seconds(forget=FORGET[:20]) < whole
    assert seconds(only=["direct"]) < seconds(only=["direct", "relearn-in"]) < whole


def test_all_problems_come_at_once(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "thesis.txt").touch()
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"prompt": "Who?"}) + "\n")
    found = codes(
        given,
        forget=broken,
        reference=tmp_path / "nowhere",
        require="clean",
        min_utility=2.0,
        profile="quick",
        only=["dirct"],
    )
    assert found == [
        "E-DATA-003",
        "E-MODEL-001",
        "E-USE-003",
        "E-USE-003",
        "E-USE-004",
        "E-USE-003",
        "E-USE-001",
    ]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"forget": FORGET[:0]}, "E-DATA-005"),
        ({"retain": FORGET[:1]}, "E-DATA-006"),
        ({"skip": ["quant5"]}, "E-USE-001"),
        ({"forget": Path("nowhere.jsonl")}, "E-DATA-001"),
    ],
)
def test_each_mistake_has_its_code(given: dict[str, Any], changed: Any, code: str) -> None:
    assert codes(given, **changed) == [code]


def test_the_folder_of_an_earlier_audit_may_be_written_again(given: dict[str, Any]) -> None:
    given["out"].mkdir()
    (given["out"] / "audit.json").touch()
    assert codes(given) == []


@pytest.mark.parametrize("who", ["original", "reference"])
def test_a_model_of_other_tokens_is_named(
    given: dict[str, Any], who: str, tmp_path: Path, folder: Path
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    told = json.loads(path.read_text())
    vocab = told["model"]["vocab"]
    first, second = list(vocab)[20:22]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(told))
    (problem,) = check_audit(**(given | {who: tmp_path / "other"})).problems
    assert problem.code == "E-MODEL-011"
    assert "different vocabularies" in problem.found


def test_a_misspelt_attack_is_named_with_its_neighbour(given: dict[str, Any]) -> None:
    (problem,) = check_audit(**(given | {"only": ["relearn_inn"]})).problems
    assert "relearn-in" in problem.next


def test_every_profile_covers_every_black_box_family() -> None:
    for entries in PROFILES.values():
        known = {FAMILIES[entry.id][0] for entry in entries if entry.id in FAMILIES}
        assert known >= set(BLACK_BOX)


def test_an_attack_that_is_not_installed_is_not_run_and_said(monkeypatch: Any) -> None:
    from expunge.audit import plan as room

    extra = (*PROFILES["fast"], room.Entry(id="from-tomorrow"))
    monkeypatch.setattr(room, "PROFILES", {"fast": extra})
    chosen = plan("fast")
    assert "from-tomorrow" not in [entry.id for entry in chosen.entries]
    assert chosen.not_run == ("from-tomorrow: not part of this installation",)
    assert chosen.metrics == METRICS


def test_unknown_names_are_refused_together() -> None:
    with pytest.raises(ExpungeError) as caught:
        plan("quick", only=["a"], skip=["b"])
    assert len(caught.value.problems) == 3  # type: ignore[attr-defined]
