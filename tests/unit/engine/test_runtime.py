"""Run-time parts: written and read whole, refused when changed, put in, passed by, taken out."""

import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.engine import part_files, runtime
from expunge.engine.part_files import (
    entries_of,
    files_of,
    parts_of,
    read_parts,
    refused,
    write_parts,
)
from expunge.engine.runtime import Attached, Part, Served, attach, twin, without_gate, without_parts
from expunge.lm.folder import inspect_folder
from expunge.lm.subject import Subject
from expunge.testing import tiny_model
from expunge.testing.methods import stage, taught_subject, world

IDS = torch.tensor([[1, 5, 9, 20]])


class Counted:
    """A hook with a state of its own: adds to all logits, and counts how often."""

    def __init__(self, added: Tensor) -> None:
        self.added, self.times = added, 0

    def __call__(self, _: nn.Module, __: Any, output: Any) -> Any:
        self.times += 1
        output.logits = output.logits + self.added
        return output


def put_in(model: nn.Module, part: Part) -> Attached:
    if part.tensors["added"].shape != (model.config.vocab_size,):
        raise ValueError("another vocabulary")
    return Attached([model.register_forward_hook(Counted(part.tensors["added"]))])


@pytest.fixture(autouse=True)
def shouting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two methods are known: one with a run-time part, one without."""
    modules = {"shout": SimpleNamespace(attach=put_in), "mute": SimpleNamespace()}
    registry = SimpleNamespace(
        load=modules.__getitem__, card=lambda name: SimpleNamespace(version=2)
    )
    for module in (runtime, part_files):
        monkeypatch.setattr(module, "methods", registry)


def part(size: float = 3.0, method: str = "shout", vocab: int = 64) -> Part:
    added = torch.zeros(vocab)
    added[7] = size
    return Part(
        settings={"why": "seven", "at": [7]}, tensors={"added": added}, moves=1,
        method=method, version=2,
    )  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    return tiny_model("llama_tied", vocab=64)


def said(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


# ------------------------------------------------------------------------------- in the model


def test_what_is_attached_speaks_until_it_is_removed(model: nn.Module) -> None:
    plain = said(model)
    with attach(model, part()) as attached:
        assert torch.equal(said(model) - plain != 0, torch.arange(64).eq(7).expand_as(plain))
    assert torch.equal(said(model), plain)
    attached.remove()


def test_a_twin_shares_its_weights_and_none_of_the_hooks_to_come(model: nn.Module) -> None:
    other = twin(model)
    assert torch.equal(said(other), said(model))
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(one is two for one, two in pairs)
    assert all(one is not two for one, two in zip(model.modules(), other.modules(), strict=True))
    assert other.lm_head.weight is other.model.embed_tokens.weight
    plain = said(model)
    attach(other, part())
    assert torch.equal(said(model), plain)
    assert not torch.equal(said(other), plain)


def test_what_moves_a_model_moves_its_twin(model: nn.Module) -> None:
    other, before = twin(model), said(model)
    torch.optim.SGD(model.parameters(), lr=0.1)
    model(input_ids=IDS).logits.square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(said(model), before)
    assert torch.equal(said(other), said(model))


def test_hooks_that_are_there_come_along_and_count_for_themselves(model: nn.Module) -> None:
    attach(model, part())
    plain = said(model)
    for made in (twin(model), copy.deepcopy(model)):
        assert torch.equal(said(made), plain)
        hooks = [next(iter(m._forward_hooks.values())) for m in (model, made)]
        assert [hook.times for hook in hooks] == [1, 2]
        assert hooks[0] is not hooks[1]


def test_a_bare_twin_leaves_hooks_behind(model: nn.Module) -> None:
    plain = said(model)
    attach(model, part())
    assert torch.equal(said(twin(model, bare=True)), plain)
    assert not torch.equal(said(model), plain)
    assert all(map(torch.equal, model.parameters(), twin(model, bare=True).parameters()))


@pytest.mark.parametrize("bare", [True, False])
def test_a_twin_of_a_model_whose_layers_were_read_reads_its_own(
    model: nn.Module, bare: bool
) -> None:
    found = model(input_ids=IDS, output_hidden_states=True).hidden_states
    again = twin(model, bare=bare)(input_ids=IDS, output_hidden_states=True).hidden_states
    assert len(again) == len(found) > 1
    assert all(map(torch.equal, again, found))


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (lambda: part(method="mute"), "E-MODEL-002", "no run-time part"),
        (lambda: replace(part(), version=1), "E-MODEL-002", "version 1, here is version 2"),
        (lambda: part(vocab=65), "E-MODEL-002", "another vocabulary"),
        (lambda: replace(part(), tensors={}), "E-MODEL-002", "KeyError"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(model: nn.Module, made, code, words) -> None:
    with pytest.raises(ExpungeError) as caught:
        attach(model, made())
    assert caught.value.code == code
    assert words in caught.value.found


# --------------------------------------------------------------------------------- on the disk


def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    bare = Part(settings={"n": 1.5}, moves=0, method="mute", version=2)
    manifest = {"runtime": write_parts(tmp_path, [part(), bare])}
    again = json.loads(json.dumps(manifest))
    found = read_parts(tmp_path, again)
    assert [one.digest for one in found] == [part().digest, bare.digest]
    assert [one.head for one in found] == [part().head, bare.head]
    assert torch.equal(found[0].tensors["added"], part().tensors["added"])
    assert files_of(again) == {"runtime-1.json", "runtime-1.safetensors", "runtime-2.json"}
    assert {file.name for file in tmp_path.iterdir()} == files_of(again)


def test_a_change_without_parts_says_so(tmp_path: Path) -> None:
    assert write_parts(tmp_path, []) is None
    for manifest in ({}, {"runtime": None}, {"runtime": {"guard": "lexical"}}):
        assert read_parts(tmp_path, manifest) == []


def test_settings_tensors_and_method_name_a_part() -> None:
    others = [
        part(size=3.5),
        replace(part(), settings={"why": "seven", "at": [8]}),
        replace(part(), version=3),
        replace(part(), moves=2),
        replace(part(), method="mute"),
    ]
    assert len({one.digest for one in [part(), *others]}) == 6


def _broken(folder: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Ways to change a folder behind the manifest's back, each with the code it is refused by."""
    head, tensors = folder / "runtime-1.json", folder / "runtime-1.safetensors"
    text, data = head.read_text(), tensors.read_bytes()
    (entry,) = manifest["runtime"]["parts"]

    def restore() -> None:
        head.write_text(text)
        tensors.write_bytes(data)
        entry.update(original)

    original = dict(entry)
    head.write_text(text.replace("seven", "eight"))
    yield "E-MODEL-009"
    restore()
    head.write_text(text.replace('"moves": 1', '"moves": 1, "more": 2'))
    yield "E-MODEL-009"
    restore()
    head.write_text("{}")
    yield "E-MODEL-009"
    restore()
    head.write_text("[")
    yield "E-MODEL-002"
    restore()
    tensors.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield "E-MODEL-009"
    restore()
    save_file({**load_file(tensors), "more": torch.ones(1)}, tensors)
    yield "E-MODEL-009"
    restore()
    tensors.write_bytes(data[:20])
    yield "E-MODEL-010"
    restore()
    tensors.unlink()
    yield "E-MODEL-010"
    restore()
    for key, value, code in (
        ("digest", "0" * 64, "E-MODEL-009"),
        ("method", "mute", "E-MODEL-009"),
        ("tensors", None, "E-MODEL-009"),
        ("file", "../runtime-1.json", "E-PATH-001"),
        ("tensors", "/etc/passwd", "E-PATH-001"),
        ("file", None, "E-MODEL-002"),
        ("digest", 5, "E-MODEL-002"),
    ):
        entry[key] = value
        yield code
        restore()


