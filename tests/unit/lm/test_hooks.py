from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from expunge.lm.arch import Slots
from expunge.lm.hooks import capture, evaluating, forward_to, intervene, without_dropout
from expunge.lm.lens import lens
from expunge.testing.tiny import tiny_model

Make = Callable[..., PreTrainedModel]
IDS = torch.tensor([[1, 7, 9, 11, 5], [1, 8, 6, 4, 3]])


def test_forward_to_equals_hidden_states_and_runs_no_block_above(family: str, loud: Make) -> None:
    model = loud(family, vocab=64, layers=3)
    states = model(IDS, output_hidden_states=True).hidden_states
    with capture(model, [2]) as seen:
        reached = forward_to(model, 1, input_ids=IDS)
    assert torch.equal(reached, states[2])
    assert seen == {}


def test_forward_to_has_the_gradients_of_the_whole_forward(family: str, loud: Make) -> None:
    model = loud(family, vocab=64, layers=3)
    forward_to(model, 0, input_ids=IDS).square().sum().backward()  # type: ignore[no-untyped-call]
    short = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    state = model(IDS, output_hidden_states=True).hidden_states[1]
    state.square().sum().backward()
    assert all(torch.equal(grad, model.get_parameter(n).grad) for n, grad in short.items())
    above = [p.grad for p in Slots(model).blocks[1].parameters()]
    assert all(grad is None or not grad.any() for grad in above)


def test_capture_sees_block_outputs_before_the_final_norm(family: str, loud: Make) -> None:
    model = loud(family, vocab=64)
    with capture(model, [0, -1]) as seen:
        states = model(IDS, output_hidden_states=True).hidden_states
    assert torch.equal(seen[0], states[1])
    torch.testing.assert_close(Slots(model).final_norm(seen[-1]), states[-1])
    assert not torch.allclose(seen[-1], states[-1])


def test_hooks_are_gone_after_the_context(loud: Make) -> None:
    model = loud("llama", vocab=64)
    before = model(IDS).logits
    with intervene(model, 0, lambda hidden: hidden + 1):
        assert not torch.allclose(model(IDS).logits, before)
    with pytest.raises(ZeroDivisionError), intervene(model, 0, lambda _: 1 / 0):  # type: ignore[arg-type, return-value]
        model(IDS)
    assert torch.equal(model(IDS).logits, before)


def test_intervening_replaces_what_follows(family: str, loud: Make) -> None:
    model = loud(family, vocab=64)
    with intervene(model, -1, torch.zeros_like):
        logits = model(IDS).logits
    assert torch.equal(logits[0, 0], logits[1, 4])


def test_an_mlp_can_be_hooked_alone(loud: Make) -> None:
    model = loud("gemma2", vocab=64)
    with capture(model, [0], "mlp") as seen:
        model(IDS)
    assert seen[0].shape == (2, 5, 32)


def test_lens_at_the_last_block_is_the_models_output(family: str, loud: Make) -> None:
    model = loud(family, vocab=64)
    with capture(model, [0, -1]) as seen:
        logits = model(IDS).logits
    torch.testing.assert_close(lens(model, seen[-1]), logits, atol=1e-5, rtol=1e-5)
    assert (lens(model, seen[0]) - logits).abs().max() > 0.1
    rows = lens(model, seen[-1][0])
    assert rows.shape == (5, 64)
    torch.testing.assert_close(rows, logits[0], atol=1e-5, rtol=1e-5)


def test_the_lens_leaves_the_model_as_it_was(loud: Make) -> None:
    model = loud("gemma2", vocab=64)
    before = model(IDS).logits
    lens(model, torch.randn(1, 5, 32))
    assert torch.equal(model(IDS).logits, before)


def test_the_lens_keeps_soft_caps() -> None:
    model = tiny_model("gemma2", vocab=64)
    slots = Slots(model)
    with torch.no_grad():
        slots.embed.weight.mul_(1e3)
    hidden = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    assert slots.head(slots.final_norm(hidden)).abs().max() > 31
    assert lens(model, hidden).abs().max() <= 30


def test_dropout_is_off_in_training_mode_and_comes_back(family: str, loud: Make) -> None:
    model = loud(family, vocab=64)
    with torch.no_grad():
        expected = model(IDS).logits
    model.train()
    with without_dropout(model):
        assert torch.equal(model(IDS).logits, expected)
    if family == "gpt2":
        assert not torch.allclose(model(IDS).logits, expected)


def test_evaluating_restores_the_mode(loud: Make) -> None:
    model = loud("gpt2", vocab=64).train()
    with evaluating(model):
        assert not model.training
        assert not model(IDS).logits.requires_grad
    assert model.training
