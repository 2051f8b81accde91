"""Every method of the registry keeps the promises of the engine, and is itself."""

from itertools import combinations

import pytest
import torch

from expunge.core.registry import methods
from expunge.testing import check_method, objective, tiny_model

GRADIENT = [card.id for card in methods.cards() if card.kind == "gradient"]
KINDS = ("gradient", "exact", "merge", "edit", "reinforcement")
DRIVEN = [card.id for card in methods.cards() if card.kind in KINDS]


@pytest.mark.parametrize("method_id", DRIVEN)
def test_the_method_conforms(method_id: str) -> None:
    check_method(method_id)


def test_no_two_methods_are_the_same_by_another_name() -> None:
    """On equal random tensors every method has a loss and a gradient of its own.

    A card that names another method under ``loss_of`` says that it has that one's loss.

    The vocabulary is small, so that no answer is so unlikely that bounded losses vanish.
    """
    draw = torch.Generator().manual_seed(0)
    views = {}
    named = (
        "forget",
        "retain",
        "refusal",
        "alternate",
        "random",
        "fluency",
        "declined",
        "cleaned",
        "nearest",
        "trace",
        "reasoning",
    )
    for name in named:
        ids = torch.randint(3, 8, (4, 9), generator=draw)
        labels = torch.where(torch.rand(4, 9, generator=draw) < 0.6, ids, -100)
        views[name] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    for preface in (3, 4):  # the same answers, after something else
        ids = views["forget"]["input_ids"]
        first = torch.full((len(ids), 1), preface)
        moved = {"input_ids": torch.cat([first, ids], 1), "labels": views["forget"]["labels"]}
        moved["labels"] = torch.cat([torch.full_like(first, -100), moved["labels"]], 1)
        moved["labels"][:, 1] = -100  # the first token of a row is never supervised
        moved["attention_mask"] = torch.ones_like(moved["input_ids"])
        views["expert" if preface == 3 else "novice"] = moved
    for name in ("reply", "general"):
        views[name], views[f"{name}_told"] = views["forget"], views["expert"]
    anchor = tiny_model("llama", vocab=8, seed=1)
    found = {}
    for method_id in GRADIENT:
        model = tiny_model("llama", vocab=8, seed=0)
        found[method_id] = objective(method_id, model, views, anchor)
    told = {id: methods.card(id).extra.get("loss_of", id) for id in GRADIENT}
    for one, other in combinations(GRADIENT, 2):
        if told[one] == told[other]:
            assert found[one].loss == pytest.approx(found[other].loss), (one, other)
            continue
        assert found[one].loss != pytest.approx(found[other].loss, rel=1e-6), (one, other)
        assert found[one].grad_norm != pytest.approx(found[other].grad_norm, rel=1e-6), (one, other)
