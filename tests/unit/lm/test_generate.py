"""Greedy answers do not depend on who else is written, nor on how the batches are cut."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.lm import generate as room
from expunge.lm.generate import generate
from expunge.lm.work import Tally
from expunge.testing.tiny import tiny_tokenizer

Make = Callable[..., PreTrainedModel]
NEW = 24


@pytest.fixture
def prompts() -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [[1, *map(int, draw.integers(4, 64, n))] for n in draw.integers(1, 30, 40)]


@pytest.fixture
def ending(loud: Make) -> PreTrainedModel:
    """Ends about one token in ten: a tenth of the ids stop it."""
    model = loud("llama", vocab=64, dtype=torch.float64)
    model.generation_config.eos_token_id = [2, 7, 19, 23, 42, 55, 61]
    return model


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(["a b c"], kind="word")


def alone(model: PreTrainedModel, ids: list[int]) -> list[int]:
    stops, written = {2, *model.generation_config.eos_token_id}, []
    with torch.no_grad():
        while len(written) < NEW:
            token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token in stops:
                break
            written.append(token)
    return written


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_rows_that_end_leave_and_the_last_ones_go_on_together(
    batch_size: int,
    ending: PreTrainedModel,
    words: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "ROW", 100)
    expected = [alone(ending, ids) for ids in prompts]
    lengths = [len(ids) for ids in expected]
    assert min(lengths) < 3
    assert max(lengths) == NEW  # some end early, some not at all
    found = generate(ending, words, prompts, new_tokens=NEW, batch_size=batch_size)
    assert [rows[0] for rows in found] == expected


def test_rows_that_have_ended_are_not_run(
    ending: PreTrainedModel, words: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> None:
    tally = Tally()
    with tally.watching(ending):
        generate(ending, words, prompts, new_tokens=NEW)
    assert tally.work.passes == NEW + 1  # the first time a model is met it is looked at
    assert tally.work.rows < 0.7 * NEW * len(prompts)


def test_models_whose_rows_cannot_leave_write_the_same(
    ending: PreTrainedModel,
    words: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = [alone(ending, ids)[: i % 4] for i, ids in enumerate(prompts)]
    usual = generate(ending, words, prompts, new_tokens=NEW, begun=begun)
    monkeypatch.setattr(room, "can_share", lambda model: False)
    assert generate(ending, words, prompts, new_tokens=NEW, begun=begun) == usual
    assert [rows[0] for rows in usual] == [alone(ending, ids) for ids in prompts]


def test_a_known_beginning_is_part_of_the_answer_and_of_its_length(
    ending: PreTrainedModel, words: PreTrainedTokenizerFast
) -> None:
    prompt, begun = [1, 30, 31], [33, 34, 35]
    ((answer,),) = generate(ending, words, [prompt], new_tokens=3, begun=[begun])
    assert answer == begun
    ((answer,),) = generate(ending, words, [prompt], new_tokens=NEW, begun=[begun])
    assert answer == [*begun, *alone(ending, prompt + begun)][:NEW]


def test_a_known_beginning_takes_no_room_that_is_not_there(
    loud: Make, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loud("gpt2", vocab=64, positions=16, dtype=torch.float64)
    prompt = [1, 30, 31, 32]
    ((whole,),) = generate(model, words, [prompt], new_tokens=12)
    for can in (True, False):
        monkeypatch.setattr(room, "can_share", lambda model, can=can: can)
        assert generate(model, words, [prompt], new_tokens=12, begun=[whole[:7]]) == [[whole]]


def test_no_prompt_no_answer(ending: PreTrainedModel, words: PreTrainedTokenizerFast) -> None:
    assert generate(ending, words, [], new_tokens=4) == []
