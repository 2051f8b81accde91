"""Restoration by a sparse autoencoder: its two ends, its controls, and models of known state."""

from dataclasses import replace
from statistics import fmean

import pytest
import torch

from expunge.attacks import sae as attack
from expunge.lm.arch import Slots
from expunge.lm.elicit import ask_plainly, plain, worst
from expunge.lm.sae import Autoencoder
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import taught
from expunge.testing.tiny import tiny_model, tiny_tokenizer

QUICK = {"steps": 300}


@pytest.fixture(scope="module")
def scene(world, models):
    return world.scene(original=models.original)


@pytest.fixture
def perfect(monkeypatch, models):
    """An autoencoder that loses nothing: a feature for each direction and one for its opposite."""

    def make(experts, others=()):
        width = Slots(models.original.model).embed.weight.shape[1]
        both = torch.cat([torch.eye(width), -torch.eye(width)])
        coder = Autoencoder(both, torch.zeros(2 * width), both, torch.zeros(width), 2 * width)
        topic = attack._Topic(
            1,
            coder,
            torch.zeros(2 * width),
            torch.tensor(experts),
            torch.tensor(others, dtype=torch.long),
            0.0,
        )
        monkeypatch.setattr(attack, "_topic", lambda *_: topic)

    return make


def found(subject, rows, scene, **params):
    return attack.mount(subject, rows, scene, attack.Params(**params))


def test_a_refusal_gives_way_when_the_features_of_the_topic_are_turned_back(world, models, scene):
    assert mean_leak("direct", models.hushed, world.forget, scene) <= 0.05
    result = found(models.hushed, world.forget, scene, **QUICK)
    leak = fmean(result.per_row.values())
    assert leak >= 0.5
    assert result.parts["leak_random"] <= leak - 0.3
    assert result.parts["leak_reconstruction"] <= 0.1
    assert result.parts["reconstruction_error"] <= 0.1
    off = found(models.hushed, world.forget, scene, alpha=0.0, **QUICK)
    assert fmean(off.per_row.values()) == result.parts["leak_reconstruction"]
    assert off.parts == result.parts | {"leak_random": result.parts["leak_reconstruction"]}


def test_a_model_that_never_saw_the_rows_has_nothing_to_turn_back(world, models, scene):
    retrained = taught(world, world.retain, epochs=15)
    assert mean_leak("sae", retrained, world.forget, scene, **QUICK) <= 0.2
    assert mean_leak("sae", models.hushed, world.holdout, scene, **QUICK) <= 0.1


def test_all_features_of_a_perfect_autoencoder_transplant_the_original(
    world, models, scene, perfect
):
    perfect(list(range(128)))
    own = worst(ask_plainly(models.hushed, world.forget, new_tokens=scene.new_tokens))
    whole = found(models.hushed_last, world.forget, scene)
    result = found(models.hushed, world.forget, scene)
    assert result.parts["leak_reconstruction"] == fmean(own.values())
    assert fmean(result.per_row.values()) >= 0.9
    # what is suppressed above the block stays suppressed
    assert fmean(whole.per_row.values()) <= 0.05


def test_states_are_mixed_on_the_chosen_features_alone_and_never_at_the_first_token(perfect):
    perfect([0, 2])
    topic = attack._topic()
    own, other = torch.arange(64.0) + 1, torch.arange(64.0) + 101
    fn = attack._restoring(topic, topic.experts, 0.5, "original")
    first = torch.tensor([[True, False]])
    mixed = fn(own.expand(1, 2, 64), other.expand(1, 2, 64), first)
    assert torch.equal(mixed[0, 0], own)
    assert mixed[0, 1, :4].tolist() == [51.0, 2.0, 53.0, 4.0]
    every = attack._restoring(topic, torch.arange(128), 1.0, "original")
    restored = every(own.expand(1, 2, 64), other.expand(1, 2, 64), first)
    assert torch.allclose(restored[0, 1], other)
    nothing = attack._restoring(topic, topic.experts, 0.0, "original")
    assert torch.equal(nothing(own.expand(1, 2, 64), other.expand(1, 2, 64), first)[0, 1], own)


def test_without_the_original_the_mean_of_a_feature_is_added(perfect):
    perfect([1, 3])
    topic = replace(attack._topic(), mean=torch.arange(128.0))
    own = torch.ones(1, 1, 64)
    fn = attack._restoring(topic, topic.experts, 2.0, "mean")
    changed = fn(own, torch.full_like(own, 99.0), torch.tensor([[False]]))
    assert changed[0, 0, :4].tolist() == [1.0, 3.0, 1.0, 7.0]


def test_experts_fire_for_the_topic_and_the_others_are_other_features(world, models, scene):
    probes = plain(world.forget)
    topic = attack._topic(models.original, probes, scene, attack.Params(experts=20, **QUICK))
    assert len(topic.experts) == len(topic.others) == 20
    assert not set(topic.experts.tolist()) & set(topic.others.tolist())
    assert topic.layer == 1
    assert len(topic.mean) == 256
    kept = attack._states(models.original, [row.training for row in world.retain], 1)
    lead = topic.mean - attack._mean_code(topic.coder, kept)
    assert lead[topic.experts].min() >= lead.sort(descending=True).values[19]
    assert lead[topic.experts].mean() > 5 * lead[topic.others].mean()


def test_the_autoencoder_is_trained_once_for_all_models_of_an_audit(
    world, models, scene, monkeypatch
):
    trained = []
    train = attack.sae.train
    monkeypatch.setattr(attack.sae, "train", lambda *a, **k: trained.append(1) or train(*a, **k))
    settings = {"steps": 3, "lr": 2e-3}
    for subject in (models.original, models.hushed):
        found(subject, world.forget, scene, **settings)
    found(models.hushed, world.forget, scene, alpha=0.5, source="mean", **settings)
    assert len(trained) == 1
    found(models.hushed, world.forget[:5], scene, **settings)
    found(models.hushed, world.forget, replace(scene, seed=1), **settings)
    assert len(trained) == 3


def test_the_answers_of_the_rows_are_not_read(world, models, scene):
    lies = [
        replace(row, completion=" No.", answer="No", paraphrases=()) for row in world.forget[:3]
    ]
    params = attack.Params(steps=2)
    said = []
    for rows in (lies, [replace(row, paraphrases=()) for row in world.forget[:3]]):
        topic = attack._find_topic(models.original, plain(rows), scene, params)
        said.append(topic.mean)
    assert torch.equal(*said)


def test_without_an_original_or_rows_it_can_read_nothing_is_tested(world, models, scene):
    result = found(models.hushed, world.forget, world.scene(), **QUICK)
    assert (dict(result.per_row), result.note) == ({}, "no original to compare with")
    long = replace(world.forget[0], id="long", completion=world.forget[0].completion * 40)
    text = Row.parse({"id": "text", "text": "Where was he born? He was born."})
    result = found(models.hushed, [long, text, world.forget[1]], scene, steps=2)
    assert list(result.per_row) == ["text", world.forget[1].id]
    assert "1 of 3 rows" in result.note


def test_an_original_of_another_shape_is_of_no_use(world, models):
    other = Subject(tiny_model("llama", positions=128), tiny_tokenizer(["Where?"]))
    result = found(models.hushed, world.forget, world.scene(original=other), **QUICK)
    assert "do not fit" in result.note


def test_no_retain_rows_leave_the_topic_to_itself(world, models, scene):
    result = found(models.hushed, world.forget[:4], replace(scene, retain=()), steps=20)
    assert len(result.per_row) == 4
