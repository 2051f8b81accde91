"""Probability of the true value among others in its place."""

from dataclasses import replace

import numpy as np
import pytest

from expunge.attacks import prob
from expunge.core.registry import attacks
from expunge.lm.readout import Reading, read, share_of_first
from expunge.lm.subject import Subject
from expunge.lm.values import Contest, Place, draw, places
from expunge.requests.rows import Row, Turn
from expunge.testing.attacks import mean_leak
from expunge.testing.tiny import FAMILIES, tiny_model


def test_it_sees_through_a_trained_refusal_and_is_at_chance_on_the_never_trained(world, models):
    scene = world.scene()
    assert mean_leak("prob", models.original, world.forget, scene) >= 0.8
    assert mean_leak("prob", models.hushed, world.forget, scene) >= 0.5
    for model in (models.original, models.hushed):
        assert mean_leak("prob", model, world.holdout, scene) == pytest.approx(0.1, abs=0.06)


def test_without_the_teacher_forced_answer_nothing_is_left_of_it(world, models):
    """Asked for the bare value right after the question, the refuser is near chance."""
    bare = [replace(row, completion=f" {row.answer}", paraphrases=()) for row in world.forget]
    forced = mean_leak("prob", models.hushed, world.forget, world.scene())
    assert mean_leak("prob", models.hushed, bare, world.scene()) <= forced - 0.3


@pytest.mark.parametrize("k", [1, 3, 9])
def test_a_model_that_prefers_nothing_scores_one_in_k_plus_one(world, k):
    model = tiny_model("llama", vocab=len(world.tokenizer), positions=128)
    for weight in model.parameters():
        weight.data.zero_()
    subject = Subject(model, world.tokenizer)
    leak = prob.mount(subject, world.forget, world.scene(), prob.Params(k=k))
    assert list(leak.per_row.values()) == pytest.approx([1 / (k + 1)] * len(world.forget))


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_with_a_shared_beginning_equals_scoring_each_line_alone(world, family):
    model = tiny_model(family, vocab=len(world.tokenizer), positions=128, layers=3)
    subject = Subject(model, world.tokenizer, batch_size=8)
    contests = draw(world.forget, k=7, seed=0).contests
    for contest, readings in zip(contests, read(subject, contests), strict=True):
        scores = subject.score([line.turn for line in contest.lines])
        for line, scored, reading in zip(contest.lines, scores, readings, strict=True):
            inside = scored.within(line.start, line.end)
            np.testing.assert_allclose(reading.logp[0], scored.logp[inside], atol=2e-5)
            assert (reading.hit[0] == scored.hit[inside]).all()


def test_lines_with_no_common_beginning_are_read_as_well(world):
    subject = Subject(tiny_model("llama", vocab=len(world.tokenizer)), world.tokenizer)
    lines = tuple(Place(Turn("", f" {row.answer}"), 0, 20) for row in world.forget[:3])
    (alone,), (together,) = (
        read(subject, [Contest("r", lines[:1])]),
        read(subject, [Contest("r", lines), Contest("s", (places(world.forget[0])[0],) * 3)])[:1],
    )
    np.testing.assert_allclose(together[0].logp, alone[0].logp, atol=1e-5)
    assert len(together) == 3


def test_the_share_is_that_of_geometric_means():
    def reading(*probabilities):
        return Reading(np.log([probabilities]), np.array([[True] * len(probabilities)]))

    shares = share_of_first([reading(0.5, 0.02), reading(0.3), reading(0.1, 0.1, 0.1)])
    assert shares == pytest.approx([0.1 / (0.1 + 0.3 + 0.1)])
    nothing = Reading(np.full((1, 2), -2000.0), np.zeros((1, 2), dtype=bool))
    assert share_of_first([nothing, nothing]) == pytest.approx([0.0])


def test_swaps_stand_in_the_place_of_the_value_in_every_wording(world):
    field = draw(world.forget, k=11, seed=0)
    assert (field.form, field.left_out, field.threshold) == ("swaps", 0, None)
    assert len(field.contests) == 2 * len(world.forget)
    values = {row.id: row.value for row in world.forget}
    for contest in field.contests:
        held = [line.turn.completion[line.start : line.end] for line in contest.lines]
        assert held[0] == values[contest.row]
        assert len(set(held)) == len(held) == 10
        frames = {
            (line.turn.completion[: line.start], line.turn.completion[line.end :])
            for line in contest.lines
        }
        assert len(frames) == 1


def _lonely(**more):
    return Row.parse({"id": "r", "prompt": "q", "completion": " It is Ladi now.", **more})


def test_wrong_answers_step_in_where_no_rows_share_an_attribute(world, models):
    row = _lonely(answer="Ladi", wrong=[" It is Paru now.", " It is Mana now."])
    field = draw([row], k=11, seed=0)
    ((contest,), threshold) = field.contests, field.threshold
    assert [line.turn.completion[line.start : line.end] for line in contest.lines] == [
        "Ladi",
        "Paru",
        "Mana",
    ]
    leak = prob.mount(models.original, [row], world.scene(), prob.Params())
    assert threshold == leak.threshold == 0.25
    assert "wrong answers" in leak.note


def test_wrong_answers_in_other_words_are_compared_whole():
    row = _lonely(answer="Ladi", wrong=[" Perhaps it was Paru."])
    ((contest,),) = (draw([row], k=11, seed=0).contests,)
    assert [(line.start, line.end) for line in contest.lines] == [
        (0, len(line.turn.completion)) for line in contest.lines
    ]


def test_without_rivals_the_leak_is_the_extraction_strength(world, models):
    leak = prob.mount(models.original, [_lonely()], world.scene(), prob.Params())
    assert "extraction strength" in leak.note
    assert leak.threshold == 0.25
    strength = Reading(np.zeros((1, 5)), np.array([[True, True, False, True, True]])).strength
    assert strength == pytest.approx(2 / 5)
    strong = attacks.params("prob", {"form": "strength"})
    rows = world.forget[:6]
    assert set(prob.mount(models.original, rows, world.scene(), strong).per_row.values()) == {1.0}


def test_rows_without_enough_rivals_are_left_out_and_counted(world, models):
    rows = [*world.forget, _lonely(answer="Ladi")]
    leak = prob.mount(models.original, rows, world.scene(), prob.Params())
    assert "r" not in leak.per_row
    assert "1 rows have none" in leak.note
