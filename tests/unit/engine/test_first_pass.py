"""A pass before the model's own: what it notes of each token, whoever moves the caller's cache."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from expunge.engine.first_pass import FirstPass, asked_of, known_before, starts, with_cache
from expunge.engine.runtime import twin
from expunge.lm.prefixes import can_share, new_cache
from expunge.testing import tiny_model

FAMILIES = ("llama", "gpt2", "gemma3", "gpt_neox")
LENGTH = 9


class Reading:
    """Reads first, and keeps what was noted of every call."""

    def __init__(self, model: nn.Module, other: nn.Module | None = None) -> None:
        self.model = model
        self.first = FirstPass(model, other or twin(model), lambda out: out.logits[..., :2])
        self.noted: list[Tensor] = []
        self.begins: list[Tensor] = []
        model.get_decoder().register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, decoder: nn.Module, given: tuple[Any, ...], named: Any) -> Any:
        asked = with_cache(self.model, asked_of(decoder, given, named))
        past = known_before(asked)
        _, history = self.first(asked)
        self.begins.append(starts(asked, history.shape[1] - past, past))
        self.noted.append(history)
        return (), asked


def ids(rows: int = 3, length: int = LENGTH) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(4, 60, (rows, length), generator=draw)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return tiny_model(request.param, vocab=64)


@torch.no_grad()
def test_read_piece_by_piece_it_notes_what_it_notes_at_once(model: nn.Module) -> None:
    whole = twin(model)(input_ids=ids()).logits
    reading, cache = Reading(model), new_cache(model)
    said = [
        model(input_ids=ids()[:, start:end], past_key_values=cache, use_cache=True).logits
        for start, end in ((0, 4), (4, 5), (5, 6), (6, LENGTH))
    ]
    torch.testing.assert_close(torch.cat(said, 1), whole, atol=1e-5, rtol=1e-4)
    assert [noted.shape[1] for noted in reading.noted] == [4, 5, 6, LENGTH]
    torch.testing.assert_close(reading.noted[-1], whole[..., :2], atol=1e-5, rtol=1e-4)
    begun = torch.cat([one.expand(3, -1) for one in reading.begins], 1)
    assert begun.tolist() == [[True] + [False] * (LENGTH - 1)] * 3


@torch.no_grad()
def test_rows_picked_from_the_cache_keep_what_was_noted_of_them(model: nn.Module) -> None:
    """What scoring and writing do with a cache: pick rows, in any order and twice."""
    whole = twin(model)(input_ids=ids()).logits
    reading, cache = Reading(model), new_cache(model)
    model(input_ids=ids()[:, :6], past_key_values=cache, use_cache=True)
    chosen = torch.tensor([2, 0, 2])
    cache.batch_select_indices(chosen)
    model(input_ids=ids()[chosen, 6:], past_key_values=cache, use_cache=True)
    expected = whole[chosen][..., :2]
    torch.testing.assert_close(reading.noted[-1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_on_the_left_begins_a_row_where_its_tokens_begin(model: nn.Module) -> None:
    reading = Reading(model)
    mask = torch.ones(3, LENGTH, dtype=torch.long)
    mask[1, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for named in ({"attention_mask": mask}, {"attention_mask": mask, "position_ids": positions}):
        model(input_ids=ids(), use_cache=False, **named)
        begun = reading.begins[-1] & mask.bool()
        assert begun.int().argmax(1).tolist() == [0, 4, 0]
        assert begun.sum(1).tolist() == [1, 1, 1]


def test_a_model_that_would_make_a_cache_gets_one_it_can_go_on_with(model: nn.Module) -> None:
    reading = Reading(model)
    with torch.no_grad():
        first = model(input_ids=ids()[:, :5])
        model(input_ids=ids()[:, 5:], past_key_values=first.past_key_values)
    assert reading.noted[-1].shape[1] == LENGTH
    assert can_share(model)


def test_a_cache_that_grows_by_itself_keeps_the_layers_apart() -> None:
    model = tiny_model("llama", vocab=64)
    whole = twin(model)(input_ids=ids()).logits.detach()
    reading, cache = Reading(model), DynamicCache()
    with torch.no_grad():
        for part in ids().split([5, 1, 3], 1):
            said = model(input_ids=part, past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(said, whole[:, 6:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(reading.noted[-1], whole[..., :2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_pass_stands_before_another() -> None:
    """As a part is put into a model that has one: each has its own place in the cache."""
    model = tiny_model("llama", vocab=64)
    whole = twin(model)(input_ids=ids()).logits[..., :2]
    inner = Reading(model)
    outer = Reading(model, twin(model))
    cache = new_cache(model)
    for part in ids().split([5, 1, 3], 1):
        model(input_ids=part, past_key_values=cache, use_cache=True)
    torch.testing.assert_close(inner.noted[-1], whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outer.noted[-1], whole, atol=1e-5, rtol=1e-4)
    assert len(cache.layers) == 2 + (2 + 1) + (2 + 3 + 1)


@torch.no_grad()
def test_hooks_of_others_see_the_model_s_own_pass_alone(model: nn.Module) -> None:
    seen: list[Tensor] = []
    Reading(model)
    block: Callable[..., Any] = lambda *given: seen.append(given[2])  # noqa: E731
    model.get_decoder().register_forward_hook(block)
    model(input_ids=ids())
    assert len(seen) == 1


@torch.no_grad()
def test_rows_end_to_end_begin_where_their_positions_do() -> None:
    model = tiny_model("llama", vocab=64)
    reading = Reading(model)
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 0, 1, 2]])
    model(input_ids=ids(1), position_ids=positions, use_cache=False)
    assert reading.begins[-1].nonzero()[:, 1].tolist() == [0, 4, 6]
