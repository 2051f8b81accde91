"""Membership: placements among hold-out rows, and what they say of models of known state."""

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch

from expunge.attacks import mia
from expunge.data.encode import collate
from expunge.lm.hooks import learning
from expunge.lm.membership import text_nll
from expunge.lm.scoring import packed_logp
from expunge.lm.subject import Subject
from expunge.numbers.membership import auc, tpr_at
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.micro import every_wording, micro_world
from expunge.testing.tiny import tiny_model

SCORES = ("loss", "zlib", "min-k", "min-k++", "gradnorm")
PARTS = ("auc_loss", "auc_zlib", "auc_min_k", "auc_min_k_plus_plus", "auc_gradnorm")


@pytest.fixture(scope="module")
def untaught(world):
    return Subject(
        tiny_model("llama", vocab=len(world.tokenizer), layers=2, positions=128), world.tokenizer
    )


@pytest.fixture(scope="module")
def overdone(world, models):
    """The original after ascent on the forget rows, while it went on learning the retain rows."""
    subject = models.original.copy()
    optimiser = torch.optim.AdamW(subject.model.parameters(), lr=1e-3)
    forget, retain = (
        collate([subject.encoder.encode(row.turn) for row in every_wording(rows)], 0)
        for rows in (world.forget, world.retain)
    )
    with learning(subject.model):
        for _ in range(40):
            optimiser.zero_grad()
            wrong = packed_logp(subject.model, forget).logp.clamp(min=-8.0).mean()
            (wrong - packed_logp(subject.model, retain).logp.mean()).backward()
            optimiser.step()
    subject.model.zero_grad(set_to_none=True)
    return subject


ROLES = ("user", "assistant")


def found(subject, rows, scene, **params):
    return mia.mount(subject, rows, scene, mia.Params(**params))


@pytest.mark.parametrize("score", SCORES)
def test_what_was_learned_stands_out_and_what_was_not_does_not(world, models, untaught, score):
    knows = found(models.original, world.forget, world.scene(), score=score, beside=())
    assert fmean(knows.per_row.values()) >= 0.95
    assert mean_leak(
        "mia", untaught, world.forget, world.scene(), score=score, beside=()
    ) == pytest.approx(0.5, abs=0.2)


def test_a_refusal_hides_the_answers_but_not_that_they_were_there(world, models):
    scene = world.scene()
    assert mean_leak("direct", models.hushed, world.forget, scene) <= 0.05
    assert mean_leak("mia", models.hushed, world.forget, scene) - 0.5 >= 0.15
    assert mean_leak("mia", models.hushed, world.forget, scene, score="none") == 0.5


def test_forgetting_that_overshot_stands_out_on_the_other_side(world, overdone):
    scene = world.scene()
    assert mean_leak("mia", overdone, world.forget, scene) <= 0.1
    assert mean_leak("direct", overdone, world.forget, scene) <= 0.05
    assert mean_leak("direct", overdone, world.retain, scene) >= 0.9


def test_the_mean_of_the_placements_is_the_area_under_the_curve_from_both_sides(world, models):
    leak = found(models.hushed, world.forget, world.scene())
    mine, fresh = (
        np.array(text_nll(models.hushed, [row.training for row in rows]))
        for rows in (world.forget, world.holdout)
    )
    area = auc(mine, fresh)
    assert fmean(leak.per_row.values()) == pytest.approx(area, abs=1e-12)
    assert fmean(leak.beside["holdout"].values()) == pytest.approx(area, abs=1e-12)
    assert leak.parts["auc_loss"] == pytest.approx(area, abs=1e-12)
    by_hand = {
        row.id: np.mean(np.where(fresh == own, 0.5, own < fresh))
        for row, own in zip(world.forget, mine, strict=True)
    }
    assert leak.per_row == pytest.approx(by_hand)


def test_placements_of_given_scores():
    members, others = {"a": 0.1, "b": 0.5, "c": 3.0}, {"x": 0.5, "y": 1.0}
    assert mia._above(members, others) == {"a": 1.0, "b": 0.75, "c": 0.0}
    below = {row: 1 - share for row, share in mia._above(others, members).items()}
    assert below == pytest.approx({"x": 0.5, "y": 2 / 3})
    # a is on both sides: compared with x alone, and x with b alone
    assert mia._above({"a": 1.0, "b": 0.5}, {"a": 1.0, "x": 2.0}) == {"a": 1.0, "b": 1.0}
    assert mia._above({"a": 1.0}, {"a": 1.0}) == {}
    infinite = {"a": float("inf"), "b": 0.0}
    assert mia._above(infinite, {"x": float("inf")}) == {"a": 0.5, "b": 1.0}


def test_hold_out_rows_among_themselves_cannot_be_told_apart(world, models):
    leak = found(models.original, world.holdout, world.scene(), beside=())
    assert fmean(leak.per_row.values()) == pytest.approx(0.5, abs=1e-12)
    assert len(set(leak.per_row.values())) > 10


def test_the_parts_are_the_scores_asked_for(world, untaught):
    scene = world.scene()
    every = found(untaught, world.forget, scene)
    assert {name for name in every.parts if name.startswith("auc")} == set(PARTS)
    assert (every.parts["members"], every.parts["nonmembers"]) == (30, 30)
    for score, part in zip(SCORES, PARTS, strict=True):
        alone = found(untaught, world.forget, scene, score=score, beside=())
        assert fmean(alone.per_row.values()) == pytest.approx(every.parts[part], abs=1e-6)
        assert set(alone.parts) == {"members", "nonmembers"}


def test_members_found_at_a_low_rate_take_a_hundred_hold_out_rows(world, models):
    few = found(models.original, world.forget, world.scene(), beside=())
    assert "tpr_at_1" not in few.parts
    # people nobody told the model about, told in words it has no tokens for
    more = (*world.holdout, *micro_world(people=24, seed=1).forget)
    leak = found(models.original, world.forget, world.scene(holdout=more), beside=())
    scores = [
        np.array(text_nll(models.original, [row.training for row in rows]))
        for rows in (world.forget, more)
    ]
    assert leak.parts["tpr_at_1"] == tpr_at(0.01, *scores)


def test_rows_that_cannot_be_scored_are_left_out_and_counted(world, untaught):
    fits = world.forget[0]
    odd = [
        replace(fits, id="long", completion=fits.completion * 40),
        replace(fits, id="empty", completion="", answer=None),
        Row.parse({"id": "talk", "messages": [*({"role": r, "content": "Hi."} for r in ROLES)]}),
        Row.parse({"id": "text", "text": f"{fits.prompt}{fits.completion}"}),
    ]
    leak = found(untaught, [fits, *odd], world.scene(holdout=world.holdout[:5]))
    assert list(leak.per_row) == [fits.id, "text"]
    assert leak.note == "3 of 10 rows cannot be scored and are left out"


def test_without_hold_out_rows_there_is_nothing_to_compare_with(world, untaught):
    leak = found(untaught, world.forget, world.scene(holdout=()))
    assert not leak.per_row
    assert "no hold-out rows" in leak.note


def test_the_effort_counts_both_sides():
    work = mia.effort(mia.Params(), 10, 20)
    assert (work.forwards, work.backwards) == (40, 20)
    work = mia.effort(mia.Params(beside=()), 10, 20)
    assert (work.forwards, work.backwards) == (20, 0)
