"""The bench's opponent computes what our methods compute."""

import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from expunge.testing import objective, tiny_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import engine_steps
import textbook


@pytest.fixture(scope="module")
def models() -> tuple[nn.Module, nn.Module]:
    """A model and the start it has moved away from, in float64."""
    start = tiny_model("llama_tied", vocab=64, hidden=16, layers=4).double()
    model = deepcopy(start)
    for place, parameter in enumerate(model.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place))
        parameter.data += 0.02 * noise
    return model, start


def batch(seed: int) -> textbook.Batch:
    """Rows of different lengths, each with its own beginning of the answer."""
    ids = torch.randint(4, 64, (4, 12), generator=torch.Generator().manual_seed(seed))
    place = torch.arange(12)[None]
    real = place < torch.tensor([12, 9, 7, 11])[:, None]
    answered = real & (place >= torch.tensor([5, 4, 3, 8])[:, None])
    return textbook.Batch(ids * real, real.long(), torch.where(answered, ids, -100))


def gradients(model: nn.Module) -> Mapping[str, Tensor]:
    """What is left on the model, taken off it."""
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("method_id", sorted(textbook.LOSSES))
def test_value_and_gradient_are_those_of_our_method(
    method_id: str, models: tuple[nn.Module, nn.Module]
) -> None:
    model, start = models
    forget, retain = batch(1), batch(2)
    overrides = {**engine_steps.own_parameters(method_id), "forget_weight": 0.7}
    overrides |= {"layer": 2} if method_id == "rmu" else {}
    params = engine_steps.methods.params(method_id, overrides)
    if method_id == "rmu":
        params = engine_steps.control(params, model.config.hidden_size)
    theirs = textbook.LOSSES[method_id](model, start, forget, retain, params)
    theirs.backward()
    expected = gradients(model)

    views = {"forget": vars(forget), "retain": vars(retain)}
    ours = objective(method_id, model, views, anchor=start, **overrides)

    found = gradients(model)
    assert found.keys() == expected.keys()
    assert ours.loss == pytest.approx(float(theirs.detach()), rel=1e-6)
    for name, gradient in expected.items():
        # The textbook takes log-probabilities in float32: entries near 0 have its rounding.
        atol = 1e-6 * float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=atol)
