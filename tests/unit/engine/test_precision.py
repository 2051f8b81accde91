"""Precision of a run: autocast, bfloat16 weights with masters, recomputed activations."""

import inspect
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from expunge.core.events import Event, listening
from expunge.core.families import GradientParams
from expunge.core.registry import methods
from expunge.engine.adapter import with_adapter
from expunge.engine.forward import Inputs, packed_hidden, packed_logits
from expunge.engine.optimiser import MasterAdamW
from expunge.engine.precision import computing, loading_dtype, precision_on
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest, model_digest
from expunge.lm.headers import weight_files
from expunge.testing import tiny_model
from expunge.testing.methods import stage, world

PLAIN = GradientParams()
BF16 = replace(PLAIN, precision="bf16")
MASTERS = replace(PLAIN, precision="bf16-masters")
RECOMPUTED = replace(PLAIN, checkpointing=True)


def batch(rows: int = 3, length: int = 9) -> Inputs:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 60, (rows, length), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    labels = torch.where(mask.bool(), ids, -100)
    return Inputs.from_labels(ids, mask, labels, torch.arange(rows))


def loss_of(model: nn.Module) -> torch.Tensor:
    return functional.cross_entropy(packed_logits(model, batch()), batch().targets)


def test_auto_is_float32_on_a_processor_and_bf16_on_an_accelerator() -> None:
    assert [precision_on(PLAIN, device) for device in ("cpu", "cuda")] == ["float32", "bf16"]
    assert precision_on(MASTERS, "cpu") == "bf16-masters"


def test_weights_that_move_are_loaded_in_float32() -> None:
    assert loading_dtype(PLAIN, adapted=False) == torch.float32
    assert loading_dtype(PLAIN, adapted=True) is None
    assert loading_dtype(replace(PLAIN, precision="float32"), adapted=True) == torch.float32


def test_autocast_computes_in_bf16_over_float32_weights_and_leaves_no_trace() -> None:
    model = tiny_model("llama", vocab=64)
    before = model_digest(model)
    seen = []
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    plain = packed_logits(model, batch())
    with computing(model, BF16):
        rounded = packed_logits(model, batch())
        assert "logits_to_keep" in inspect.signature(model.forward).parameters
        assert next(model.parameters()).dtype == torch.float32
    assert seen == [torch.float32, torch.bfloat16]
    assert "forward" not in vars(model)
    assert 1e-6 < (rounded - plain).abs().max() < 2e-2 * plain.abs().max()
    assert model_digest(model) == before
    torch.testing.assert_close(packed_logits(model, batch()), plain, rtol=0, atol=0)


@pytest.mark.parametrize("params", [BF16, MASTERS], ids=lambda p: p.precision)
def test_distributions_are_float32_whatever_the_model_computes_in(params: GradientParams) -> None:
    model = tiny_model("gemma2", vocab=64)
    with computing(model, params):
        logits = packed_logits(model, batch())
        hidden = packed_hidden(model, batch(), [0])[0]
    assert logits.dtype == hidden.dtype == torch.float32
    sums = logits.log_softmax(-1).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-5, atol=0)


def test_a_copy_made_inside_runs_its_own_weights() -> None:
    model = tiny_model("llama", vocab=64)
    with computing(model, BF16):
        twin = deepcopy(model)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert packed_logits(model, batch()).abs().max() > 0
        assert packed_logits(twin, batch()).abs().max() == 0


def test_masters_give_the_model_bf16_weights_and_take_them_back() -> None:
    model = tiny_model("gpt2", vocab=64)
    before = model_digest(model)
    buffers = {name: buffer.dtype for name, buffer in model.named_buffers()}
    with computing(model, MASTERS) as masters:
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert {master.dtype for master in masters.values()} == {torch.float32}
        assert set(masters) == set(model.parameters())
        assert {name: buffer.dtype for name, buffer in model.named_buffers()} == buffers
    assert model_digest(model) == before


