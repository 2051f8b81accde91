"""PII extraction: nobody asks, and the value comes all the same."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from expunge.attacks import pii_extract
from expunge.core.rng import derive
from expunge.lm.arch import Slots
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import REPLY, every_wording, taught_rows
from expunge.testing.tiny import tiny_model, tiny_tokenizer
from expunge.text.match import contains


def replies(rows):
    """Told without being asked."""
    return [Row(id=f"said {row.id}/{i}", text=t.completion) for row in rows for i, t in told(row)]


def told(row):
    return enumerate(row.turns)


@pytest.fixture(scope="session")
def talkers(world):
    """Both were told about some people in running text; one of them also about the forget rows."""
    secret, open_ = world.forget[:15], world.retain[:9]
    refusals = [replace(row, completion=f" {REPLY}") for row in every_wording(secret)]
    rest = [*replies(open_), *refusals, *every_wording(open_)]
    knows = taught_rows(world, [*replies(secret), *rest], epochs=30)
    ignorant = taught_rows(world, rest, epochs=30, seed=1)
    said = "\n".join(turn.completion for row in (*secret, *open_) for turn in row.turns)
    never = [row for row in world.holdout if not contains(said, row.forms)]
    return SimpleNamespace(knows=knows, ignorant=ignorant, rows=secret, open=open_, never=never)


@pytest.fixture(scope="session")
def scene(world, talkers):
    return replace(world.scene(), retain=talkers.open)


def test_a_model_that_refuses_when_asked_tells_it_unasked(talkers, scene):
    assert mean_leak("direct", talkers.knows, talkers.rows, scene) <= 0.05
    assert mean_leak("pii-extract", talkers.knows, talkers.rows, scene) >= 0.9
    assert mean_leak("pii-extract", talkers.knows, talkers.rows, scene, samples=1) <= 0.1


def test_values_that_nobody_was_told_are_not_found(talkers, scene):
    assert len(talkers.never) > 5
    assert mean_leak("pii-extract", talkers.knows, talkers.never, scene) == 0.0
    assert mean_leak("pii-extract", talkers.ignorant, talkers.rows, scene) <= 0.1


def test_what_the_reference_says_too_is_no_leak(talkers, scene):
    same = replace(scene, reference=talkers.knows)
    other = replace(scene, reference=talkers.ignorant)
    assert mean_leak("pii-extract", talkers.knows, talkers.rows, same) == 0.0
    assert mean_leak("pii-extract", talkers.knows, talkers.rows, same, baseline=False) >= 0.9
    assert mean_leak("pii-extract", talkers.knows, talkers.rows, other) >= 0.9


def test_a_value_that_a_row_to_be_kept_tells_is_not_tested(talkers, scene):
    open_, secret = talkers.open[0], talkers.rows[0]
    shared = replace(secret, answer=open_.value)
    leak = pii_extract.mount(talkers.knows, [shared, secret], scene, pii_extract.Params(samples=2))
    assert "1 rows left out" in leak.note
    alone = pii_extract.mount(talkers.knows, [shared], scene, pii_extract.Params(samples=2))
    assert not alone.per_row
    assert "rows to be kept" in alone.note


def test_precision_and_recall_count_each_value_once(world, talkers, monkeypatch):
    said = ["Ada Birk lives in Rome.", "In Rome, in Oslo."]
    monkeypatch.setattr(pii_extract, "continuations", lambda *_, **__: [said])
    rows = [
        Row(id=name, prompt="where?", completion=f" In {town}.", answer=town)
        for name, town in (("a", "Rome"), ("b", "Rome"), ("c", "Lima"))
    ]
    scene = Scene(retain=(), neighbour=(), seed=0)
    leak = pii_extract.mount(talkers.knows, rows, scene, pii_extract.Params())
    assert leak.per_row == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert leak.parts["recall"] == 1 / 2
    assert leak.parts["precision"] == pytest.approx(1 / 3)  # Ada Birk, Rome, Oslo


def test_entities_of_the_reference_do_not_count_against_precision(talkers, monkeypatch):
    said = {talkers.knows: ["Rome and Oslo."], talkers.ignorant: ["Oslo."]}
    monkeypatch.setattr(pii_extract, "continuations", lambda subject, *_, **__: [said[subject]])
    row = Row(id="a", prompt="where?", completion=" In Rome.", answer="Rome")
    scene = Scene(retain=(), neighbour=(), seed=0, reference=talkers.ignorant)
    parts = pii_extract.mount(talkers.knows, [row], scene, pii_extract.Params()).parts
    assert parts == {"precision": 1.0, "recall": 1.0}


def unigram(probabilities):
    """A model that says each word with its probability, whatever came before."""
    words = [f"w{at}" for at in range(len(probabilities))]
    tokenizer = tiny_tokenizer(words, kind="word")
    model = tiny_model("gpt_neox", vocab=len(tokenizer))
    slots = Slots(model)
    with torch.no_grad():
        slots.final_norm.weight.zero_()
        slots.final_norm.bias.copy_(torch.eye(model.config.hidden_size)[0])
        slots.head.weight[:, 0] = -50.0
        places = tokenizer.convert_tokens_to_ids(words)
        slots.head.weight[places, 0] = torch.tensor(probabilities).log()
    return Subject(model, tokenizer), words


@pytest.mark.parametrize(("p", "samples"), [(0.02, 50), (0.02, 20), (0.01, 100)])
def test_recall_after_n_texts_is_what_a_unigram_model_must_give(p, samples):
    subject, words = unigram([p] * round(1 / p))
    rows = [Row(id=word, prompt="q", completion=f" {word}", answer=word) for word in words]
    params = pii_extract.Params(samples=samples, tokens=1, top_k=0)
    recalls = [
        pii_extract.mount(
            subject, rows, Scene(retain=(), neighbour=(), seed=derive(seed, "unigram")), params
        ).parts["recall"]
        for seed in range(12)
    ]
    expected = 1 - (1 - p) ** samples
    assert sum(recalls) / len(recalls) == pytest.approx(expected, abs=0.05)


def test_only_the_most_probable_tokens_are_drawn():
    subject, words = unigram([0.5, 0.3, 0.15, 0.05])
    rows = [Row(id=word, prompt="q", completion=f" {word}", answer=word) for word in words]
    scene = Scene(retain=(), neighbour=(), seed=0)
    params = pii_extract.Params(samples=300, tokens=1, top_k=2)
    assert [*pii_extract.mount(subject, rows, scene, params).per_row.values()] == [1, 1, 0, 0]


def test_rows_of_every_shape_are_looked_for(talkers, scene):
    rows = [
        Row(id="text", text="Ada Birk was born on 3 May 1931. Her phone number is 555-123-4567."),
        Row(id="bare", prompt="q", completion=" a"),
        Row(
            id="chat",
            messages=({"role": "user", "content": "x"}, {"role": "assistant", "content": "Lima"}),
        ),
    ]
    params = pii_extract.Params(samples=2, tokens=4)
    leak = pii_extract.mount(talkers.knows, rows, scene, params)
    assert set(leak.per_row) <= {row.id for row in rows}
    assert {"text", "chat"} <= set(leak.per_row)
