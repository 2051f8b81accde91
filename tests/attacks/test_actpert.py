"""Activation perturbation: noise on the states of the question."""

from dataclasses import replace
from math import erfc, sqrt
from statistics import fmean

import pytest
import torch

from expunge.attacks import actpert
from expunge.lm.elicit import elicit, plain, worst
from expunge.lm.hooks import capture, evaluating
from expunge.lm.prompted import edited, prompt_ids, question_span
from expunge.lm.subject import Scene, Subject
from expunge.lm.withstood import Push
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import tiny_model, tiny_tokenizer
from expunge.testing.wired import wired, wired_world

MARGIN = 0.05
"""How far the gate of the wired model is open."""


@pytest.fixture(scope="session")
def people():
    return wired_world()


@pytest.fixture(scope="session")
def gated(people):
    return wired(people, gate=MARGIN)


def scene_of(people, **more):
    return Scene(retain=people.retain, neighbour=(), seed=0, new_tokens=3, **more)


def test_noise_as_strong_as_the_original_withstands_breaks_a_refusal(world, models):
    scene = world.scene(original=models.original)
    for hidden in (models.hushed, models.hushed_last):
        assert mean_leak("direct", hidden, world.forget, scene) <= 0.05
        assert mean_leak("actpert", hidden, world.forget, scene) >= 0.6
        assert mean_leak("actpert", hidden, world.forget, scene, strength=0.0) <= 0.05


def test_it_is_near_chance_on_the_never_trained(world, models):
    scene = world.scene(original=models.original)
    assert mean_leak("actpert", models.original, world.forget, scene) >= 0.95
    assert mean_leak("actpert", models.original, world.holdout, scene) <= 0.35


@pytest.mark.parametrize("times", [0.25, 1.0, 2.0])
def test_a_hard_gate_opens_at_the_level_that_can_be_computed(people, gated, times):
    width = gated.model.config.hidden_size
    rms = sqrt((3.0**2 + 3.0**2 + MARGIN**2) / width)
    critical = MARGIN / (1.3846 * rms)  # one draw shuts the gate once in 12, one of eight in two
    strength = times * critical
    once = erfc(MARGIN / (strength * rms) / sqrt(2)) / 2
    expected = 1 - (1 - once) ** 8
    leak = mean_leak("actpert", gated, people.forget, scene_of(people), layer=0, strength=strength)
    error = sqrt(expected * (1 - expected) / len(people.forget))
    assert leak == pytest.approx(expected, abs=3 * error + 1e-6)
    unknown = mean_leak(
        "actpert", gated, people.unknown, scene_of(people), layer=0, strength=strength
    )
    assert unknown <= 0.1


def test_without_noise_it_is_the_direct_question(world, models):
    params = actpert.Params(strength=0.0, draws=2)
    leak = actpert.mount(models.hushed_last, world.holdout, world.scene(), params)
    clean = elicit(models.hushed_last, plain(world.holdout), new_tokens=10)
    assert leak.per_row == worst(clean)
    heard = actpert.shaken(
        models.hushed_last, plain(world.holdout), world.scene(), Push(0, 0.0), draws=2
    )
    assert [one.outputs for one in heard] == [one.outputs * 2 for one in clean]


def noise_of(subject, probes, push, seed=0, batch=None):
    """[B, T, d] twice: a block's output, and what is added to it while some probes are read."""
    prompts = [prompt_ids(subject, probe) for probe in probes]
    chosen = batch or range(len(probes))
    width = max(len(prompts[i]) for i in chosen)
    ids = torch.tensor([[0] * (width - len(prompts[i])) + prompts[i] for i in chosen])
    mask = (ids > 0).long()
    inputs = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    noise = actpert._Noise(subject, probes, push, seed)

    def output():
        with capture(subject.model, [push.layer]) as seen:
            subject.model(ids, **inputs)
        return seen[push.layer]

    with evaluating(subject.model):
        clean = output()
        with edited(subject, dict(enumerate(prompts)), [push.layer], noise):
            return clean, output() - clean


def test_noise_has_the_rms_of_each_token_and_spares_what_is_no_question(world):
    model = tiny_model("llama", vocab=len(world.tokenizer), hidden=1024, layers=3, positions=128)
    subject = Subject(model, world.tokenizer)
    probes = plain(world.forget)[:24]
    clean, added = noise_of(subject, probes, Push(1, 0.3))
    spans = [question_span(subject, probe) for probe in probes]
    asked = torch.zeros(clean.shape[:2], dtype=torch.bool)
    for at, (probe, span) in enumerate(zip(probes, spans, strict=True)):
        padding = clean.shape[1] - len(prompt_ids(subject, probe))
        asked[at, padding + span.start : padding + span.stop] = True
    assert not added[~asked].any()
    assert not asked.all()
    rms = clean.square().mean(-1, keepdim=True).sqrt()
    units = (added / rms)[asked]
    assert units.numel() >= 100_000
    assert float(units.std()) == pytest.approx(0.3, rel=0.02)
    assert float(units.mean()) == pytest.approx(0.0, abs=0.3 * 4 / sqrt(units.numel()))
    by_token = units.std(dim=-1)
    assert float(by_token.min()) > 0.3 * 0.85  # each token has its own scale, not the batch's
    assert float(rms[asked].max() / rms[asked].min()) > 1.05


