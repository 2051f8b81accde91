import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.lm.arch import SLOTS, Slots, is_linear, positions_of
from expunge.testing.tiny import tiny_model


def width_out(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[0] if isinstance(module, nn.Linear) else weight.shape[1]


def width_in(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]


def test_every_slot_of_every_family_is_where_its_shape_says(family: str) -> None:
    model = tiny_model(family, hidden=32, layers=3)
    slots = Slots(model)
    assert len(slots) == 3
    for layer in (0, 2):
        assert slots.module(layer, "block") is slots.blocks[layer]
        for slot in ("mlp_out", "attention_out"):
            assert width_out(slots.module(layer, slot)) == 32
        for slot in ("mlp_in", "attention_in"):
            for name in slots.names(layer, slot):
                assert width_in(model.get_submodule(name)) == 32
    inner = sum(width_out(model.get_submodule(n)) for n in slots.names(0, "attention_in"))
    assert inner in (64, 96)  # grouped heads: 32 + 16 + 16; all heads: 3 x 32
    assert width_in(slots.module(0, "mlp_out")) in (64, 128)


def test_slots_are_disjoint_and_cover_all_linears(family: str) -> None:
    model = tiny_model(family, layers=2)
    slots = Slots(model)
    named = [
        name
        for layer in (0, 1)
        for slot in ("mlp_in", "mlp_out", "attention_in", "attention_out")
        for name in slots.names(layer, slot)
    ]
    assert sorted(named) == sorted(slots.linears())
    assert len(set(named)) == len(named)
    assert all(is_linear(model.get_submodule(name)) for name in named)


def test_norms_embedding_and_head(family: str) -> None:
    model = tiny_model(family, vocab=70, hidden=32)
    slots = Slots(model)
    expected = {"gemma2": 4, "gemma3": 6, "qwen3": 4}.get(family, 2)
    assert len(slots.norms(0)) == expected
    assert all(norm.weight is not slots.final_norm.weight for norm in slots.norms(1))
    assert slots.final_norm.weight.shape == (32,)
    assert slots.embed.weight.shape == (70, 32)
    assert width_out(slots.head) == 70
    tied = family in ("llama_tied", "gemma2", "gemma3", "gpt2")
    assert (slots.head.weight is slots.embed.weight) == tied


def test_negative_layers_count_from_the_top() -> None:
    slots = Slots(tiny_model("llama", layers=3))
    assert slots.module(-1, "mlp") is slots.module(2, "mlp")
    with pytest.raises(ExpungeError) as caught:
        slots.module(3, "mlp")
    assert caught.value.code == "E-USE-003"


def test_the_parts_of_a_split_slot_come_as_a_list() -> None:
    slots = Slots(tiny_model("llama"))
    split = slots.module(0, "attention_in")
    assert isinstance(split, nn.ModuleList)
    assert [p.shape[0] for p in split.parameters()] == [32, 16, 16]


class Strange(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.config, self.inner = model.config, model
        self.decoder = nn.Module()
        self.decoder.layers = nn.ModuleList([nn.Module() for _ in range(2)])

    def get_decoder(self) -> nn.Module:
        return self.decoder


def test_unknown_blocks_are_reachable_but_their_parts_are_refused() -> None:
    slots = Slots(Strange(tiny_model("llama")))
    assert slots.module(1, "block") is slots.blocks[1]
    with pytest.raises(ExpungeError) as caught:
        slots.module(0, "mlp")
    assert caught.value.code == "E-MODEL-007"
    with pytest.raises(ExpungeError):
        Slots(nn.Linear(2, 2))
    assert set(SLOTS) > {"mlp", "block"}


def test_positions_are_the_models_own() -> None:
    assert positions_of(tiny_model("gpt2", positions=96)) == 96
