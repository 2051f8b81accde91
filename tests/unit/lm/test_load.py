import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import Exit, ExpungeError
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.load import load
from expunge.testing.tiny import tiny_model, tiny_tokenizer

IDS = torch.tensor([[1, 7, 9, 11, 5]])


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    tokenizer = tiny_tokenizer(["In Turin."], vocab=300)
    model = tiny_model("llama", vocab=len(tokenizer), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "parent")
    tokenizer.save_pretrained(tmp_path / "parent")
    return tmp_path / "parent"


@pytest.fixture
def adapter(parent: Path, tmp_path: Path) -> Path:
    config = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = get_peft_model(load(parent).model, config)
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def as_change(folder: Path, kind: str, parent: Path, **fields: Any) -> Path:
    result = None if kind == "guard" else folder_digest(folder)
    manifest = {
        "format": "unlearning-change/1",
        "kind": kind,
        "parent": {"path": str(parent), "digest": inspect_folder(parent).digest},
        "result": {"digest": result},
        "runtime": None,
        **fields,
    }
    (folder / "change.json").write_text(json.dumps(manifest))
    return folder


def disturb(folder: Path) -> None:
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1
    save_file(tensors, file, metadata={"format": "pt"})


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(ExpungeError) as caught:
        call()
    return caught.value.code


def test_a_model_comes_in_ready_to_use(parent: Path) -> None:
    loaded = load(parent)
    assert not loaded.model.training
    assert loaded.model.dtype == torch.float32
    assert loaded.stored_dtype == torch.bfloat16
    assert loaded.model.config.use_cache is True
    assert (loaded.path, loaded.manifest) == (parent, None)
    assert loaded.digest == folder_digest(parent)
    expected = tiny_model("llama", vocab=loaded.model.config.vocab_size, dtype=torch.bfloat16)
    tensors = expected.state_dict()
    assert all(torch.equal(t, tensors[n].float()) for n, t in loaded.model.state_dict().items())
    assert isinstance(loaded.tokenizer, PreTrainedTokenizerFast)
    assert load(parent, dtype=torch.float64).model.dtype == torch.float64


def test_loading_is_silent(parent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    load(parent)
    assert capfd.readouterr() == ("", "")


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.canary,)


def test_pickled_weights_are_refused_unopened(parent: Path, tmp_path: Path) -> None:
    (parent / "model.safetensors").unlink()
    with (parent / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Payload(tmp_path / "canary"), file)
    with pytest.raises(ExpungeError) as caught:
        load(parent)
    assert (caught.value.code, caught.value.exit_code) == ("E-MODEL-003", Exit.UNSAFE)
    assert not (tmp_path / "canary").exists()


def test_code_in_the_folder_is_refused_unrun(parent: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (parent / "evil.py").write_text(f"open({str(canary)!r}, 'w')\nclass Model: pass")
    config = json.loads((parent / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}
    (parent / "config.json").write_text(json.dumps(config))
    assert code_of(lambda: load(parent)) == "E-MODEL-004"
    assert not canary.exists()


def test_missing_tensors_are_not_made_up(parent: Path) -> None:
    tensors = load_file(parent / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, parent / "model.safetensors", metadata={"format": "pt"})
    assert code_of(lambda: load(parent)) == "E-MODEL-002"


def test_a_tokenizer_of_another_model_is_refused(parent: Path) -> None:
    text = " ".join(f"word{n}" for n in range(900))
    tiny_tokenizer([text], kind="word", vocab=2000).save_pretrained(parent)
    assert code_of(lambda: load(parent)) == "E-MODEL-011"


def test_a_broken_tokenizer_is_named(parent: Path) -> None:
    (parent / "tokenizer.json").write_text('{"model": 1}')
    assert code_of(lambda: load(parent)) == "E-MODEL-005"


def test_nothing_there_is_named(tmp_path: Path) -> None:
    assert code_of(lambda: load(tmp_path / "nowhere")) == "E-MODEL-001"


def test_an_adapter_is_merged_into_its_base(parent: Path, adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(parent)
    merged, base = load(adapter), load(parent)
    assert inspect_folder(adapter).kind == "adapter"
    assert type(merged.model) is type(base.model)
    assert (merged.model(IDS).logits - base.model(IDS).logits).abs().max() > 1e-3
    from peft import PeftModel

    expected = PeftModel.from_pretrained(base.model, adapter)(IDS).logits
    torch.testing.assert_close(merged.model(IDS).logits, expected, atol=1e-5, rtol=1e-4)
    assert merged.digest not in (base.digest, folder_digest(adapter))


def test_an_adapter_without_its_base_is_refused(parent: Path, adapter: Path) -> None:
    shutil.rmtree(parent)
    assert code_of(lambda: load(adapter)) == "E-MODEL-001"


def test_changes_of_each_kind_load(parent: Path, adapter: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(parent, tmp_path / "whole")
    disturb(whole)
    as_change(whole, "checkpoint", parent)
    as_change(adapter, "adapter", parent)
    (tmp_path / "guard").mkdir()
    guard = as_change(tmp_path / "guard", "guard", whole, runtime={"guards": ["lexical"]})
    assert load(whole).digest == folder_digest(whole)
    assert load(adapter).manifest is not None
    guarded = load(guard)
    assert guarded.digest == load(whole).digest
    assert guarded.manifest is not None
    assert guarded.manifest["runtime"] == {"guards": ["lexical"]}
    assert torch.equal(guarded.model(IDS).logits, load(whole).model(IDS).logits)
    assert inspect_folder(guard).kind == "change"
    assert inspect_folder(guard).parameters == inspect_folder(parent).parameters


def test_a_whole_change_outlives_its_parent(parent: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(parent, tmp_path / "whole")
    as_change(whole, "checkpoint", parent)
    shutil.rmtree(parent)
    assert load(whole).digest == folder_digest(whole)


@pytest.mark.parametrize("which", ["parent", "result"])
def test_weights_that_are_not_those_of_the_manifest_are_refused(
    parent: Path, adapter: Path, which: str
) -> None:
    as_change(adapter, "adapter", parent)
    disturb(parent if which == "parent" else adapter)
    with pytest.raises(ExpungeError) as caught:
        load(adapter)
    assert (caught.value.code, caught.value.exit_code) == ("E-MODEL-009", Exit.UNSAFE)


def test_a_manifest_of_another_format_is_refused(parent: Path, adapter: Path) -> None:
    as_change(adapter, "adapter", parent, format="unlearning-change/9")
    assert code_of(lambda: load(adapter)) == "E-MODEL-002"