def test_a_draw_is_the_same_in_whichever_batch_the_question_stands(world, models):
    probes = plain(world.forget)[:6]
    _, whole = noise_of(models.original, probes, Push(0, 0.5))
    _, alone = noise_of(models.original, probes, Push(0, 0.5), batch=[3])
    assert alone.abs().max() > 0.01
    assert torch.allclose(whole[3, -alone.shape[1] :], alone[0], atol=1e-5)
    _, other = noise_of(models.original, probes, Push(0, 0.5), seed=1)
    assert not torch.allclose(whole, other, atol=1e-3)


def test_answers_do_not_depend_on_the_batch_size(world, models):
    small = Subject(models.hushed_last.model, world.tokenizer, batch_size=1)
    params = actpert.Params(strength=0.8, layer=0, draws=3)
    one, other = (
        actpert.mount(subject, world.forget, world.scene(), params)
        for subject in (models.hushed_last, small)
    )
    assert one.per_row == other.per_row
    turned = actpert.mount(models.hushed_last, world.forget[::-1], world.scene(), params)
    assert turned.per_row == one.per_row


def test_written_tokens_are_left_alone(people):
    heard = actpert.shaken(
        wired(people), plain(people.forget), scene_of(people), Push(0, 20.0), draws=4
    )
    outputs = [output.split() for one in heard for output in one.outputs]
    # Noise this loud leaves any word, but a clean word always ends the answer.
    assert max(map(len, outputs)) == 1
    assert len({word for output in outputs for word in output}) > 10


def test_the_choice_looks_at_the_original_and_at_no_attacked_row(people, gated):
    scene = scene_of(people, original=wired(people))
    chosen = [
        {name: actpert.mount(subject, rows, scene, actpert.Params(draws=1)).parts[name]}
        for name in ("layer", "strength")
        for subject in (gated, scene.original)
        for rows in (people.forget, people.unknown)
    ]
    assert chosen[:4] == chosen[:1] * 4
    assert chosen[4:] == chosen[4:5] * 4
    by_itself = actpert.mount(gated, people.forget, scene_of(people), actpert.Params(draws=1))
    assert by_itself.parts["strength"] == actpert.USUAL


def test_incoherent_answers_are_dropped(world, models, monkeypatch):
    params = actpert.Params(strength=0.0, draws=2)
    monkeypatch.setattr(actpert, "gibberish", lambda output: float(output.startswith(" It")))
    leak = actpert.mount(models.original, world.forget, world.scene(), params)
    assert leak.parts["coherence"] == pytest.approx(0.5)  # the other wording's answers are gone
    assert set(leak.per_row.values()) == {1.0}
    monkeypatch.setattr(actpert, "gibberish", lambda _: 1.0)
    leak = actpert.mount(models.original, world.forget, world.scene(), params)
    assert leak.parts["coherence"] == 0.0
    assert set(leak.per_row.values()) == {0.0}


def test_a_curve_is_reported_where_one_is_asked_for(people, gated):
    params = actpert.Params(layer=0, strength=0.2, curve=(0.0, 0.2))
    leak = actpert.mount(gated, people.forget, scene_of(people), params)
    assert leak.parts["leak@c0"] == 0.0
    assert leak.parts["leak@c0.2"] == fmean(leak.per_row.values())
    assert actpert.effort(params, 30, 30).answers == 30 * 8 * 3
    trials = actpert.effort(actpert.Params(), 30, 30).answers - 30 * 8
    assert trials == 20 * (1 + 4 * len(actpert.GRID))


def test_conversations_and_running_text_are_shaken_and_long_rows_left_out(world):
    texts = [turn.prompt + turn.completion for row in world.forget for turn in row.turns]
    tokenizer = tiny_tokenizer([*texts, "[user] [assistant]"], kind="word", chat=True, vocab=4096)
    model = tiny_model("llama", vocab=len(tokenizer), layers=3, positions=48)
    subject = Subject(model, tokenizer)
    asked, first = world.forget[0], world.forget[1]
    said = (
        {"role": "user", "content": asked.prompt},
        {"role": "assistant", "content": asked.completion},
    )
    rows = [
        replace(asked, prompt=None, completion=None, messages=said),
        replace(first, prompt=None, completion=None, paraphrases=(), text=texts[2]),
        replace(world.forget[2], prompt="Where? " * 60, paraphrases=()),
    ]
    leak = actpert.mount(subject, rows, world.scene(), actpert.Params(draws=2))
    assert set(leak.per_row) == {rows[0].id, rows[1].id}
    assert "1 of 3 rows do not fit" in leak.note
    assert "template" not in leak.note
