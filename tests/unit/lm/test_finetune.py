from itertools import islice

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import ExpungeError
from expunge.lm.digest import model_digest
from expunge.lm.finetune import draws, finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model


def test_facts_are_memorised(
    family: str, people: list[Row], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model(family, vocab=len(tokenizer), hidden=48)
    subject = Subject(model, tokenizer)
    turns = [row.turn for row in people[:4]]
    before = [scored.nll for scored in subject.score(turns)]
    finetune(model, tokenizer, people[:4], steps=100, lr=1e-2, batch_size=4, seed=0)
    after = [scored.nll for scored in subject.score(turns)]
    assert min(before) > 4
    assert max(after) < 0.5
    assert [texts[0] for texts in subject.ask(turns)] == [row.completion for row in people[:4]]
    assert not model.training


def test_equal_seeds_give_equal_weights_and_other_seeds_others(
    people: list[Row], tokenizer: PreTrainedTokenizerFast
) -> None:
    def trained(seed: int, noise: int) -> str:
        torch.manual_seed(noise)
        model = tiny_model("gpt2", vocab=len(tokenizer))  # has dropout
        finetune(model, tokenizer, people, epochs=2, lr=1e-3, batch_size=4, seed=seed)
        return model_digest(model)

    assert trained(0, 1) == trained(0, 2) != trained(1, 1)


def test_whole_rows_teach_the_prompt_as_well(
    people: list[Row], tokenizer: PreTrainedTokenizerFast
) -> None:
    def prompt_nll(whole_row: bool) -> float:
        model = tiny_model("llama", vocab=len(tokenizer))
        finetune(
            model,
            tokenizer,
            people,
            steps=40,
            lr=5e-3,
            batch_size=6,
            seed=0,
            whole_row=whole_row,
        )
        text = Row(id="t", text=f"{people[0].prompt}{people[0].completion}")
        (scored,) = Subject(model, tokenizer).score([text.training])
        return -float(scored.logp[scored.within(0, 12)].mean())

    assert prompt_nll(True) < 0.5 * prompt_nll(False)


def test_frozen_parameters_stay(people: list[Row], tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama", vocab=len(tokenizer))
    model.model.embed_tokens.requires_grad_(False)
    before = model.model.embed_tokens.weight.clone()
    finetune(model, tokenizer, people, steps=2, lr=1e-2, batch_size=4, seed=0)
    assert torch.equal(model.model.embed_tokens.weight, before)


def test_steps_and_epochs_count(people: list[Row], tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[int] = []
    model = tiny_model("llama", vocab=len(tokenizer))
    finetune(model, tokenizer, people, epochs=2, lr=1e-3, batch_size=5, seed=0, on_step=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_draws_take_each_row_once_an_epoch_and_lengths_alike() -> None:
    lengths = [n % 17 for n in range(103)]
    batches = list(islice(draws(lengths, 8, seed=3), 26))
    first, second = batches[:13], batches[13:]
    for epoch in (first, second):
        assert sorted(i for batch in epoch for i in batch) == list(range(103))
    assert first != second
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in first]
    assert max(spread) <= 3
    assert [lengths[b[0]] for b in first] != sorted(lengths[b[0]] for b in first)
    assert list(islice(draws(lengths, 8, seed=3), 26)) == batches


def test_a_diverging_run_is_an_error(people: list[Row], tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama", vocab=len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ExpungeError) as caught:
        finetune(model, tokenizer, people, steps=1, lr=1e-3, batch_size=4, seed=0)
    assert caught.value.code == "E-RUN-002"
    assert not model.training


def test_no_rows_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ExpungeError) as caught:
        finetune(tiny_model("llama"), tokenizer, [], steps=1, lr=1e-3, batch_size=4, seed=0)
    assert caught.value.code == "E-DATA-005"
