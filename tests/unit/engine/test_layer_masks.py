"""Masks by the name of a part: the same part in every family, whatever stands before it."""

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.masks import AppliedMask, moving
from expunge.engine.slots.mask import all_trainable, blocks_only, mlp_outputs_only
from expunge.methods import rmu
from expunge.testing.tiny import FAMILIES, tiny_model

OUTPUTS = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mlp_output_is_found_by_name_and_its_bias_stays(family: str) -> None:
    model = tiny_model(family, layers=5)
    AppliedMask(model, mlp_outputs_only(model, [1, 2, -1]))
    blocks = {"gpt2": "transformer.h", "gpt_neox": "gpt_neox.layers"}.get(family, "model.layers")
    assert set(moving(model)) == {
        f"{blocks}.{at}.mlp.{OUTPUTS.get(family, 'down_proj')}.weight" for at in (1, 2, 4)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_what_moves_feeds_the_steered_block(family: str) -> None:
    """Every matrix that may move gets a gradient from the output of the steered block."""
    model = tiny_model(family, layers=5)
    params = methods.params("rmu", {"layer": 3})
    AppliedMask(model, rmu.mask(model, None, params))
    ids = torch.arange(4, 16).reshape(2, 6)
    states = model(input_ids=ids, output_hidden_states=True).hidden_states
    states[4].square().mean().backward()
    grown = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert grown == set(moving(model))
    assert len(grown) == 3


def test_below_the_third_block_there_are_fewer_to_move() -> None:
    model = tiny_model("llama", layers=3)
    allowed = rmu.mask(model, None, methods.params("rmu", {"layer": 1}))
    assert [name for name, moves in allowed.items() if moves] == [
        f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1)
    ]


def test_layers_name_other_blocks() -> None:
    model = tiny_model("llama", layers=3)
    allowed = rmu.mask(model, None, methods.params("rmu", {"layer": 1, "layers": (0,)}))
    assert [name for name, moves in allowed.items() if moves] == [
        "model.layers.0.mlp.down_proj.weight"
    ]


def test_whole_blocks_move_or_all_of_them() -> None:
    model = tiny_model("llama", layers=3)
    inside = {name for name, moves in blocks_only(model, [0, -1]).items() if moves}
    assert inside == {
        name for name, _ in model.named_parameters() if "layers.0." in name or "layers.2." in name
    }
    assert all_trainable(model, None, methods.params("npo", {})) == {}
    assert all_trainable(model, None, methods.params("npo", {"layers": (0, 2)})) == blocks_only(
        model, [0, 2]
    )


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        rmu.mask(tiny_model("llama", layers=3), None, methods.params("rmu", {"layer": 7}))
