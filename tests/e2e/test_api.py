"""The public calls of the package, on models in memory and on folders."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import expunge
from expunge.core.errors import ExpungeError
from expunge.testing.methods import taught_subject, world

QUICK = {"profile": "fast", "only": ["direct", "prefix"]}


def test_every_public_name_is_there_and_importing_the_package_loads_no_torch() -> None:
    assert all(getattr(expunge, name) is not None for name in expunge.__all__)
    program = "import sys, expunge; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="forgett"):
        _ = expunge.forgett


def test_registries_are_the_rooms_themselves() -> None:
    assert "npo" in expunge.methods.ids()
    assert expunge.attacks.card("relearn_in").id == "relearn-in"
    assert {"lexical", "eco", "alu", "pii-fe"} <= {card.id for card in expunge.guards.cards()}


def test_a_model_in_memory_is_forgotten_in_a_copy_and_audited(tmp_path: Path) -> None:
    subject, rows = taught_subject(), world()
    before = {name: p.clone() for name, p in subject.model.named_parameters()}
    change = expunge.forget(
        subject.model, subject.tokenizer, forget=rows.forget, retain=rows.retain, method="npo",
        params={"max_steps": 4, "lr": 1e-3}, seed=0, out=tmp_path / "change", stop_at="none",
    )  # fmt: skip
    assert all(torch.equal(p, before[name]) for name, p in subject.model.named_parameters())
    assert change.manifest["method"] == "npo"
    assert change.summary["steps"] == 4
    audit = expunge.audit(
        change, forget=rows.forget, retain=rows.retain, holdout=rows.holdout, **QUICK
    )
    assert audit.data["models"]["original"]["digest"] == change.manifest["parent"]["digest"]
    audit.to_html(tmp_path / "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()
    assert expunge.revert(change.folder)["verified"]


def test_subjects_can_be_audited_directly() -> None:
    subject, rows = taught_subject(), world()
    audit = expunge.audit(
        subject, forget=rows.forget, retain=rows.retain, holdout=rows.holdout, original=subject,
        **QUICK,
    )  # fmt: skip
    assert audit.verdict == "invalid"  # it was taught too briefly to know them
    assert audit.data["models"]["model"]["digest"] == subject.digest


def test_a_guard_answers_for_the_model_at_once() -> None:
    subject, rows = taught_subject(), world()
    guarded = expunge.guard(subject.model, subject.tokenizer, targets=rows.forget, guard="lexical")
    asked = [row.prompt or "" for row in rows.forget]
    answers = guarded.generate(asked)
    assert all("can't help" in answer for answer in answers)
    other = [row.prompt or "" for row in rows.retain[:3]]
    plain = [
        texts[0] for texts in subject.ask([row.turn for row in rows.retain[:3]], new_tokens=64)
    ]
    assert guarded.generate(other) == plain


def test_a_guard_folder_is_loaded_with_its_gate_and_refused_when_changed(tmp_path: Path) -> None:
    from expunge.api import guard_paths
    from expunge.testing.methods import stage

    rows, original = world(), stage(tmp_path)
    guard_paths(original, rows.forget, "lexical", {}, tmp_path / "guarded")
    assert expunge.load(tmp_path / "guarded").gate is not None
    assert expunge.load(tmp_path / "guarded", runtime=False).gate is None
    state = tmp_path / "guarded" / "guard.json"
    state.write_text(state.read_text().replace('"words"', '"wordz"'))
    with pytest.raises(ExpungeError) as caught:
        expunge.load(tmp_path / "guarded")
    assert caught.value.code == "E-MODEL-009"


def test_a_model_in_memory_needs_its_tokenizer() -> None:
    with pytest.raises(ExpungeError) as caught:
        expunge.forget(taught_subject().model, forget=world().forget)
    assert caught.value.code == "E-USE-007"
