"""Multiple choice read from a model: letters with and without a space, orders, likelihoods."""

import math

import pytest
import torch

from expunge.data.abilities import choice_row, likely_row
from expunge.lm.choices import letter_scores, likelihood_scores, read
from expunge.lm.subject import Subject
from expunge.testing.metrics import measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

OPTIONS = ["wax", "tin", "oat", "fog"]
QUESTIONS = [
    choice_row("Which burns?", OPTIONS, 0, "burns"),
    choice_row("Which one is a metal and not a cloud?", OPTIONS, 1, "metal"),
    choice_row("Which is eaten?", OPTIONS[:3], 2, "eaten"),
]
TEXTS = [f"{row.prompt}{row.completion} A B C D" for row in QUESTIONS]


def subject(kind="bpe", seed=0, chat=False, batch_size=32):
    tokenizer = tiny_tokenizer(TEXTS, kind=kind, chat=chat, vocab=320)
    model = tiny_model("llama", vocab=len(tokenizer), seed=seed)
    return Subject(model, tokenizer, batch_size=batch_size)


def silent(of):
    """A model to which everything is equally likely, whatever it reads."""
    with torch.no_grad():
        of.model.get_output_embeddings().weight.zero_()
    return of


def fond_of(of, text):
    """A model that always finds one token likeliest."""
    token = of.tokenizer(text, add_special_tokens=False)["input_ids"][-1]
    with torch.no_grad():
        for weight in of.model.parameters():
            weight.zero_()
        of.model.model.norm.weight.fill_(1.0)
        of.model.model.embed_tokens.weight.fill_(1.0)
        of.model.get_output_embeddings().weight[token] = 1.0
    return of


def accuracy(of, rows, **how):
    made = read(of, rows, **{"by": "letter", "rotate": True, **how})
    return measure("choice-accuracy", made)


@pytest.mark.parametrize("chat", [False, True])
def test_a_model_of_constant_logits_is_exactly_at_chance(chat):
    rows = QUESTIONS[:2]
    assert accuracy(silent(subject(chat=chat)), rows).mean == 0.25


@pytest.mark.parametrize("letter", [" A", "C", " D"])
def test_a_model_that_likes_one_letter_is_exactly_at_chance_over_the_orders(letter):
    of = fond_of(subject(kind="bpe"), letter)
    assert accuracy(of, QUESTIONS[:2]).mean == 0.25


def test_without_the_orders_a_liked_letter_is_worth_something():
    of = fond_of(subject(), " A")
    assert accuracy(of, QUESTIONS[:1], rotate=False).mean == 1


@pytest.mark.parametrize("form", [" {}", "{}"])
def test_letters_count_with_and_without_the_space(form):
    for index, letter in enumerate("ABCD"):
        of = fond_of(subject(), form.format(letter))
        (scores,) = letter_scores(of, QUESTIONS[:1], rotate=False)["burns"]
        assert max(range(4), key=scores.__getitem__) == index


def test_scores_stand_option_by_option_in_every_order():
    of = fond_of(subject(), " B")
    orders = letter_scores(of, QUESTIONS[:1], rotate=True)["burns"]
    assert [max(range(4), key=order.__getitem__) for order in orders] == [1, 2, 3, 0]


def test_scores_do_not_depend_on_the_batch():
    one, many = (letter_scores(subject(batch_size=b), QUESTIONS, rotate=True) for b in (1, 32))
    for name, orders in one.items():
        for order, same in zip(orders, many[name], strict=True):
            assert order == pytest.approx(same, abs=1e-5)


def test_letters_are_read_where_the_model_would_write_them():
    of = subject()
    row = QUESTIONS[0]
    ids = of.encoder.prompt(row.prompt, opening="Answer:")
    with torch.no_grad():
        logp = of.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
    (scores,) = letter_scores(of, [row], rotate=False)[row.id]
    for letter, score in zip("ABCD", scores, strict=True):
        forms = {
            tuple(of.encoder.prompt(row.prompt, opening=f"Answer:{space}{letter}")[len(ids) :])
            for space in ("", " ")
        }
        first = {form[0] for form in forms if len(form) == 1}
        assert score == pytest.approx(float(logp[list(first)].logsumexp(0)), abs=1e-6)


def test_a_tokenizer_without_the_letters_makes_it_unmeasurable():
    tokenizer = tiny_tokenizer(["Which burns ? . wax tin oat fog Answer :"], kind="word")
    of = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    value = accuracy(of, QUESTIONS[:1])
    assert value.mean is None
    assert "not measurable" in value.note


def test_likelihood_is_that_of_the_options_words():
    of = subject()
    row = likely_row("Which burns?", OPTIONS, [0], "burns")
    (sums,) = likelihood_scores(of, [row], per_token=False)["burns"]
    (means,) = likelihood_scores(of, [row], per_token=True)["burns"]
    for option, total, mean in zip(OPTIONS, sums, means, strict=True):
        ids = of.encoder.prompt(row.prompt, opening=f" {option}")
        start = len(of.encoder.prompt(row.prompt))
        with torch.no_grad():
            logp = of.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        want = math.fsum(float(logp[t - 1, ids[t]]) for t in range(start, len(ids)))
        assert total == pytest.approx(want, abs=1e-5)
        assert mean == pytest.approx(want / (len(ids) - start), abs=1e-5)


def test_rows_without_options_are_left_out():
    bare = likely_row("Which burns?", OPTIONS, [0], "bare")
    bare = type(bare)(id="bare", prompt="a", completion=" b")
    made = read(subject(), [QUESTIONS[0], bare], by="letter", rotate=False)
    assert set(made["choice_scores"]) == {"burns"} == set(made["choice_correct"])