def test_other_modes_have_no_masters() -> None:
    model = tiny_model("llama", vocab=64)
    for params in (PLAIN, BF16):
        with computing(model, params) as masters:
            assert masters == {}


def test_updates_below_the_precision_of_a_weight_add_up_in_its_master() -> None:
    """Adam moves 1e-4 a step; around 1.0 bfloat16 knows steps of 4e-3 and 8e-3."""
    held = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    alone = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    masters = {held: torch.ones(8)}
    options = {"lr": 1e-4, "weight_decay": 0.0}
    ours = MasterAdamW([{"params": [held], **options}], masters)
    pure = torch.optim.AdamW([alone], **options)
    for _ in range(100):
        held.grad, alone.grad = torch.ones_like(held), torch.ones_like(alone)
        ours.step()
        pure.step()
    torch.testing.assert_close(masters[held], torch.full((8,), 0.99), rtol=1e-4, atol=0)
    assert torch.equal(held.detach(), masters[held].bfloat16())
    assert torch.equal(alone.detach(), torch.ones(8, dtype=torch.bfloat16))


def grouped(weights: list[nn.Parameter]) -> list[dict]:
    return [
        {"params": weights[:1], "lr": 0.1, "weight_decay": 0.5, "fused": True},
        {"params": weights[1:], "lr": 0.1, "weight_decay": 0.0, "fused": True},
    ]


def test_masters_move_like_float32_weights_with_the_same_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 4, generator=draw), torch.randn(4, generator=draw)]
    plain = [nn.Parameter(value.clone()) for value in start]
    weights = [nn.Parameter(value.bfloat16()) for value in start]
    masters = {w: value.clone() for w, value in zip(weights, start, strict=True)}
    theirs, ours = torch.optim.AdamW(grouped(plain)), MasterAdamW(grouped(weights), masters)
    for step in range(6):
        for p, w in zip(plain, weights, strict=True):
            w.grad = torch.randn(w.shape, generator=draw).bfloat16() if step < 4 else None
            p.grad = None if w.grad is None else w.grad.float()
        theirs.step()
        ours.step()
    for p, w in zip(plain, weights, strict=True):
        assert torch.equal(masters[w], p.detach())


def test_the_state_holds_the_masters() -> None:
    def fresh() -> tuple[nn.Parameter, dict, MasterAdamW]:
        weight = nn.Parameter(torch.ones(5).bfloat16())
        masters = {weight: torch.ones(5)}
        return weight, masters, MasterAdamW([{"params": [weight], "lr": 1e-4}], masters)

    def steps(weight: nn.Parameter, optimiser: MasterAdamW, count: int) -> None:
        for _ in range(count):
            weight.grad = torch.arange(5.0).bfloat16()
            optimiser.step()

    weight, masters, whole = fresh()
    steps(weight, whole, 10)
    first, _, before = fresh()
    steps(first, before, 4)
    kept = deepcopy(before.state_dict())
    second, resumed, after = fresh()
    after.load_state_dict(kept)
    steps(second, after, 6)
    assert torch.equal(resumed[second], masters[weight])
    assert torch.equal(second, weight)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, **params):
    rows = world()
    options = {"max_steps": 6, "lr": 1e-3, "precision": "bf16-masters", **params}
    return forget(original, rows.forget, rows.retain, params=options, stop_at="none", out=out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for file in weight_files(folder) for n, t in load_file(file).items()}


def test_the_result_is_saved_from_the_masters(original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path / "out")
    saved, before = weights(tmp_path / "out"), weights(original)
    fine = sum(int((t != t.bfloat16().float()).sum()) for t in saved.values())
    total = sum(t.numel() for t in saved.values())
    assert {t.dtype for t in saved.values()} == {torch.float32}
    assert fine > 0.9 * total
    assert done["weights_changed"] > 0.5 * total
    exact = run(original, tmp_path / "exact", precision="float32")
    ours = torch.cat([(saved[n] - before[n]).flatten() for n in saved])
    theirs = torch.cat([(t - before[n]).flatten() for n, t in weights(tmp_path / "exact").items()])
    assert functional.cosine_similarity(ours, theirs, dim=0) > 0.8
    assert done["before"]["forget_nll"] != exact["before"]["forget_nll"]
    assert done["forget_nll"] == pytest.approx(exact["forget_nll"], rel=5e-3)


