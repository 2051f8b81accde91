"""Refusal training: the two means, the union of the original code, and the draws."""

from collections import Counter
from types import SimpleNamespace

import pytest
from conftest_methods import assert_same, flat, slow_nll

from expunge.core.rng import derive
from expunge.methods.idk_nll import Params, prepare
from expunge.testing import objective
from expunge.text.refusal import REFUSALS


def test_two_terms_with_a_mean_each(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    views = {"refusal": random_view(2), "retain": random_view(3)}
    found = objective("idk-nll", model, views, retain_weight=0.3)
    slow = flat(slow_nll(twin, views["refusal"])).mean()
    slow = slow + 0.3 * flat(slow_nll(twin, views["retain"])).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_the_union_weighs_by_tokens(random_table, random_view) -> None:
    model, twin = random_table(1), random_table(1)
    refusal, retain = random_view(2), {k: t[:1] for k, t in random_view(3).items()}
    found = objective("idk-nll", model, {"refusal": refusal, "retain": retain}, legacy_union=True)
    one, other = flat(slow_nll(twin, refusal)), flat(slow_nll(twin, retain))
    weighted = (len(one) * one.mean() + len(other) * other.mean()) / (len(one) + len(other))
    weighted.backward()
    assert set(found.terms) == {"forget"}
    assert_same((found.loss, model.table.grad), (weighted, twin.table.grad))


def test_every_refusal_is_drawn_equally_often() -> None:
    draws = Counter(
        derive(0, "refusal", row, epoch) % len(REFUSALS)
        for row in range(100)
        for epoch in range(100)
    )
    expected = 10_000 / len(REFUSALS)
    spread = 3 * (expected * (1 - 1 / len(REFUSALS))) ** 0.5
    assert len(draws) == len(REFUSALS)
    assert all(abs(count - expected) < spread for count in draws.values())


@pytest.mark.parametrize(("fixed", "distinct"), [(False, True), (True, False)])
def test_a_row_gets_a_new_refusal_each_epoch_unless_told_otherwise(fixed, distinct) -> None:
    from expunge.engine.datasets import Datasets
    from expunge.engine.slots.sample import Draw
    from expunge.requests.rows import Row

    said: list[str] = []

    def encode(turn, row, keep=()):
        said.append(turn.completion)
        return SimpleNamespace(row=row)

    rows = {"forget": [Row(id="a", prompt="Who?", completion=" Ann.")]}
    task = SimpleNamespace(
        seed=0, encoder=SimpleNamespace(encode=encode), roles=rows, paired={}, tokens={}
    )
    prepare(task, Params(legacy_fixed_refusal=fixed))
    datasets = Datasets(task)
    for epoch in range(8):
        datasets.drawn("refusal", Draw(epoch, {"forget": [0]}, [epoch], {"forget": [0]}))
    said.remove(" Ann.")
    assert (len(set(said)) > 1) is distinct
    assert all(text.startswith(" ") and text[1:] in REFUSALS for text in said)
