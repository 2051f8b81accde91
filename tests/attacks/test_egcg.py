"""Enhanced GCG."""

from math import log

import pytest
import torch

from expunge.attacks import egcg
from expunge.core.errors import ExpungeError
from expunge.lm.adversary import no_vectors, seam_of, target_nll
from expunge.lm.elicit import plain
from expunge.lm.hooks import evaluating, forward_to
from expunge.lm.subject import Subject
from expunge.testing.attacks import mean_leak
from expunge.testing.locked import locked
from expunge.testing.tiny import tiny_model

SMALL = {"length": 2, "steps": 12, "width": 64}


@pytest.fixture(scope="module")
def seams():
    probes = plain(locked().secret[:3])
    return [
        seam_of(locked().subject, probe.__class__(probe.row, probe.turn, " It is", ""))
        for probe in probes
    ]


def test_a_suffix_found_on_some_questions_opens_others(world):
    subject, secret = locked().subject, locked().secret
    scene = world.scene()
    assert mean_leak("direct", subject, secret, scene) <= 0.05
    assert mean_leak("egcg", subject, secret, scene, **SMALL) >= 0.5
    assert mean_leak("egcg", subject, secret, scene, **{**SMALL, "steps": 0}) <= 0.05


def test_facts_that_were_never_taught_do_not_come_out(world):
    assert mean_leak("egcg", locked().subject, locked().unknown, world.scene(), **SMALL) <= 0.1


def test_it_finds_the_same_lock_with_the_original_at_hand(world):
    original = tiny_model("llama", vocab=len(world.tokenizer), hidden=64, layers=3, positions=128)
    scene = world.scene(original=Subject(original, world.tokenizer))
    params = egcg.Params(**SMALL, match=0.01)
    leak = egcg.mount(locked().subject, locked().secret, scene, params)
    assert leak.parts["attacked"] >= 0.5
    assert "no states" not in leak.note


def test_without_an_original_that_fits_the_term_is_left_out_and_that_is_said(world):
    params = egcg.Params(**{**SMALL, "steps": 1})
    wide = Subject(tiny_model("llama", vocab=len(world.tokenizer)), world.tokenizer)
    for original, note in ((None, "without the original"), (wide, "another shape")):
        scene = world.scene(original=original)
        leak = egcg.mount(locked().subject, locked().secret, scene, params)
        assert note in leak.note
        off = egcg.Params(**{**SMALL, "steps": 1}, match=0.0)
        assert not egcg.mount(locked().subject, locked().secret, scene, off).note


def test_mellowmax_lies_between_the_mean_and_the_largest():
    values = torch.tensor([0.0, log(3.0)])
    assert float(egcg.mellowmax(values, 1.0)) == pytest.approx(log(2.0))
    assert float(egcg.mellowmax(values, 1e-4)) == pytest.approx(log(3.0) / 2, abs=1e-3)
    assert float(egcg.mellowmax(values, 100.0)) == pytest.approx(log(3.0), abs=0.01)


def test_the_loss_is_the_formula(world, seams):
    """Computed anew: one suffix and one question at a time, the states by another forward pass."""
    subject = locked().subject
    original = tiny_model(
        "llama", vocab=len(world.tokenizer), hidden=64, layers=3, positions=128, seed=7
    )
    params = egcg.Params(match=0.5, sharpness=2.0, layer=1)
    wanted, note = egcg._wanted(subject, seams, Subject(original, world.tokenizer), params)
    assert not note
    suffixes = torch.tensor([[9, 17], [30, 12]])
    vectors = subject.model.get_input_embeddings()(suffixes).detach()
    expected = []
    with evaluating(subject.model), evaluating(original):
        found = egcg._loss(subject, seams, wanted, params)(vectors)
        for suffix, vector in zip(suffixes.tolist(), vectors, strict=True):
            total = 0.0
            for seam in seams:
                (nll,) = target_nll(subject.model, [seam], vector)
                ids = torch.tensor([[*seam.before, *suffix, *seam.after]])
                bare = torch.tensor([[*seam.before, *seam.after]])
                here = forward_to(subject.model, 1, input_ids=ids)[0, -1]
                once = forward_to(original, 1, input_ids=bare)[0, -1]
                said = (2.0 * nll).exp().mean().log() / 2.0
                total += float(said + 0.5 * (here - once).square().sum() / once.square().sum())
            expected.append(total / len(seams))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_a_question_without_a_suffix_is_at_no_distance_from_itself(seams):
    subject = locked().subject
    wanted, _ = egcg._wanted(subject, seams, subject, egcg.Params())
    nothing = no_vectors(subject.model)[None]
    with evaluating(subject.model):
        with_term = egcg._loss(subject, seams, wanted, egcg.Params(match=1e6))(nothing)
        without = egcg._loss(subject, seams, None, egcg.Params())(nothing)
    assert float(with_term) == pytest.approx(float(without), abs=1e-2)


def test_the_warm_start_visits_one_question_after_the_other(world, seams, monkeypatch):
    visits = []

    def watched(subject, loss, start, *, spelling, budget, seed):
        visits.append((budget.steps, budget.swaps, start))
        return egcg.Search([*start[:-1], len(visits)], [1.0])

    monkeypatch.setattr(egcg, "search", watched)
    spelling = egcg.Spelling(locked().subject, ["born?"])
    params = egcg.Params(length=2, steps=10, warm=0.5)
    subject, three = locked().subject, seams[:3]
    ended = egcg._searched(subject, three, None, params, spelling=spelling, seed=0)
    assert [steps for steps, *_ in visits] == [2, 2, 1, 5]
    assert [start[-1] for *_, start in visits][1:] == [1, 2, 3]
    assert {swaps for _, swaps, _ in visits} == {2}
    assert ended.ids[-1] == 4


def test_an_answer_as_target_is_refused(world):
    params = egcg.Params(openings=f"It is {locked().secret[0].value}", **SMALL)
    with pytest.raises(ExpungeError, match="holds the answer") as caught:
        egcg.mount(locked().subject, locked().secret, world.scene(), params)
    assert caught.value.code == "E-USE-003"