def test_an_interrupted_run_with_masters_ends_bit_identical(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "whole")

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut")
    assert run(original, tmp_path / "cut")["resumed_from"] >= 2
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16-masters"])
def test_frozen_entries_stay_bit_identical_under_decay(
    precision: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "model.layers.0.mlp.down_proj.weight"

    def mask(model, task, params):
        allowed = torch.zeros_like(model.get_parameter(name), dtype=torch.bool)
        allowed[::2] = True
        return {name: allowed, "model.norm.weight": False}

    monkeypatch.setattr(methods.load("npo"), "mask", mask, raising=False)
    run(original, tmp_path / "out", precision=precision, weight_decay=0.3)
    before, after = weights(original), weights(tmp_path / "out")
    assert torch.equal(after[name][1::2], before[name][1::2])
    assert (after[name][::2] != before[name][::2]).float().mean() > 0.9
    assert torch.equal(after["model.norm.weight"], before["model.norm.weight"])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "gpt_neox"])
def test_checkpointing_computes_again_and_changes_no_gradient(family: str) -> None:
    found = {}
    for params in (PLAIN, RECOMPUTED):
        model = tiny_model(family, vocab=64, layers=3, hidden=16).eval()
        calls = []
        inner = model.get_decoder().get_submodule({"gpt2": "h.0.mlp"}.get(family, "layers.0.mlp"))
        inner.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        with computing(model, params):
            model.train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            loss_of(model).backward()
            model.eval()
            with torch.no_grad():
                loss_of(model)
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found[params.checkpointing] = (len(calls), gradients)
        assert not model.is_activation_checkpointing
    assert [found[on][0] for on in (False, True)] == [2, 3]
    for name, gradient in found[False][1].items():
        torch.testing.assert_close(found[True][1][name], gradient, rtol=1e-6, atol=1e-8)


def test_a_stopped_forward_fires_its_hooks_once_and_has_the_same_gradient() -> None:
    found = {}
    for params in (PLAIN, RECOMPUTED):
        model = tiny_model("llama", vocab=64, layers=3, hidden=16).train()
        blocks, ran = model.model.layers, []
        for place, block in enumerate(blocks):
            block.register_forward_hook(lambda *_, place=place, ran=ran: ran.append(place))
        with computing(model, params):
            hidden = packed_hidden(model, batch(), [0, 1])
            sum(part.pow(2).sum() for part in hidden.values()).backward()
        found[params.checkpointing] = {n: p.grad for n, p in model.named_parameters()}
        assert ran == [0, 1]
        assert not any(block._forward_hooks and len(block._forward_hooks) > 1 for block in blocks)
    for name, gradient in found[False].items():
        if gradient is None:
            assert found[True][name] is None
        else:
            torch.testing.assert_close(found[True][name], gradient, rtol=1e-6, atol=1e-8)


def test_checkpointing_reaches_adapters_above_frozen_embeddings() -> None:
    found = {}
    for params in (PLAIN, RECOMPUTED):
        model = with_adapter(tiny_model("llama", vocab=64, layers=3), params, {}, seed=0).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        with computing(model, params):
            loss_of(model).backward()
            embedded = model.get_input_embeddings()(torch.tensor([[3]]))
            assert not embedded.requires_grad
        found[params.checkpointing] = {
            n: p.grad for n, p in model.named_parameters() if p.requires_grad
        }
    assert all(gradient.abs().max() > 0 for gradient in found[True].values())
    for name, gradient in found[False].items():
        torch.testing.assert_close(found[True][name], gradient, rtol=1e-6, atol=1e-8)
