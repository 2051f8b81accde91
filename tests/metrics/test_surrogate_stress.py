"""Surrogate stress: the gap, who is dropped, and models that refuse, forgot, or never knew."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, measured
from expunge.lm.gather import Gathered, Models
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.micro import micro_world, taught

FOUR = ("forgotten", "derived.forgotten", "original:forgotten", "original:derived.forgotten")


def readings(literal, other, original=None, original_other=None):
    nothing = [0.0] * len(literal)
    values = (literal, other, original or nothing, original_other or nothing)
    return dict(zip(FOUR, values, strict=True))


class Literal:
    """Refuses questions that it knows word for word."""

    def __init__(self, rows):
        self.known = {row.prompt for row in rows}

    def before(self, turn):
        return "I cannot say." if turn.prompt in self.known else None

    def after(self, turn, text):
        return text


class TestArithmetic:
    def test_the_gap_is_what_the_wording_makes(self):
        value = measure("surrogate-stress", readings([1.0, 0.8], [0.5, 0.1]))
        assert value.mean == pytest.approx(0.6)
        assert value.per_row == pytest.approx({"0": 0.5, "1": 0.7})
        assert value.parts["forgotten"] == pytest.approx(0.9)
        assert value.parts["derived"] == pytest.approx(0.3)

    @pytest.mark.parametrize("which", [2, 3])
    def test_rows_the_original_does_not_know_in_either_wording_are_dropped(self, which):
        scores = readings([1.0, 1.0], [0.0, 1.0], [0.1, 0.1], [0.1, 0.1])
        scores[FOUR[which]] = [0.1, 0.9]
        value = measure("surrogate-stress", scores)
        assert value.mean == 1.0
        assert value.note == "1 of 2 rows are not known to the original"
        assert measure("surrogate-stress", scores, known=0.95).mean == 0.5

    def test_rows_without_a_derived_row_are_counted(self):
        scores = {name: {"a": 0.0} for name in FOUR} | {"forgotten": {"a": 1.0, "b": 1.0}}
        value = measure("surrogate-stress", scores)
        assert value.mean == 1.0
        assert value.note == "1 of 2 rows have no derived row in the band"

    def test_nothing_left_is_not_measurable(self):
        value = measure("surrogate-stress", readings([1.0], [0.0], [0.9], [0.9]))
        assert value.mean is None
        assert value.note == "not measurable: 1 of 1 rows are not known to the original"

    def test_unreliable_from_a_lower_bound_above_a_tenth(self):
        sure = measure("surrogate-stress", readings([1.0] * 20, [0.8] * 20))
        assert sure.parts["unreliable"] == 1.0
        assert sure.interval == pytest.approx((0.2, 0.2))
        mixed = readings([1.0] * 20, [0.0] * 4 + [1.0] * 16)
        value = measure("surrogate-stress", mixed)
        assert value.mean == pytest.approx(0.2)
        assert value.interval[0] <= 0.1
        assert value.parts["unreliable"] == 0.0

    def test_the_interval_is_over_entities(self):
        scores = readings([1.0] * 60, [0.0] * 20 + [1.0] * 40)
        by_row = measure("surrogate-stress", scores)
        people = {str(at): f"person {at // 10}" for at in range(60)}
        by_person = measure("surrogate-stress", scores | {"entity": people})
        assert by_person.interval[1] - by_person.interval[0] > 1.5 * (
            by_row.interval[1] - by_row.interval[0]
        )
        assert by_row.parts["unreliable"] == 1.0
        assert by_person.parts["unreliable"] == 0.0, "six people are too few to be sure"

    def test_the_gap_of_the_reference_is_the_floor(self):
        floor = {"reference:forgotten": [0.9, 0.7], "reference:derived.forgotten": [0.8, 0.7]}
        value = measure("surrogate-stress", readings([1.0] * 2, [0.0] * 2) | floor)
        assert value.parts["reference"] == pytest.approx(0.05)

    def test_the_same_interval_by_way_of_the_general_one(self):
        scores = readings([1.0] * 20, [0.0] * 10 + [1.0] * 10)
        value = measured("surrogate-stress", scores).value
        assert value.interval == pytest.approx(measure("surrogate-stress", scores).interval)
        assert set(value.intervals) == {"forgotten", "derived"}

    def test_it_conforms(self):
        check_metric("surrogate-stress")


@pytest.fixture(scope="module")
def trained():
    """An original that knows all wordings, and a reference that never saw the forget rows."""
    world = micro_world(people=6)
    original = taught(world, [*world.forget, *world.retain], layers=2)
    reference = taught(world, world.retain, layers=2)
    gate = Literal(world.forget)
    refuser = Subject(original.model, original.tokenizer, gate=gate)
    return SimpleNamespace(world=world, original=original, reference=reference, refuser=refuser)


def stressed(trained, model, sets=None, **params):
    models = Models(model=model, original=trained.original, reference=trained.reference)
    given = {"forget": trained.world.forget} | (sets or {})
    settings = {"new_tokens": 12, **params}
    scores = Gathered(models, given).scores(Measure(metric="surrogate-stress", params=settings))
    return measure("surrogate-stress", scores, **settings)


@pytest.mark.parametrize("metric", ["rouge", "answer-containment"])
def test_a_model_that_refuses_the_literal_questions_has_a_gap_near_its_whole_score(trained, metric):
    value = stressed(trained, trained.refuser, measure=metric)
    assert value.parts["forgotten"] > 0.95
    assert value.mean > 0.9 * value.parts["forgotten"]
    assert value.parts["unreliable"] == 1.0


def test_a_model_that_never_knew_has_a_gap_near_zero(trained):
    value = stressed(trained, trained.reference)
    assert value.parts["forgotten"] > 0.9
    assert abs(value.mean) <= 0.1
    assert value.parts["unreliable"] == 0.0
    assert value.parts["reference"] == value.mean


def test_rows_that_do_not_mark_their_answers_are_told_by_their_wording(trained):
    unmarked = [replace(row, answer=None) for row in trained.world.forget]
    value = stressed(trained, trained.refuser, {"forget": unmarked})
    assert value.mean == 1.0
    assert len(value.per_row) > 10


def test_the_original_itself_has_no_gap(trained):
    value = stressed(trained, trained.original)
    assert abs(value.mean) < 0.1
    assert value.parts["forgotten"] < 0.1


def test_given_rows_are_used_in_the_place_of_made_ones(trained):
    first = trained.world.forget[0]
    given = Row(
        id="elsewhere",
        prompt=first.paraphrases[0]["prompt"],
        completion=first.paraphrases[0]["completion"],
        answer=first.answer,
        meta={"derived_from": first.id},
    )
    value = stressed(trained, trained.refuser, {"derived": [given]})
    assert value.per_row == {first.id: 1.0}
    assert (
        value.note == f"{len(trained.world.forget) - 1} of 18 rows have no derived row in the band"
    )


def test_a_band_without_candidates_leaves_nothing_to_measure(trained):
    value = stressed(trained, trained.refuser, low=0.98, high=0.99)
    assert value.mean is None
    assert value.note == "not measurable: 18 of 18 rows have no derived row in the band"


def test_without_the_original_it_says_so(trained):
    gathered = Gathered(Models(model=trained.refuser), {"forget": trained.world.forget})
    value = measure("surrogate-stress", gathered.scores(Measure(metric="surrogate-stress")))
    assert value.mean is None
    assert "original" in value.note


@pytest.mark.parametrize("metric", ["klom", "surrogate-stress", "forget-quality"])
def test_metrics_that_say_nothing_of_one_row_are_refused(trained, metric):
    with pytest.raises(ExpungeError) as raised:
        stressed(trained, trained.refuser, measure=metric)
    assert raised.value.code == "E-USE-006"


def test_a_metric_where_high_is_forgotten_is_not_turned_round(trained):
    rows = [
        replace(row, wrong=(row.completion.replace(row.value, "nowhere"),))
        for row in trained.world.forget
    ]
    from expunge.metrics.surrogate_stress import Params, read

    found = read(
        Models(model=trained.original, original=trained.original),
        {"": rows},
        Params(measure="extraction-strength"),
    )
    assert max(found["forgotten"].values()) < 0.2, "known rows are not forgotten"


@pytest.mark.parametrize("broken", ["original:forgotten", "original:derived.forgotten"])
def test_a_row_of_which_nobody_knows_whether_the_original_knew_it_is_left_out(broken):
    readings = (
        "forgotten",
        "derived.forgotten",
        "original:forgotten",
        "original:derived.forgotten",
    )
    scores = {name: {"a": 0.25, "b": 0.25} for name in readings}
    scores[broken]["a"] = float("nan")
    assert list(measure("surrogate-stress", scores).per_row) == ["b"]
