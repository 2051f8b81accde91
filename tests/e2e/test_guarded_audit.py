"""Guards as change folders: written, loaded, stacked, and audited like any other model."""

from pathlib import Path
from typing import Any

import pytest
from known import knowing, rows, saved

import expunge
from expunge.api import guard_paths
from expunge.core.errors import ExpungeError
from expunge.core.results import Verdict
from expunge.engine.guarding.pipeline import Pipeline
from expunge.engine.runtime import without_parts
from expunge.lm.subject import Subject

ASKED = ["direct", "evasion"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(knowing(epochs=40), tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def lexical(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guards") / "lexical"
    guard_paths(original, rows().forget, "lexical", {}, out)
    return out


@pytest.fixture(scope="module")
def eco(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("guards") / "eco"
    settings = {"sigma": "50"}
    guard_paths(original, rows().forget, "eco", settings, out, retain=rows().retain)
    return out


def audited(model: Path, original: Path) -> Any:
    return expunge.audit(
        model, forget=rows().forget, retain=rows().retain, holdout=rows().holdout,
        original=original, profile="fast", only=ASKED,
    )  # fmt: skip


def known(subject: Subject) -> float:
    forget = rows().forget
    said = subject.ask([row.turn for row in forget])
    return sum(row.value in texts[0] for row, texts in zip(forget, said, strict=True)) / len(forget)


def test_a_guarded_model_is_called_guarded_and_its_weights_are_attacked_beside_it(
    lexical: Path, original: Path
) -> None:
    audit = audited(lexical, original)
    assert audit.verdict in (Verdict.GUARDED, Verdict.HIDDEN)
    attacks = audit.data["attacks"]
    assert attacks["direct"]["recovery"] < 0.1 < 0.9 < attacks["direct-past-runtime"]["recovery"]
    stopped = attacks["evasion"]["parts"]["model"]
    assert sum(name.startswith("stopped ") for name in stopped) >= 16
    assert min(stopped[f"stopped {form}"] for form in ("asked", "base64", "spacing")) >= 0.95


def test_so_is_one_that_a_guard_inside_the_model_holds_back(eco: Path, original: Path) -> None:
    served = expunge.load(eco)
    assert known(served) <= 0.4
    assert known(without_parts(served)) >= 0.9
    audit = audited(eco, original)
    assert audit.verdict in (Verdict.GUARDED, Verdict.HIDDEN, Verdict.NOT_FORGOTTEN)
    past = audit.data["attacks"]["direct-past-runtime"]["recovery"]
    assert past > audit.data["attacks"]["direct"]["recovery"] + 0.3


def test_a_guard_over_a_guard_is_behind_both(eco: Path, tmp_path: Path) -> None:
    guard_paths(eco, rows().forget[:3], "pii-fe", {}, tmp_path / "both")
    served = expunge.load(tmp_path / "both")
    assert isinstance(served.gate, Pipeline)
    assert [guard.id for guard in served.gate.guards] == ["pii-fe", "eco"]
    assert known(served) <= 0.4


def test_two_that_write_into_the_prompt_are_refused(original: Path, tmp_path: Path) -> None:
    guard_paths(original, rows().forget, "dragon", {}, tmp_path / "one", retain=rows().retain)
    guard_paths(tmp_path / "one", rows().forget, "dragon", {}, tmp_path / "two")
    with pytest.raises(ExpungeError) as caught:
        expunge.load(tmp_path / "two")
    assert caught.value.code == "E-SERVE-004"


def test_a_guard_folder_does_not_hold_its_key_where_others_read(lexical: Path) -> None:
    assert (lexical / "guard.key").stat().st_mode & 0o077 == 0
    state = (lexical / "guard.json").read_text()
    assert (lexical / "guard.key").read_text() not in state
    assert not any(name in state for row in rows().forget for name in row.names)
