"""What is known of a pass when its blocks are computed a second time."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from expunge.engine.recomputed import remember
from expunge.lm.arch import Slots
from expunge.testing import tiny_model


def seen_by(model: Any, *knowing: SimpleNamespace) -> list[tuple[Any, ...]]:
    """What is known whenever the first block's MLP runs, in one step with checkpointing."""
    seen: list[tuple[Any, ...]] = []
    handle = (
        Slots(model)
        .module(0, "mlp")
        .register_forward_pre_hook(lambda *_: seen.append(tuple(one.now for one in knowing)))
    )
    ids = torch.arange(3, 9)[None]
    for number, one in enumerate(knowing):
        one.now = f"pass {number}"
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    for one in knowing:
        one.now = None
    loss.backward()
    handle.remove()
    return seen


def checkpointed() -> Any:
    model = tiny_model("llama").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_second_time_is_like_the_first_however_often_it_is_asked_for(times: int) -> None:
    model, one = checkpointed(), SimpleNamespace(now=None)
    for _ in range(times):
        remember(model, one)
    assert seen_by(model, one) == [("pass 0",), ("pass 0",) if times else (None,)]
    assert one.now is None


def test_several_know_their_own() -> None:
    model = checkpointed()
    both = [SimpleNamespace(now=None), SimpleNamespace(now=None)]
    for one in both:
        remember(model, one)
    assert seen_by(model, *both) == [("pass 0", "pass 1")] * 2


def test_without_checkpointing_nothing_is_put_in() -> None:
    model, one = tiny_model("llama").train(), SimpleNamespace(now=None)
    remember(model, one)
    assert seen_by(model, one) == [("pass 0",)]
