"""The negated log-odds that several methods forget by."""

import math

import pytest
import torch

from expunge.engine.forward import Inputs
from expunge.engine.preference import preference, row_preference
from expunge.engine.view import View

BETA = 0.7


class Known:
    """A source with log-probabilities given by hand."""

    def __init__(self, logp: list[float]) -> None:
        self.logp = torch.tensor(logp, dtype=torch.float64, requires_grad=True)

    def token_logp(self, inputs: Inputs) -> torch.Tensor:
        return self.logp


def test_where_nothing_has_changed_it_is_log_2_over_half_beta_with_slope_1() -> None:
    ratio = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    loss = preference(ratio, BETA)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([2 / BETA * math.log(2)] * 3)
    assert ratio.grad.tolist() == pytest.approx([1.0] * 3)


def test_the_slope_fades_as_the_answer_becomes_unlikely_and_grows_to_2() -> None:
    ratio = torch.tensor([-40.0, -1.0, 0.5, 40.0], dtype=torch.float64, requires_grad=True)
    preference(ratio, BETA).sum().backward()
    slopes = [2 / (1 + math.exp(-BETA * r)) for r in ratio.tolist()]
    assert ratio.grad.tolist() == pytest.approx(slopes)
    assert ratio.grad.tolist() == sorted(ratio.grad.tolist())


def test_extreme_ratios_stay_finite() -> None:
    ratio = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = preference(ratio, BETA)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert ratio.grad.isfinite().all()
    assert loss.tolist() == pytest.approx([0.0, 2e4])


def test_a_rows_tokens_are_summed_before_the_sigmoid() -> None:
    """Two rows, of two tokens and of one; a mean over tokens or over the batch is another value."""
    ids = torch.tensor([[5, 1, 2], [5, 3, 0]])
    labels = torch.tensor([[-100, 1, 2], [-100, 3, -100]])
    inputs = Inputs.from_labels(ids, torch.ones_like(ids), labels, torch.arange(2))
    now, before = Known([-3.0, -1.0, -0.5]), Known([-1.0, -0.5, -2.0])
    loss = row_preference(View(inputs, now, lambda: before), BETA)
    loss.value.backward()
    ratios = [-4.0 + 1.5, -0.5 + 2.0]
    by_hand = [2 / BETA * math.log1p(math.exp(BETA * ratio)) for ratio in ratios]
    weights = [2 / (1 + math.exp(-BETA * ratio)) / 2 for ratio in ratios]
    value = float(loss.value.detach())
    assert value == pytest.approx(sum(by_hand) / 2)
    assert float(loss.den) == 2.0
    assert now.logp.grad.tolist() == pytest.approx([weights[0], weights[0], weights[1]])
    pooled = preference(torch.tensor(sum(ratios) / 2, dtype=torch.float64), BETA)
    assert value != pytest.approx(float(pooled), rel=1e-2)
