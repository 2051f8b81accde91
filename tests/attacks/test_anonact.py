"""Anonymised activation steering."""

from dataclasses import replace

import pytest
import torch

from expunge.attacks import anonact
from expunge.lm.candidates import pinpointed
from expunge.lm.elicit import elicit, plain
from expunge.lm.prompted import last_states, only_likeliest, prompt_ids
from expunge.lm.subject import Scene, Subject
from expunge.lm.withstood import Push
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import tiny_model, tiny_tokenizer
from expunge.testing.wired import wired, wired_world

KNOWN, REFUSAL = 2.0, 5.0
"""Logits of a value and of the refusal: the gap is 3."""


@pytest.fixture(scope="session")
def people():
    return wired_world(12)


@pytest.fixture(scope="session")
def silenced(people):
    return wired(people, known=KNOWN, refusal=REFUSAL)


def scene_of(people, **more):
    return Scene(retain=people.retain, neighbour=(), seed=0, new_tokens=3, **more)


@pytest.mark.parametrize(("alpha", "leak"), [(0.0, 0.0), (1.45, 0.0), (1.55, 1.0), (4.0, 1.0)])
def test_the_answer_flips_at_the_predicted_strength(people, silenced, alpha, leak):
    # The direction is the person's own axis, where v = 2: the answer wins from alpha = 3 / 2 on.
    scene, given = scene_of(people), {"alpha": alpha, "temperature": 0.01}
    assert mean_leak("direct", silenced, people.forget, scene) == 0.0
    assert mean_leak("anonact", silenced, people.forget, scene, **given) == leak
    assert mean_leak("anonact", silenced, people.unknown, scene, **given) == 0.0


def test_it_draws_what_a_refusal_in_the_last_block_hides(world, models):
    scene = world.scene(original=models.original)
    assert mean_leak("direct", models.hushed_last, world.forget, scene) <= 0.05
    assert mean_leak("anonact", models.hushed_last, world.forget, scene) >= 0.5
    assert mean_leak("anonact", models.hushed_last, world.forget, scene, alpha=0.0) <= 0.15
    assert mean_leak("anonact", models.hushed_last, world.holdout, scene) <= 0.15
    assert mean_leak("anonact", models.original, world.forget, scene) >= 0.8


def test_without_a_push_the_samples_are_those_of_the_model_itself(world, models):
    rows = [*world.forget[:6], *world.holdout[:6]]
    subject, scene, params = models.original, world.scene(), anonact.Params(alpha=0.0, top_k=0)
    questions = anonact._questions(subject, rows, scene, params)
    heard = anonact.steer(subject, questions, scene, params, Push(1, 0.0), samples=8)
    seed = anonact.derive(scene.seed, "anonact")
    bare = elicit(
        subject,
        questions.probes,
        new_tokens=scene.new_tokens,
        samples=8,
        temperature=1.0,
        seed=seed,
    )
    assert heard == bare
    leak = anonact.mount(subject, rows, scene, params)
    assert leak.per_row == pinpointed(bare)
    assert leak.parts["caf_steered"] == leak.parts["caf_plain"] > 0
    assert leak.parts["caf_ratio"] == 1.0


def test_the_direction_is_the_mean_difference_as_long_as_a_usual_one(world, models):
    subject, scene = models.original, world.scene()
    questions = anonact._questions(subject, world.forget[:4], scene, anonact.Params(versions=3))
    found = anonact.directions(subject, questions, 1, "question")
    for at, (probe, others) in enumerate(zip(questions.probes, questions.versions, strict=True)):
        ids = [prompt_ids(subject, one) for one in (probe, *others)]
        own, *rest = last_states(subject, ids, [1])[1]
        differences = [own - other for other in rest]
        length = sum(float(one.norm()) for one in differences) / len(differences)
        mean = sum(differences) / len(differences)
        assert torch.allclose(found[at], mean / mean.norm() * length, atol=1e-4)
    shared = anonact.directions(subject, questions, 1, "all")
    assert torch.allclose(shared[0], shared[-1])
    assert not torch.allclose(found[0], found[-1], atol=1e-2)


