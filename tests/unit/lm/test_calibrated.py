import copy
from functools import partial

import pytest
import torch

from expunge.data.encode import Encoded, collate
from expunge.lm.arch import Slots
from expunge.lm.calibrated import (
    ORDER,
    Inputs,
    awq,
    calibrated,
    calibration,
    gptq,
    inputs_of,
    output_error,
)
from expunge.lm.hooks import evaluating
from expunge.lm.quantise import agreement, dequantise, matrices, quantise, quantise_rtn
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

SEEDS = pytest.mark.parametrize("seed", range(8))


def problem(seed: int, out: int = 12, width: int = 40, tokens: int = 200):
    """Weights and correlated inputs of very different size."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=draw).double()
    mix *= torch.rand(width, generator=draw).double() ** 3
    x = torch.randn(tokens, width, generator=draw).double() @ mix.T
    weight = torch.randn(out, width, generator=draw).double()
    return weight, Inputs(x.T @ x, x.abs().mean(0)), x


def nearest(weight, bits=4, group=16):
    return dequantise(*quantise(weight, bits, group), weight.shape[1])


@SEEDS
@pytest.mark.parametrize("group", [16, 64])
def test_gptq_moves_the_output_less_than_rounding_to_nearest(seed, group) -> None:
    weight, inputs, x = problem(seed)
    rounded, codes = gptq(weight, inputs, 4, group)
    error = output_error(rounded - weight, inputs)
    assert error <= output_error(nearest(weight, group=group) - weight, inputs)
    assert error == pytest.approx(float(((rounded - weight) @ x.T).square().sum()))
    assert codes.abs().max() <= 7


def test_gptq_on_unrelated_inputs_is_rounding_to_nearest() -> None:
    weight, *_ = problem(0)
    alone = Inputs(torch.eye(40).double(), torch.ones(40).double())
    rounded, codes = gptq(weight, alone, 4, 16)
    torch.testing.assert_close(rounded, nearest(weight))
    assert torch.equal(codes, quantise(weight, 4, 16)[0].flatten(1)[:, :40])


@SEEDS
def test_gptq_follows_its_formula_column_by_column(seed) -> None:
    """Slow second way: the inverse of what is left, made anew for each column."""
    weight, inputs, _ = problem(seed, out=3, width=12)
    hessian = 2 * inputs.gram
    hessian += 0.01 * hessian.diagonal().mean() * torch.eye(12)
    work, step = weight.clone(), None
    for at in range(12):
        if at % 4 == 0:
            step = work[:, at : at + 4].abs().amax(1) / 7
        inverse = torch.linalg.inv(hessian[at:, at:])
        kept = step * (work[:, at] / step).round().clamp(-7, 7)
        push = (work[:, at] - kept)[:, None] * inverse[0] / inverse[0, 0]
        work[:, at:] -= push
        work[:, at] = kept
    torch.testing.assert_close(gptq(weight, inputs, 4, 4)[0], work)


def test_gptq_keeps_what_is_on_the_grid() -> None:
    weight, inputs, _ = problem(3)
    on_grid = nearest(weight)
    torch.testing.assert_close(gptq(on_grid, inputs, 4, 16)[0], on_grid)


def test_inputs_of_nothing_are_no_reason_to_fail() -> None:
    weight, *_ = problem(0)
    nothing = Inputs(torch.zeros(40, 40).double(), torch.zeros(40).double())
    for method in (gptq, awq):
        torch.testing.assert_close(method(weight, nothing, 4, 16)[0], nearest(weight))


@SEEDS
def test_awq_is_never_worse_than_rounding_to_nearest_and_mostly_better(seed) -> None:
    weight, inputs, _ = problem(seed)
    rounded, _ = awq(weight, inputs, 4, 16)
    assert output_error(rounded - weight, inputs) < output_error(nearest(weight) - weight, inputs)


def test_awq_without_stretching_is_rounding_to_nearest(monkeypatch) -> None:
    weight, inputs, _ = problem(1)
    monkeypatch.setattr("expunge.lm.calibrated.POWERS", (0.0,))
    rounded, codes = awq(weight, inputs, 4, 16)
    torch.testing.assert_close(rounded, nearest(weight))
    assert torch.equal(codes, quantise(weight, 4, 16)[0].flatten(1)[:, :40])


def test_awq_spares_the_channel_that_is_read_most() -> None:
    weight, *_ = problem(2)
    size = torch.ones(40).double()
    size[5] = 100.0
    inputs = Inputs(torch.diag(size**2), size)
    moved = (awq(weight, inputs, 4, 40)[0] - weight).abs().mean(0)
    assert moved[5] < 0.2 * (nearest(weight, group=40) - weight).abs().mean(0)[5]


def texts(lengths) -> list[Encoded]:
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, 500, (n,), generator=draw).tolist() for n in lengths]
    return [Encoded(ids, ids, [], -1) for ids in rows]


def test_inputs_leave_out_padding(family: str) -> None:
    model, rows = tiny_model(family), texts([5, 9, 14])
    slots = Slots(model)
    for slot in ORDER:
        linear = slots.model.get_submodule(slots.names(1, slot)[0])
        with evaluating(model):
            together = inputs_of(model, 1, linear, [collate(rows, 0)])
            apart = inputs_of(model, 1, linear, [collate([row], 0) for row in rows])
        torch.testing.assert_close(together.gram, apart.gram, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.size, apart.size, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [gptq, awq])
def test_all_linears_are_rounded_and_nothing_else(family: str, method) -> None:
    model = tiny_model(family)
    tokenizer = tiny_tokenizer(["a b c"])
    before = copy.deepcopy(model.state_dict())
    codes = calibrated(partial(method, bits=4, group=16), texts([6, 12]))(Subject(model, tokenizer))
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {f"{name}.weight" for name in Slots(model).linears()}
    assert {name: code.shape for name, code in codes.items()} == {
        name: weight.shape for name, weight in matrices(model).items()
    }
    assert not any(len(module._forward_pre_hooks) for module in model.modules())


def test_a_layer_is_calibrated_on_what_the_rounded_ones_below_say() -> None:
    model, rows = tiny_model("llama"), texts([8, 8])
    seen = []

    def spy(weight, inputs):
        seen.append(inputs)
        return gptq(weight, inputs, 2, 16)

    calibrated(spy, rows)(Subject(model, tiny_tokenizer(["a b c"])))
    last = Slots(model).module(1, "mlp_out")
    with evaluating(model):
        now = inputs_of(model, 1, last, [collate(rows, 0)])
    torch.testing.assert_close(seen[-1].gram, now.gram)
    assert len(seen) == 2 * len(ORDER)


def test_with_inputs_alike_in_all_channels_a_model_is_rounded_to_nearest() -> None:
    model, other = tiny_model("gpt2"), tiny_model("gpt2")

    def blind(weight, inputs):
        width = weight.shape[1]
        alike = Inputs(torch.eye(width).double(), torch.ones(width).double())
        return gptq(weight, alike, 4, 16)

    codes = calibrated(blind, texts([8]))(Subject(model, tiny_tokenizer(["a b c"])))
    quantise_rtn(other, 4, 16)
    for name, weight in matrices(other).items():
        torch.testing.assert_close(matrices(model)[name], weight)
    assert set(agreement(codes, codes).values()) == {1.0}


def test_rows_without_positions_are_left_out_and_the_draw_is_the_seed_s() -> None:
    rows = [Row(id=f"r{n}", text="a b c " * n) for n in range(1, 40)]
    subject = Subject(tiny_model("llama", positions=24), tiny_tokenizer(["a b c"]))

    def drawn(seed, sequences=16):
        scene = Scene(retain=rows, neighbour=(), seed=seed)
        return [text.ids for text in calibration(subject, scene, sequences)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert all(len(ids) <= 24 for ids in drawn(0, 100))
    assert 0 < len(drawn(0, 100)) < len(rows)
