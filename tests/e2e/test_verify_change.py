"""``expunge verify`` on a change folder: weights and parts against its own hashes."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from expunge.api import guard_paths
from expunge.cli import main
from expunge.core.errors import Exit
from expunge.engine.run import forget
from expunge.testing.methods import stage, world


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    rows, params = world(), {"max_steps": 2, "lr": 1e-3, "warmup": 0}
    forget(
        stage(folder), rows.forget, rows.retain, method="npo", params=params, stop_at="none",
        out=folder / "out",
    )  # fmt: skip
    return folder / "out"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code = main(["verify", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_change_is_what_its_manifest_says(change: Path, capsys) -> None:
    code, value = told(capsys, str(change))
    assert code == Exit.DONE
    assert value == {
        "change": str(change), "method": "npo", "guard": None, "parts": 0, "verified": True,
        "proof": None,
    }  # fmt: skip
    assert main(["verify", str(change)]) == Exit.DONE
    assert "npo" in capsys.readouterr().out


def test_a_change_that_was_tampered_with_is_refused(change: Path, capsys) -> None:
    file = change / "model.safetensors"
    before = file.read_bytes()
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-3
    save_file(tensors, file, metadata={"format": "pt"})
    try:
        code, value = told(capsys, str(change))
    finally:
        file.write_bytes(before)
    assert (code, value["error"]["code"]) == (Exit.UNSAFE, "E-MODEL-009")


def test_who_asks_for_a_signature_is_not_answered_without_one(change: Path, capsys) -> None:
    code, value = told(capsys, str(change), "--require-model")
    assert code != Exit.DONE
    assert "error" in value


def test_the_folder_of_a_guard_is_what_its_manifest_says(tmp_path: Path, capsys) -> None:
    out = tmp_path / "guarded"
    guard_paths(stage(tmp_path), world().forget, "lexical", {}, out)
    code, value = told(capsys, str(out))
    assert (code, value["guard"], value["method"]) == (Exit.DONE, "lexical", None)
    state = out / "guard.json"
    state.write_text(state.read_text().replace('"answer_words": 2', '"answer_words": 6'))
    code, value = told(capsys, str(out))
    assert (code, value["error"]["code"]) == (Exit.UNSAFE, "E-MODEL-009")