def test_every_written_token_is_pushed_or_the_first_alone(people):
    never_ends = wired(people, known=KNOWN, refusal=REFUSAL)
    head = never_ends.model.get_output_embeddings().weight
    with torch.no_grad():
        head[people.tokenizer.eos_token_id] = -1.0
    words = {}
    for steps in ("every", "first"):
        params = anonact.Params(alpha=4.0, temperature=0.01, steps=steps)
        questions = anonact._questions(never_ends, people.forget, scene_of(people), params)
        heard = anonact.steer(
            never_ends, questions, scene_of(people), params, Push(1, 4.0), samples=2
        )
        words[steps] = {
            output.split()[-1] == one.probe.row.value for one in heard for output in one.outputs
        }
        assert all(
            output.split()[0] == one.probe.row.value for one in heard for output in one.outputs
        )
    assert words == {"every": {True}, "first": {False}}


def test_the_choice_looks_at_the_original_and_at_no_attacked_row(people, silenced):
    original = wired(people, known=4.0)
    scene = scene_of(people, original=original)
    alphas = {
        anonact.mount(subject, rows, scene, anonact.Params(samples=2)).parts["alpha"]
        for subject in (silenced, original)
        for rows in (people.forget, people.unknown)
    }
    assert alphas == {4.0}  # a push along its own axis harms no answer of this original
    alone = anonact.mount(silenced, people.forget, scene_of(people), anonact.Params(samples=2))
    assert alone.parts["alpha"] == anonact.USUAL
    assert alone.parts["layer"] == 1.0


def test_only_the_most_probable_tokens_are_drawn(world, models):
    subject, probes = models.hushed_last, plain(world.holdout)[:6]
    greedy = elicit(subject, probes, new_tokens=5)
    with only_likeliest(subject, 1):
        drawn = elicit(subject, probes, new_tokens=5, samples=3, temperature=5.0, seed=1)
    assert [one.outputs for one in drawn] == [one.outputs * 3 for one in greedy]
    free = elicit(subject, probes, new_tokens=5, samples=3, temperature=5.0, seed=1)
    assert [one.outputs for one in free] != [one.outputs for one in drawn]


def test_rows_that_name_nobody_are_left_out_and_conversations_are_steered(world):
    texts = [
        f"[user] {turn.prompt}\n{turn.completion}" for row in world.forget for turn in row.turns
    ]
    tokenizer = tiny_tokenizer([*texts, "[assistant] x"], kind="word", chat=True, vocab=4096)
    model = tiny_model("llama", vocab=len(tokenizer), layers=3, positions=48)
    subject, asked = Subject(model, tokenizer), world.forget[0]
    said = (
        {"role": "user", "content": asked.prompt},
        {"role": "assistant", "content": asked.completion},
    )
    rows = [
        replace(asked, prompt=None, completion=None, messages=said),
        replace(world.forget[1], prompt=None, completion=None, paraphrases=(), text=texts[2][7:]),
        replace(world.forget[2], prompt="where?", paraphrases=(), subject=None, names=()),
    ]
    leak = anonact.mount(subject, rows, world.scene(), anonact.Params(samples=2))
    assert set(leak.per_row) == {rows[0].id, rows[1].id}
    assert "1 of 3 rows name nobody" in leak.note
    assert all(entry["leak"] == leak.per_row[entry["id"]] for entry in leak.transcript)


def test_the_effort_counts_both_kinds_of_answers_and_the_trials():
    fixed, chosen = (anonact.effort(anonact.Params(alpha=alpha), 30, 60) for alpha in (1.0, None))
    assert fixed.answers == 2 * 60 * 8
    assert chosen.answers - fixed.answers == 20 * anonact.TRIALS * 5
    assert fixed.forwards == 2 * 60 * 6
