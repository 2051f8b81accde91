"""What cannot work together is refused by name, before weights load."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.engine.check import check_forget
from expunge.engine.combinations import refuse_split_masks
from expunge.testing.methods import stage, world


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)


def problems(original: Path, tmp_path: Path, method: str = "npo", adapter=None, **params):
    rows = world()
    report = check_forget(
        original, rows.forget, rows.retain, method=method, adapter=adapter, params=params,
        out=tmp_path / "out",
    )  # fmt: skip
    assert (report.plan is None) == bool(report.problems)
    return report.problems


def only(found: list[ExpungeError]) -> str:
    (problem,) = found
    assert problem.code == "E-USE-006"
    return problem.found


def test_four_bits_need_an_adapter(original: Path, tmp_path: Path) -> None:
    assert "base_bits=4 without an adapter" in only(problems(original, tmp_path, base_bits=4))
    assert not problems(original, tmp_path, base_bits=4, adapter="lora")


def test_masters_are_for_full_weights(original: Path, tmp_path: Path) -> None:
    options = {"precision": "bf16-masters"}
    found = only(problems(original, tmp_path, adapter="lora", **options))
    assert "bf16-masters with an adapter" in found
    assert not problems(original, tmp_path, **options)
    assert not problems(original, tmp_path, adapter="lora", precision="bf16")


def test_packed_rows_have_no_padding_to_average_over(original: Path, tmp_path: Path) -> None:
    options = {"retain_term": "kl", "kl_scope": "legacy_all"}
    assert "legacy_all" in only(problems(original, tmp_path, packing=True, **options))
    assert not problems(original, tmp_path, **options)
    assert not problems(original, tmp_path, packing=True, retain_term="kl")


def test_packing_is_for_families_it_was_measured_on(original: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(original, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    assert "type mamba" in only(problems(other, tmp_path, packing=True))
    assert not problems(other, tmp_path)


def test_all_that_is_wrong_is_told_at_once(original: Path, tmp_path: Path) -> None:
    found = problems(original, tmp_path, base_bits=4, packing=True, kl_scope="legacy_all", lora_r=8)
    assert len(found) == 2


@pytest.mark.parametrize("how", ["fsdp", "deepspeed"])
def test_shards_refuse_masters_and_four_bits(
    how: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{how.upper()}", "true")
    assert "bf16-masters" in only(problems(original, tmp_path, precision="bf16-masters"))
    assert "base_bits=4" in only(problems(original, tmp_path, base_bits=4, adapter="lora"))
    assert not problems(original, tmp_path)


def test_fsdp_refuses_a_live_anchor_of_full_weights(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not problems(original, tmp_path, "rmu")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for method, params in (("rmu", {}), ("npo", {"retain_term": "kl"})):
        assert "hidden states" in only(problems(original, tmp_path, method, **params))
        assert not problems(original, tmp_path, method, adapter="lora", **params)
    assert not problems(original, tmp_path, "npo", retain_term="nll")


def test_deepspeed_refuses_combiners_by_its_stage(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not problems(original, tmp_path, "pdu")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    for stage_of_zero, is_refused in (("0", False), ("2", True), ("3", True)):
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", stage_of_zero)
        found = problems(original, tmp_path, "pdu")
        named = [f"ZeRO-{stage_of_zero}" in problem.found for problem in found]
        assert named == [True] * is_refused
    assert not problems(original, tmp_path, "npo")


def test_deepspeed_refuses_accumulation(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert "accumulation" in only(problems(original, tmp_path, accumulation=2))


def test_masks_through_a_tensor_are_refused_where_tensors_are_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through, whole = (
        {"a.weight": torch.tensor([True, False])},
        {"a.weight": True, "b.weight": False},
    )
    refuse_split_masks(through)
    for how in ("FSDP", "DEEPSPEED"):
        with monkeypatch.context() as patch:
            patch.setenv(f"ACCELERATE_USE_{how}", "true")
            refuse_split_masks(whole)
            with pytest.raises(ExpungeError, match=r"a\.weight") as caught:
                refuse_split_masks(through)
            assert caught.value.code == "E-USE-006"