def test_whatever_was_changed_is_refused(tmp_path: Path) -> None:
    manifest: dict[str, Any] = {"runtime": write_parts(tmp_path, [part()])}
    tried = 0
    for code in _broken(tmp_path, manifest):
        with pytest.raises(ExpungeError) as caught:
            read_parts(tmp_path, manifest)
        assert caught.value.code == code, caught.value
        tried += 1
    assert tried == 15
    assert read_parts(tmp_path, manifest)[0].digest == part().digest


@pytest.mark.parametrize("listed", ["all", {"0": 1}, ["a"], [{"method": "shout"}]])
def test_a_list_of_parts_that_is_none_is_refused(listed: object) -> None:
    with pytest.raises(ExpungeError) as caught:
        entries_of({"runtime": {"parts": listed}})
    assert caught.value.code == "E-MODEL-002"


def _change(folder: Path, parent: Path, kind: str, runtime: object) -> Path:
    """A change folder as it is inspected: its manifest, and weights where it has its own."""
    folder.mkdir(exist_ok=True)
    if kind == "checkpoint":
        shutil.copytree(parent, folder, dirs_exist_ok=True)
    manifest = {
        "format": "unlearning-change/1", "kind": kind, "runtime": runtime,
        "parent": {"path": str(parent), "digest": "x"}, "result": {"digest": None},
    }  # fmt: skip
    (folder / "change.json").write_text(json.dumps(manifest))
    return folder


