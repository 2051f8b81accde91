"""Embedding attack."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
import torch

from expunge.attacks import embed
from expunge.core.errors import ExpungeError
from expunge.lm.adversary import no_vectors, seam_of, write
from expunge.lm.arch import Slots
from expunge.lm.elicit import plain
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.testing.locked import locked
from expunge.testing.tiny import tiny_model, tiny_tokenizer


def mount(world, **more):
    params = embed.Params(**{"length": 4, **more})
    return embed.mount(locked().subject, locked().secret, world.scene(), params)


def test_signed_steps_on_some_questions_open_others(world):
    subject, secret = locked().subject, locked().secret
    scene = world.scene()
    assert mean_leak("direct", subject, secret, scene) <= 0.05
    assert mean_leak("embed", subject, secret, scene, length=4) >= 0.5
    assert mean_leak("embed", subject, secret, scene, length=4, steps=0) <= 0.05


def test_facts_that_were_never_taught_do_not_come_out(world):
    subject, unknown = locked().subject, locked().unknown
    found = [mean_leak("embed", subject, unknown, world.scene(seed), length=4) for seed in range(3)]
    assert fmean(found) <= 0.15


def test_it_looks_at_the_beginning_every_few_steps_and_at_the_end(world):
    leak = mount(world, steps=5, every=2)
    assert sorted(leak.curve) == [0, 2, 4, 5]
    assert leak.curve[0] == 0.0
    assert leak.parts["attacked"] >= max(leak.curve.values())
    assert leak.parts["loss_last"] < leak.parts["loss_first"]


@pytest.mark.parametrize(("step", "size"), [(0.001, 0.001), (0.3, 0.3), ("auto", None)])
def test_every_coordinate_moves_by_the_same_step(world, step, size):
    subject = locked().subject
    seams = [seam_of(subject, probe) for probe in plain(locked().secret[:2])]
    seams = [replace(seam, target=(5, 6)) for seam in seams]
    states = [v for _, v, _ in embed._steps(subject, seams, embed.Params(steps=2, step=step))]
    table = subject.model.get_input_embeddings().weight
    expected = size or 0.001 / 0.0166 * float(table.detach().std())
    for before, after in pairwise(states):
        assert (after - before).abs().flatten().tolist() == pytest.approx(
            [expected] * before.numel(), rel=1e-2
        )


def test_the_vectors_begin_as_exclamation_marks_where_there_are_any(world):
    tokenizer = tiny_tokenizer(["a ! b !"], kind="word")
    model = tiny_model("llama", vocab=len(tokenizer))
    vectors = embed._beginning(Subject(model, tokenizer), 3)
    mark = tokenizer(" !", add_special_tokens=False)["input_ids"][0]
    assert torch.equal(vectors, model.get_input_embeddings().weight[mark].expand(3, -1))
    without = embed._beginning(locked().subject, 2)
    mean = locked().subject.model.get_input_embeddings().weight.mean(0)
    assert torch.allclose(without, mean.expand(2, -1), atol=1e-6)


def test_the_lens_finds_what_only_the_middle_says(world, models):
    """The last block of this model says another value."""
    given = {"length": 1, "steps": 0}
    scene = world.scene()
    assert mean_leak("embed", models.misled, world.forget, scene, **given) <= 0.05
    assert mean_leak("embed", models.misled, world.forget, scene, **given, lens=True) >= 0.5
    assert mean_leak("embed", models.misled, world.holdout, scene, **given, lens=True) <= 0.1


def test_a_last_block_that_does_nothing_says_what_the_middle_says(world):
    subject = Subject(locked().subject.copy().model, world.tokenizer)
    for slot in ("mlp_out", "attention_out"):
        Slots(subject.model).module(-1, slot).weight.data.zero_()
    seam, nothing = seam_of(subject, plain(locked().kept)[0]), no_vectors(subject.model)
    (ids,) = write(subject, [seam], nothing, new_tokens=8)
    told = replace(seam, target=tuple(ids))
    assert list(embed._texts(subject, told, nothing)) == [subject.encoder.decode(ids)]


def test_an_answer_as_target_is_refused(world):
    with pytest.raises(ExpungeError, match="holds the answer") as caught:
        mount(world, openings=f"Sure, it is {locked().secret[-1].value}.")
    assert caught.value.code == "E-USE-003"
