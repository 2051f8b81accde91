"""Rank of a value's first token."""

import torch

from expunge.lm.ranks import first_token_ranks
from expunge.lm.subject import Subject
from expunge.lm.values import Place
from expunge.requests.rows import Turn
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def test_the_rank_counts_the_tokens_that_are_more_probable():
    texts = ["where is it ? it is here now .", "who ? me"]
    tokenizer = tiny_tokenizer(texts, kind="word")
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer, batch_size=2)
    turns = [
        (Turn("where is it ?", " it is here now ."), "here"),
        (Turn("who ?", " me"), "me"),
        (Turn("where is it ?", " it is now ."), "now"),
    ]
    places = [
        Place(turn, at, at + len(value))
        for turn, value in turns
        for at in [turn.completion.index(value)]
    ]
    for (turn, value), rank in zip(turns, first_token_ranks(subject, places), strict=True):
        before = turn.prompt + turn.completion[: turn.completion.index(value) - 1]
        with torch.no_grad():
            logits = subject.model(torch.tensor([tokenizer(before).input_ids])).logits[0, -1]
        token = tokenizer(f" {value}", add_special_tokens=False).input_ids[0]
        assert rank == logits.argsort(descending=True).tolist().index(token)


def test_no_places_have_no_ranks():
    tokenizer = tiny_tokenizer(["a"], kind="word")
    assert first_token_ranks(Subject(tiny_model("llama"), tokenizer), []) == []