def test_a_model_is_served_with_its_own_parts_or_those_below_a_guard(tmp_path: Path) -> None:
    original = stage(tmp_path)
    (tmp_path / "a").mkdir()
    first = _change(
        tmp_path / "a", original, "checkpoint", write_parts(tmp_path / "a", [part(), part(1.0)])
    )
    guard = _change(tmp_path / "b", first, "guard", {"guard": "lexical"})
    above = _change(tmp_path / "c", first, "checkpoint", None)
    (above / "runtime-1.json").unlink(missing_ok=True)
    expected = [part().digest, part(1.0).digest]
    assert [one.digest for one in parts_of(inspect_folder(first))] == expected
    assert [one.digest for one in parts_of(inspect_folder(guard))] == expected
    assert parts_of(inspect_folder(above)) == []
    assert parts_of(inspect_folder(original)) == []


# ------------------------------------------------------------------------------------ subjects


@pytest.fixture
def subject() -> Subject:
    return taught_subject()


def words(subject: Subject) -> int:
    return len(subject.tokenizer)


def test_a_served_model_speaks_with_its_parts_and_the_bare_one_without(subject: Subject) -> None:
    turns = [row.turn for row in world().forget[:3]]
    before = [one.nll for one in subject.score(turns)]
    served = Served(subject, [part(20.0, vocab=words(subject))])
    assert all(now.nll > was for now, was in zip(served.score(turns), before, strict=True))
    assert [one.nll for one in served.bare.score(turns)] == before
    assert served.bare is subject
    assert len(served.ask(turns, new_tokens=3)[0][0]) > 0
    assert served.ask(turns, new_tokens=3) != subject.ask(turns, new_tokens=3)


def test_its_digest_names_weights_and_parts(subject: Subject) -> None:
    size = words(subject)
    made = [[part(vocab=size)], [part(1.0, vocab=size)], [part(vocab=size), part(vocab=size)]]
    digests = {Served(subject, parts).digest for parts in made}
    assert len(digests | {subject.digest}) == 4
    assert Served(subject, made[0]).digest == Served(subject, made[0]).digest


def test_a_copy_takes_the_parts_along(subject: Subject) -> None:
    turns = [row.turn for row in world().forget[:3]]
    served = Served(subject, [part(20.0, vocab=words(subject))])
    twin_of_it = served.copy()
    assert [s.nll for s in twin_of_it.score(turns)] == [s.nll for s in served.score(turns)]
    with torch.no_grad():
        for weight in twin_of_it.model.parameters():
            weight.zero_()
    assert any(weight.any() for weight in subject.model.parameters())


def test_gates_and_parts_are_passed_by_one_after_the_other(subject: Subject) -> None:
    gate = SimpleNamespace()
    assert without_parts(subject) is subject
    assert without_gate(subject) is subject
    guarded = copy.copy(subject)
    guarded.gate = gate
    assert without_parts(guarded).gate is None
    assert without_parts(guarded).model is subject.model
    served = Served(subject, [part(vocab=words(subject))])
    assert without_gate(served) is served
    assert without_parts(served) is subject
    served.gate = gate
    assert without_gate(served).model is served.model
    assert without_gate(served).gate is None
    assert without_parts(served) is subject
    assert served.gate is gate


# ------------------------------------------------------------------------------------- options


def test_adapters_and_shards_are_refused_with_a_part_of_either_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = stage(tmp_path)
    plain = inspect_folder(original)
    (tmp_path / "a").mkdir()
    told = write_parts(tmp_path / "a", [part()])
    changed = inspect_folder(_change(tmp_path / "a", original, "checkpoint", told))
    assert refused("mute", plain, "lora") == []
    assert refused("shout", plain, None) == []
    assert refused("mute", changed, None) == []
    for method, folder in (("shout", plain), ("mute", changed)):
        (problem,) = refused(method, folder, "lora")
        assert problem.code == "E-USE-006"
        assert "--adapter lora" in problem.found
    monkeypatch.setattr(part_files, "sharding", lambda: "fsdp")
    assert refused("mute", plain, None) == []
    (problem,) = refused("shout", plain, None)
    assert "fsdp" in problem.found
    assert len(refused("shout", changed, "lora")) == 2
