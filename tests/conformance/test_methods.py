"""Every method of the registry keeps the promises of the engine, and is itself."""

from itertools import combinations

import pytest
import torch

from expunge.core.registry import methods
from expunge.testing import check_method, objective, tiny_model

GRADIENT = [card.id for card in methods.cards() if card.kind == "gradient"]


@pytest.mark.parametrize("method_id", GRADIENT)
def test_the_method_conforms(method_id: str) -> None:
    check_method(method_id)


def test_no_two_methods_are_the_same_by_another_name() -> None:
    """On equal random tensors every method has a loss and a gradient of its own."""
    draw = torch.Generator().manual_seed(0)
    views = {}
    for name in ("forget", "retain", "refusal"):
        ids = torch.randint(3, 60, (4, 9), generator=draw)
        labels = torch.where(torch.rand(4, 9, generator=draw) < 0.6, ids, -100)
        views[name] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    anchor = tiny_model("llama", vocab=64, seed=1)
    found = {}
    for method_id in GRADIENT:
        model = tiny_model("llama", vocab=64, seed=0)
        found[method_id] = objective(method_id, model, views, anchor)
    for one, other in combinations(GRADIENT, 2):
        assert found[one].loss != pytest.approx(found[other].loss, rel=1e-6), (one, other)
        assert found[one].grad_norm != pytest.approx(found[other].grad_norm, rel=1e-6), (one, other)
