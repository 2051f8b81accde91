"""What a row's prompt is, in every way a model is asked, and that a decision is kept."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.engine.decisions import Decided, decided
from expunge.lm.prefixes import can_share, new_cache
from expunge.testing import tiny_model

IDS = torch.tensor([[1, 5, 6, 7, 8], [1, 9, 4, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return tiny_model("llama", vocab=16, hidden=16)


class Seen:
    """Remembers the prompts it is asked about; decides by their length."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []

    def __call__(self, prompts: list[list[int]]) -> Tensor:
        self.prompts += prompts
        return torch.tensor([float(len(prompt)) for prompt in prompts])


def asked(model: PreTrainedModel, keep: object = None, **given: Tensor) -> tuple[Tensor, Seen]:
    seen = Seen()
    return decided(model, "test", given, keep, seen), seen


def test_all_that_is_real_is_the_prompt_where_nothing_else_is_told(model) -> None:
    told, seen = asked(model, input_ids=IDS, attention_mask=MASK)
    assert seen.prompts == [[1, 5, 6, 7, 8], [1, 9, 4]]
    assert told.shape == (2, 1, 1)
    assert told[:, 0, 0].tolist() == [5, 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_prompt_ends_where_predicting_begins(model, side: str) -> None:
    """A right-padded row comes without its attention mask."""
    keep = torch.zeros(2, 5, dtype=torch.bool)
    keep[0, 2:4] = keep[1, 1] = True
    given = {"input_ids": IDS}
    if side == "left":
        given = {"input_ids": IDS.roll(2, 1), "attention_mask": MASK.roll(2, 1)}
        given["input_ids"][0], given["attention_mask"][0] = IDS[0], MASK[0]
        keep[1] = keep[1].roll(2)
    _, seen = asked(model, keep, **given)
    assert seen.prompts == [[1, 5, 6], [1, 9]]


def test_a_row_that_is_all_predicted_is_judged_as_a_whole(model) -> None:
    keep = MASK.bool() & (torch.arange(5) < MASK.sum(1, keepdim=True) - 1)
    _, seen = asked(model, keep, input_ids=IDS)
    assert seen.prompts == [[1, 5, 6, 7], [1, 9]]


def test_a_number_of_last_positions_is_wanted(model) -> None:
    for keep, prompt in ((0, [1, 5, 6, 7, 8]), (1, [1, 5, 6, 7, 8]), (3, [1, 5, 6])):
        _, seen = asked(model, keep, input_ids=IDS[:1])
        assert seen.prompts == [prompt]


def test_rows_end_to_end_are_told_apart(model) -> None:
    line = torch.tensor([[1, 5, 6, 7, 1, 9, 4]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    keep = torch.tensor([[False, True, True, False, False, True, False]])
    told, seen = asked(model, keep, input_ids=line, position_ids=positions)
    assert seen.prompts == [[1, 5], [1, 9]]
    assert told.shape == (1, 7, 1)
    told, seen = asked(model, input_ids=line, position_ids=positions)
    assert told[0, :, 0].tolist() == [4, 4, 4, 4, 3, 3, 3]


def test_left_padding_is_no_row_of_its_own(model) -> None:
    """Padding has position 0 as well."""
    ids, mask = torch.tensor([[0, 0, 1, 9]]), torch.tensor([[0, 0, 1, 1]])
    positions = torch.tensor([[0, 0, 0, 1]])
    told, seen = asked(model, input_ids=ids, attention_mask=mask, position_ids=positions)
    assert seen.prompts == [[1, 9]]
    assert told.shape == (1, 1, 1)


def test_embeddings_are_read_as_the_nearest_tokens(model) -> None:
    embedded = model.get_input_embeddings()(IDS) + 1e-3
    _, seen = asked(model, inputs_embeds=embedded, attention_mask=MASK)
    assert seen.prompts == [[1, 5, 6, 7, 8], [1, 9, 4]]


def test_a_decision_is_kept_while_rows_are_picked_and_cut(model) -> None:
    cache = new_cache(model)
    asked(model, input_ids=IDS, attention_mask=MASK, past_key_values=cache)
    *_, layer = cache.layers
    assert isinstance(layer, Decided)
    assert len(cache.layers) == 3
    cache.batch_select_indices(torch.tensor([1, 1, 0]))
    layer.crop(-2)
    again, none = asked(model, input_ids=torch.tensor([[3]] * 3), past_key_values=cache)
    assert not none.prompts
    assert again[:, 0, 0].tolist() == [3, 3, 5]
    other = Seen()
    decided(model, "other", {"input_ids": IDS[[0, 0, 0]], "past_key_values": cache}, None, other)
    assert len(other.prompts) == 3, "what somebody else decided is no decision"


def test_rows_cannot_go_on_from_what_others_left() -> None:
    model = tiny_model("llama", vocab=16, hidden=16, seed=3)

    def hook(decoder, given, named):
        decided(model, "test", named, None, Seen())

    model.get_decoder().register_forward_pre_hook(hook, with_kwargs=True)
    assert not can_share(model)
    assert can_share(tiny_model("llama", vocab=16, hidden=16, seed=3))
