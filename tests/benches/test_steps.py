"""The bench takes a real step of every gradient method, and counts the anchor's passes."""

import sys
from pathlib import Path

import pytest
import torch

from expunge.core.registry import methods

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))
import engine_steps

GRADIENT = [
    card.id
    for card in methods.cards()
    if card.kind == "gradient" and not hasattr(methods.load(card.id), "attach")
]
"""Without those that put a part into the model: it would stay in the one that all share."""
REMEMBERED = {"npo", "kl-min", "undial", "idk-dpo"}


@pytest.fixture(scope="module")
def bench() -> engine_steps.Bench:
    return engine_steps.Bench(engine_steps.Shape(512, 16, "short"))


@pytest.mark.parametrize("method_id", GRADIENT)
def test_a_step_moves_what_may_move_and_nothing_else(
    method_id: str, bench: engine_steps.Bench
) -> None:
    way = bench.method(method_id)
    bench.timed(way)  # a term whose weight rises with the run is 0 in the first step
    before = {p: p.detach().clone() for p in bench.all}
    frozen = bench.frozen_forwards

    bench.timed(way)

    moved = {p for p, old in before.items() if not torch.equal(p, old)}
    assert moved
    assert moved <= way.moving
    if method_id in REMEMBERED:
        assert bench.frozen_forwards == frozen


def test_a_second_model_is_counted(bench: engine_steps.Bench) -> None:
    before = bench.frozen_forwards
    bench.timed(bench.opponent("npo", engine_steps.deepcopy(bench.model)))
    assert bench.frozen_forwards == before + 1


def test_all_ways_see_the_same_tokens(bench: engine_steps.Bench) -> None:
    assert bench.counts() == {"tokens": 96, "supervised": 48}
