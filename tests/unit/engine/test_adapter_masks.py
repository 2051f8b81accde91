"""A mask under an adapter: what may not move does not, whatever the adapter learns."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.adapter import with_adapter
from expunge.engine.adapter_masks import of_adapters
from expunge.engine.change import load_change
from expunge.engine.masks import AppliedMask
from expunge.engine.run import forget
from expunge.lm.arch import Slots
from expunge.lm.load import load
from expunge.testing import tiny_model
from expunge.testing.methods import stage, world

FAMILIES = ("llama", "phi3", "gpt2", "gpt_neox")


def adapted(family: str, masks: dict[str, Tensor | bool]) -> tuple[nn.Module, nn.Module]:
    """An adapter that was trained wildly under the masks, and the model it was put on."""
    plain = tiny_model(family)
    model = with_adapter(tiny_model(family), methods.params("npo", {"lora_r": 3}), {}, seed=0)
    mask = AppliedMask(model, of_adapters(model, masks))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.1, weight_decay=0.1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        mask.on_gradients()
        optimiser.step()
        mask.on_weights()
    return plain, model.merge_and_unload()


def masks_of(family: str) -> dict[str, Tensor | bool]:
    """Of the first linear some outputs may move, of the second some inputs, of the third both."""
    model = tiny_model(family)
    columns = family == "gpt2"
    found: dict[str, Tensor | bool] = {}
    for place, name in enumerate(Slots(model).linears()[:3]):
        weight = model.get_submodule(name).weight
        outputs, inputs = weight.T.shape if columns else weight.shape
        rows, cols = torch.arange(outputs) % 3 == 0, torch.arange(inputs) % 2 == 0
        if place == 0:
            cols = torch.ones_like(cols)
        if place == 1:
            rows = torch.ones_like(rows)
        mask = rows[:, None] & cols
        found[f"{name}.weight"] = mask.T if columns else mask
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_may_move_is_moved_by_the_product(family: str) -> None:
    masks = masks_of(family)
    plain, merged = adapted(family, masks)
    for name, before in plain.named_parameters():
        after = dict(merged.named_parameters())[name]
        if isinstance(mask := masks.get(name), Tensor):
            assert torch.equal(before[~mask], after[~mask]), name
            assert not torch.isclose(before[mask], after[mask]).any(), name
    last = Slots(plain).linears()[-1]
    free = merged.get_submodule(last).weight
    assert not torch.equal(free, plain.get_submodule(last).weight)


def test_without_it_the_adapter_moves_what_it_may_not() -> None:
    """The trap: the mask of the weights does not reach the adapter."""
    (name, mask), *_ = masks_of("llama").items()
    plain, merged = adapted("llama", {})
    before, after = (dict(m.named_parameters())[name] for m in (plain, merged))
    assert not torch.equal(before[~mask], after[~mask])


def test_single_weights_are_refused_by_name() -> None:
    model = with_adapter(tiny_model("llama"), methods.params("npo", {}), {}, seed=0)
    name = Slots(tiny_model("llama")).linears()[0]
    single = torch.zeros(32, 32, dtype=torch.bool)
    single[0, 1] = single[1, 0] = True
    with pytest.raises(ExpungeError, match="E-USE-006") as caught:
        of_adapters(model, {f"{name}.weight": single})
    assert name in caught.value.found


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("method", ["sure", "klue"])
def test_a_run_with_an_adapter_moves_only_chosen_units(
    method: str, bits: int | None, tmp_path: Path
) -> None:
    original, rows = stage(tmp_path), world()
    params = {"max_steps": 3, "lr": 1e-2, "warmup": 0, "weight_decay": 0.1, "base_bits": bits}
    forget(
        original, rows.forget, rows.retain, method=method, params=params, adapter="lora",
        stop_at="none", out=tmp_path / "out",
    )  # fmt: skip
    models = (load(original).model, load(load_change(tmp_path / "out").folder).model)
    before, after = (dict(model.named_parameters()) for model in models)
    moved = {name: after[name] != before[name] for name in before}
    assert any(part.any() for part in moved.values())
    for name, part in moved.items():
        if part.ndim == 1 or not part.any():
            assert not part.any(), name
            continue
        units = part.T if method == "klue" and "down_proj" in name else part
        chosen = units.any(1)
        assert not chosen.all(), name
        assert (units[chosen].float().mean(1) > 0.9).all(), name  # all of it, but for rounding


def test_wagle_and_an_adapter_are_refused_before_weights_load(tmp_path: Path) -> None:
    original, rows = stage(tmp_path), world()
    with pytest.raises(ExpungeError, match="E-USE-006") as caught:
        forget(
            original, rows.forget, rows.retain, wrappers=["wagle"], adapter="lora",
            out=tmp_path / "out",
        )  # fmt: skip
    assert "wagle" in caught.value.found
