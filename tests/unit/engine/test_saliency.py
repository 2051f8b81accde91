"""Saliency: the best share against a sort, gradients and norms against slow ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine import saliency
from expunge.engine.saliency import (
    input_norms,
    nll_gradients,
    over_units,
    simplest,
    top_share,
    transposed,
    unit_norms,
)
from expunge.engine.task import Task
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world


def scores() -> dict[str, Tensor]:
    """Signed numbers of many sizes, many equal ones, both zeros, and a subnormal one."""
    draw = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-30, 30, (40, 70), generator=draw)
    return {
        "wide": torch.randn(40, 70, generator=draw) * sizes,
        "coarse": torch.randn(3000, generator=draw).round(),
        "zeros": torch.tensor([0.0, -0.0, 1e-40, 0.0]),
    }


def by_sorting(given: dict[str, Tensor], share: float) -> Tensor:
    """The largest of all, the first of equal ones first."""
    flat = torch.cat([one.flatten() for one in given.values()]) + 0.0
    count = max(1, round(share * len(flat)))
    best = flat.sort(descending=True, stable=True).indices[:count]
    return torch.zeros(len(flat), dtype=torch.bool).index_fill(0, best, True)


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.3, 0.5, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("at_once", [saliency.AT_ONCE, 97])
def test_the_best_share_is_that_of_a_stable_sort(share: float, at_once: int, monkeypatch) -> None:
    monkeypatch.setattr(saliency, "AT_ONCE", at_once)
    given = scores()
    found = top_share({name: one.clone for name, one in given.items()}, share)
    assert {name: one.shape for name, one in found.items()} == {
        name: one.shape for name, one in given.items()
    }
    flat = torch.cat([one.flatten() for one in found.values()])
    assert torch.equal(flat, by_sorting(given, share))


def test_of_equal_scores_at_the_limit_exactly_as_many_as_asked_for_are_taken() -> None:
    equal = {"a": torch.ones(10), "b": torch.ones(3, 4)}
    found = top_share({name: one.clone for name, one in equal.items()}, 0.5)
    assert found["a"].all()
    assert found["b"].flatten().tolist() == [True] + [False] * 11


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(broken: float) -> None:
    with pytest.raises(ExpungeError, match="E-RUN-002"):
        top_share({"a": torch.tensor([1.0, broken]).clone}, 0.5)


def test_a_mask_of_one_value_is_that_value() -> None:
    assert simplest(torch.ones(3, dtype=torch.bool)) is True
    assert simplest(torch.zeros(3, dtype=torch.bool)) is False
    mixed = torch.tensor([True, False])
    assert simplest(mixed) is mixed


def task_of(**changes: object) -> Task:
    subject, rows = taught_subject().copy(), world()
    subject.model.double()
    return replace(
        Task(
            model=subject.model,
            tokenizer=subject.tokenizer,
            encoder=subject.encoder,
            roles={"forget": rows.forget, "retain": rows.retain},
        ),
        **changes,
    )


def slow_gradients(task: Task, role: str, weights: list[float]) -> dict[str, Tensor]:
    """One row in one wording after the other, one token after the other."""
    task.model.zero_grad()
    tokens = 0
    for row, weight in zip(task.roles[role], weights, strict=True):
        for turn in (row.training, *row.turns[1:]):
            item = task.encoder.encode(turn)
            logp = task.model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)
            told = [at for at, label in enumerate(item.labels) if label >= 0]
            (-weight * sum(logp[at - 1, item.ids[at]] for at in told)).backward()
            tokens += len(told)
    found = {n: p.grad / tokens for n, p in task.model.named_parameters()}
    task.model.zero_grad()
    return found


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_gradient_is_that_of_one_mean_over_tokens_however_rows_are_batched(
    batch_size: int,
) -> None:
    task = task_of(params=methods.params("npo", {"batch_size": batch_size}))
    slow = slow_gradients(task, "retain", [1.0] * len(task.retain))
    found = nll_gradients(task, "retain")
    assert found.keys() == slow.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, slow[name], rtol=1e-4, atol=1e-9)
    assert all(p.grad is None or not p.grad.any() for p in task.model.parameters())


def test_rows_that_weigh_more_do_so_here() -> None:
    weights = [1.0 + at for at in range(len(world().forget))]
    task = task_of(weights=weights)
    slow = slow_gradients(task, "forget", weights)
    plain = slow_gradients(task, "forget", [1.0] * len(weights))
    for name, gradient in nll_gradients(task, "forget").items():
        torch.testing.assert_close(gradient, slow[name], rtol=1e-4, atol=1e-9)
    assert not torch.allclose(slow["lm_head.weight"], plain["lm_head.weight"])


def test_at_most_so_many_wordings_are_looked_at_and_the_seed_says_which() -> None:
    few = [nll_gradients(task_of(seed=seed), "forget", 3)["lm_head.weight"] for seed in (0, 0, 1)]
    whole = nll_gradients(task_of(), "forget")["lm_head.weight"]
    assert torch.equal(few[0], few[1])
    assert not torch.allclose(few[0], few[2])
    assert not torch.allclose(few[0], whole)
    assert torch.equal(nll_gradients(task_of(), "forget", 1000)["lm_head.weight"], whole)


def test_frozen_weights_have_no_gradient_and_flags_stay() -> None:
    task = task_of()
    task.model.lm_head.weight.requires_grad_(False)
    assert "lm_head.weight" not in nll_gradients(task, "forget")
    assert not task.model.lm_head.weight.requires_grad
    assert task.model.model.norm.weight.requires_grad


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_inputs_are_measured_at_real_positions_only(family: str) -> None:
    rows = world()
    model = tiny_model(family, vocab=len(rows.tokenizer), hidden=32, positions=64)
    task = task_of(model=model, roles={"forget": rows.forget[:5], "retain": rows.retain})
    name = next(n for n, _ in model.named_modules() if n.endswith(("down_proj", "mlp.c_proj")))
    seen: list[Tensor] = []
    model.get_submodule(name).register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    with torch.no_grad():
        for row in rows.forget[:5]:
            for turn in (row.training, *row.turns[1:]):
                model(input_ids=torch.tensor([task.encoder.encode(turn).ids]))
    slow = torch.cat(seen).double().square().sum(0).sqrt()
    found = input_norms(task, "forget")
    torch.testing.assert_close(found[name], slow, rtol=1e-4, atol=1e-6)
    assert len(found) == 2 * {"llama": 7, "gpt2": 4, "phi3": 4}[family]


def test_units_are_rows_or_columns_where_a_family_stores_them_so() -> None:
    gradients = {"rows": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "vector": torch.tensor([-2.0, 5])}
    norms = unit_norms(gradients, ())
    assert norms["rows"].tolist() == [5.0, 1.0]
    assert norms["vector"].tolist() == [2.0, 5.0]
    turned = unit_norms(gradients, {"rows"})["rows"].numpy()
    np.testing.assert_allclose(turned, [3.0, 17**0.5])
    units = torch.tensor([True, False])
    assert over_units(units, gradients["rows"], is_transposed=False).tolist() == [
        [True, True],
        [False, False],
    ]
    assert over_units(units, gradients["rows"], is_transposed=True).tolist() == [
        [True, False],
        [True, False],
    ]
    assert over_units(units, gradients["vector"], is_transposed=False) is units


def test_only_gpt2_stores_matrices_the_other_way_round() -> None:
    stored = transposed(tiny_model("gpt2", layers=1))
    assert stored == {
        f"transformer.h.0.{name}.weight"
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert not transposed(tiny_model("llama"))
    assert not transposed(nn.Linear(2, 2))
