"""The certified model: weights and every file that is loaded, or what was not checked is said."""

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from certificates import Desk, make_desk, make_model, put, record_of, write_audit
from safetensors.numpy import save_file

from expunge.core.errors import ExpungeError
from expunge.report.certificate.weights import measure


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return make_desk(tmp_path)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def code_of(desk: Desk, **options: Any) -> str:
    with pytest.raises(ExpungeError) as caught:
        desk.verify(**options)
    return caught.value.code


def audited(folder: Path, model: Path) -> Desk:
    """A signed audit of any model folder."""
    desk = Desk(write_audit(folder / "audit", record_of(model)), model)
    desk.sign()
    return desk


def adapter(folder: Path, base: Path) -> Path:
    make_model(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    put(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(base)})
    save_file({"a": np.ones((1, 2), np.float32)}, folder / "adapter_model.safetensors")
    return folder


def guard(folder: Path, base: Path) -> Path:
    parent = {"path": str(base), "digest": "0" * 64}
    put(folder / "guard.json", {"targets": ["hash"]})
    put(
        folder / "change.json",
        {"format": "unlearning-change/1", "kind": "guard", "parent": parent},
    )
    return folder


def test_every_changed_byte_of_every_file_of_the_model_is_found(desk: Desk) -> None:
    for path in desk.model.iterdir():
        data = path.read_bytes()
        for at in range(len(data)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            assert code_of(desk) == "E-CERT-009", (path.name, at)
        path.write_bytes(data)
    assert desk.verify().model == "weights and files verified"


def test_another_model_is_found(desk: Desk, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", level=2.0)
    assert code_of(desk, model=other) == "E-CERT-009"


@pytest.mark.parametrize(
    "name", ["chat_template.jinja", "tokenizer.model", "generation_config.json"]
)
def test_a_file_that_was_added_is_found(desk: Desk, name: str) -> None:
    put(desk.model / name, {})
    with pytest.raises(ExpungeError, match=f"added: {re.escape(name)}"):
        desk.verify()


def test_templates_in_their_own_folder_count(desk: Desk) -> None:
    put(desk.model / "additional_chat_templates" / "tools.jinja", "x")
    assert code_of(desk) == "E-CERT-009"
    desk.sign()
    assert desk.verify().model == "weights and files verified"


def test_a_file_that_is_gone_is_found(desk: Desk) -> None:
    (desk.model / "tokenizer_config.json").unlink()
    with pytest.raises(ExpungeError, match=r"missing: tokenizer_config\.json"):
        desk.verify()
    (desk.model / "config.json").unlink()
    assert code_of(desk) == "E-CERT-009"


def test_what_no_loader_reads_does_not_count(desk: Desk) -> None:
    (desk.model / "README.md").write_text("a card")
    (desk.model / "logs").mkdir()
    assert desk.verify().model == "weights and files verified"


def test_code_in_the_folder_is_refused(desk: Desk) -> None:
    put(desk.model / "config.json", {"model_type": "llama", "auto_map": {"AutoModel": "x.X"}})
    assert code_of(desk) == "E-CERT-009"


def test_a_model_that_is_elsewhere_is_named_or_not_checked(desk: Desk, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    desk.model.rename(elsewhere)
    found = desk.verify()
    assert (found.model, found.path) == ("not checked", None)
    assert any("Model not checked" in note for note in found.notes())
    assert code_of(desk, require_model=True) == "E-CERT-010"
    found = desk.verify(model=elsewhere, require_model=True)
    assert (found.model, found.path) == ("weights and files verified", elsewhere)
    assert code_of(desk, model=tmp_path / "nowhere") == "E-MODEL-001"


def test_without_the_folder_at_signing_only_the_weights_are_certified(desk: Desk) -> None:
    elsewhere = desk.model.with_name("moved")
    desk.model.rename(elsewhere)
    assert desk.sign().as_dict()["model_files"] == 0
    put(elsewhere / "chat_template.jinja", "x")
    found = desk.verify(model=elsewhere)
    assert found.model == "weights verified"
    assert any("Only the model's weights" in note for note in found.notes())
    make_model(elsewhere, level=3.0)
    assert code_of(desk, model=elsewhere) == "E-CERT-009"


def test_a_model_in_memory_has_no_path(tmp_path: Path) -> None:
    record = record_of(make_model(tmp_path / "model"))
    record["models"]["model"]["path"] = None
    desk = Desk(write_audit(tmp_path / "audit", record), tmp_path / "model")
    desk.sign()
    assert desk.verify().model == "not checked"
    assert desk.verify(model=desk.model).model == "weights verified"


def test_an_adapter_is_certified_with_its_base(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    desk = audited(tmp_path, adapter(tmp_path / "adapter", base))
    names = [one["name"] for one in desk.statement()["subject"]]
    assert {"adapter_model.safetensors", "base/model.safetensors", "base/config.json"} <= {*names}
    put(base / "config.json", {"model_type": "llama", "changed": 1})
    assert code_of(desk) == "E-CERT-009"
    make_model(base, level=2.0)
    assert code_of(desk) == "E-CERT-009"
    shutil.rmtree(base)
    assert code_of(desk) == "E-CERT-009"


def test_a_guard_is_certified_with_its_state(tmp_path: Path) -> None:
    desk = audited(tmp_path, guard(tmp_path / "guard", make_model(tmp_path / "base")))
    assert desk.verify().model == "weights and files verified"
    put(desk.model / "guard.json", {"targets": []})
    assert code_of(desk) == "E-CERT-009"


def test_a_base_that_is_not_here_is_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *of, **_: fetched.append(of))
    folder = adapter(tmp_path / "adapter", Path("someone/some-model"))
    with pytest.raises(ExpungeError) as caught:
        measure(folder)
    assert (caught.value.code, fetched) == ("E-MODEL-001", [])


def test_a_circle_of_bases_ends(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", tmp_path / "adapter")
    with pytest.raises(ExpungeError) as caught:
        measure(folder)
    assert caught.value.code == "E-MODEL-002"


def test_the_audit_may_lie_in_the_folder_of_its_model(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    desk = Desk(write_audit(model, record_of(model)), model)
    desk.sign()
    assert desk.verify().model == "weights and files verified"
    assert json.loads((model / "audit.json").read_bytes())["verdict"] == "hidden"
