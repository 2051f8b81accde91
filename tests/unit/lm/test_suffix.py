"""Searching for a suffix."""

from itertools import product

import pytest
import torch

from expunge.lm.adversary import seam_of, target_nll
from expunge.lm.elicit import Probe
from expunge.lm.hooks import evaluating
from expunge.lm.openings import Campaign
from expunge.lm.subject import Subject
from expunge.lm.suffix import Budget, Spelling, questions, search
from expunge.requests.rows import Row
from expunge.testing.tiny import tiny_model, tiny_tokenizer

WORDS = " ".join(a + b for a, b in product("bdfgklmn", "aeiouy"))


@pytest.fixture(scope="module")
def toy():
    """Two layers, fifty tokens: a suffix of one token can be found by trying all."""
    tokenizer = tiny_tokenizer([f"say {WORDS} ?"], kind="word", vocab=50)
    model = tiny_model("llama", vocab=50, layers=2, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.ndim > 1 else 1)
    return Subject(model, tokenizer)


@pytest.fixture(scope="module")
def loss(toy):
    row = Row.parse({"prompt": "say da?", "completion": " be bi"})
    seam = seam_of(toy, Probe(row, row.turn, " be bi", ""))
    assert len(seam.target) == 2

    def of(suffixes):
        nll = target_nll(toy.model, [seam] * len(suffixes), suffixes)
        return torch.stack([own.mean() for own in nll])

    return of


def budget(**more):
    given = {"steps": 6, "width": 16, "topk": 8, "swaps": 1, "exhaustive": False, "chunk": 5}
    return Budget(**{**given, **more})


def spelled(toy):
    return Spelling(toy, ["say da?", "Bu"])


def test_the_exhaustive_search_of_one_token_is_brute_force(toy, loss):
    spelling = spelled(toy)
    embed = toy.model.get_input_embeddings()
    with evaluating(toy.model):
        by_token = {
            ids[0]: float(loss(embed(torch.tensor([ids]))))
            for ids in spelling.sendable([[token] for token in spelling.tokens])
        }
    assert len(by_token) >= 40
    ended = search(
        toy,
        loss,
        spelling.blank(1),
        spelling=spelling,
        budget=budget(steps=1, exhaustive=True),
        seed=0,
    )
    assert ended.ids == [min(by_token, key=by_token.__getitem__)]
    assert ended.curve[-1] == pytest.approx(min(by_token.values()), abs=1e-5)


@pytest.mark.parametrize("swaps", [1, 3])
def test_the_best_loss_never_rises_and_is_that_of_the_suffix(toy, loss, swaps):
    spelling = spelled(toy)
    ended = search(
        toy, loss, spelling.blank(4), spelling=spelling, budget=budget(swaps=swaps), seed=1
    )
    assert len(ended.curve) == 7
    assert ended.curve == sorted(ended.curve, reverse=True)
    assert ended.curve[-1] < ended.curve[0]
    embed = toy.model.get_input_embeddings()
    with evaluating(toy.model):
        assert float(loss(embed(torch.tensor([ended.ids])))) == pytest.approx(
            ended.curve[-1], abs=1e-5
        )


def test_a_search_of_no_steps_is_its_start_and_a_seed_decides_the_rest(toy, loss):
    spelling = spelled(toy)
    start = spelling.blank(3)

    def run(seed, **more):
        return search(toy, loss, start, spelling=spelling, budget=budget(**more), seed=seed)

    assert run(0, steps=0).ids == start
    assert run(0) == run(0)
    tried = {tuple(run(seed, steps=1, width=1).ids) for seed in range(8)}
    assert len(tried) > 1


def test_the_gradient_proposes_the_tokens_that_lower_the_loss(toy, loss):
    """A linear loss: its slope at a token is exact, so the first proposal is the best swap."""
    spelling = spelled(toy)
    table = toy.model.get_input_embeddings().weight.detach()
    wish = torch.randn(32, generator=torch.Generator().manual_seed(0))
    best = min(spelling.tokens, key=lambda token: float(table[token] @ wish))
    ended = search(
        toy,
        lambda suffixes: (suffixes @ wish).sum(1),
        spelling.blank(3),
        spelling=spelling,
        budget=budget(steps=12, topk=1, width=8),
        seed=0,
    )
    assert ended.ids == [best] * 3


def test_a_suffix_changes_in_at_most_so_many_places_a_step(toy):
    spelling = spelled(toy)
    start, seen = spelling.blank(6), []
    width = 12
    table = toy.model.get_input_embeddings().weight.detach()

    def watched(suffixes):
        seen.extend((suffixes[:, :, None] - table).abs().sum(-1).argmin(-1).tolist())
        return suffixes.sum((1, 2))

    search(
        toy,
        watched,
        start,
        spelling=spelling,
        budget=budget(steps=1, swaps=3, topk=40, width=width),
        seed=0,
    )
    changes = [sum(a != b for a, b in zip(ids, start, strict=True)) for ids in seen]
    assert max(changes) > 1
    assert all(count <= 3 for count in changes)


def test_only_suffixes_that_are_read_as_they_were_meant_are_sent():
    texts = ["ask the barn or the bar", "bar barn n the"]
    tokenizer = tiny_tokenizer(texts, kind="bpe", vocab=320)
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    spelling = Spelling(subject, ["ask?", "the bar"])
    whole = tokenizer(" the bar", add_special_tokens=False)["input_ids"]
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in " the"]
    assert spelling.sendable([whole, letters]) == [whole]
    assert spelling.text(whole) == " the bar"
    for token in spelling.tokens:
        text = tokenizer.decode([token])
        assert text.isascii()
        assert text.isprintable()
    assert not set(spelling.tokens) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize(("texts", "blank"), [(["a x x?"], " x x x"), (["bo bo?"], None)])
def test_a_search_begins_with_x_where_x_is_a_word(texts, blank):
    tokenizer = tiny_tokenizer(texts, kind="word")
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    spelling = Spelling(subject, ["a?"])
    text = spelling.text(spelling.blank(3))
    assert text == (blank or text)
    assert len(set(spelling.blank(3))) == 1


def test_some_questions_are_drawn_by_the_seed_each_with_its_first_opening():
    rows = [Row.parse({"id": f"r{i}", "prompt": f"q{i}", "completion": " a"}) for i in range(9)]
    pairs = tuple(
        (Probe(row, row.turn, " yes", ""), Probe(row, row.turn, " no", "")) for row in rows
    )
    campaign = Campaign(pairs, (), "")
    drawn = questions(campaign, 4, 0)
    assert len({probe.row.id for probe in drawn}) == 4
    assert {probe.opening for probe in drawn} == {" yes"}
    assert drawn == questions(campaign, 4, 0)
    assert len(questions(campaign, 99, 0)) == 9
