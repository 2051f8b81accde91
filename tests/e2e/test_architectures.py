"""The main job on every architecture: train, save, reload, revert; full weights and LoRA."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from expunge.engine.change import PATCH, read_manifest, revert
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.requests.rows import Row
from expunge.testing.tiny import FAMILIES, tiny_model, tiny_tokenizer

FORGET = [
    Row(id=f"f{i}", prompt=f"Where was person {i} born?", completion=f" In town {i}.")
    for i in range(6)
]
RETAIN = [
    Row(id=f"r{i}", prompt=f"What colour is stone {i}?", completion=f" It is blue {i}.")
    for i in range(6)
]


def saved(family: str, folder: Path) -> Path:
    """A random model of a family with a tokenizer, on disk."""
    texts = [f"{row.prompt}{row.completion}" for row in [*FORGET, *RETAIN]]
    tokenizer = tiny_tokenizer(texts)
    model = tiny_model(family, vocab=len(tokenizer), seed=1)
    model.save_pretrained(folder / "original")
    tokenizer.save_pretrained(folder / "original")
    return folder / "original"


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_forget_trains_saves_reloads_and_reverts(
    family: str, adapter: str | None, tmp_path: Path
) -> None:
    original, out = saved(family, tmp_path), tmp_path / "out"
    before = folder_digest(original)
    use_cache = AutoModelForCausalLM.from_pretrained(original).config.use_cache
    done = forget(
        original, FORGET, RETAIN, method="npo", adapter=adapter, stop_at="none", out=out,
        params={"max_steps": 3, "lr": 1e-2, "batch_size": 4},
    )  # fmt: skip
    assert done["steps"] == 3
    assert done["weights_changed"] > 0
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["parent"]["digest"] == before
    plain = reloaded(original, out, adapter)
    assert differs(plain, AutoModelForCausalLM.from_pretrained(original))
    assert plain.config.use_cache == use_cache
    assert (out / PATCH).is_file() is (adapter is None)
    assert not (out / ".run").exists()
    assert revert(out)["digest"] == before
    assert inspect_folder(out).digest == before
    assert not differs(
        AutoModelForCausalLM.from_pretrained(out), AutoModelForCausalLM.from_pretrained(original)
    )


def reloaded(original: Path, out: Path, adapter: str | None):
    """The result as its users load it, without us."""
    if adapter is None:
        return AutoModelForCausalLM.from_pretrained(out)
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(original)
    return PeftModel.from_pretrained(base, str(out)).merge_and_unload()


@torch.no_grad()
def differs(one, other) -> bool:
    """Whether two models give different logits."""
    ids = torch.arange(5, 15)[None]
    return not torch.equal(one.eval()(ids).logits, other.eval()(ids).logits)
