"""The attacks on real tiny models: one that learned the rows and one that never saw them."""

import pytest

from expunge.core.measuring import Measure
from expunge.lm.gather import Gathered, Models
from expunge.requests.rows import Row
from expunge.testing.metrics import measure
from expunge.testing.micro import micro_world, taught

SUITE = (
    "mia-loss",
    "mia-zlib",
    "mia-lower",
    "mia-min-k",
    "mia-min-k-plus-plus",
    "mia-gradnorm",
    "mia-reference",
    "mia-neighbour",
    "mia-recall",
    "privleak",
    "retain-deviation",
)


@pytest.fixture(scope="module")
def world():
    return micro_world(people=5)


@pytest.fixture(scope="module")
def models(world):
    knows = taught(world, [*world.forget, *world.retain], epochs=25, hidden=32, layers=2)
    retrained = taught(world, world.retain, epochs=25, hidden=32, layers=2)
    base = taught(world, world.retain, epochs=1, hidden=32, layers=2)
    lost = taught(world, world.forget, epochs=25, hidden=32, layers=2)
    return {"knows": knows, "retrained": retrained, "base": base, "lost": lost}


@pytest.fixture(scope="module")
def read(world, models):
    """Scores of one metric on one model, made as a benchmark makes them."""

    def scores(metric_id, who="knows", rows=None, **params):
        sets = {"forget": rows or world.forget, "holdout": world.holdout}
        beside = Models(model=models[who], base=models["base"])
        return Gathered(beside, sets).scores(Measure(metric=metric_id, params=params))

    return scores


@pytest.mark.parametrize("metric_id", [each for each in SUITE if each.startswith("mia-")])
def test_every_attack_finds_what_was_learned(metric_id, read):
    known, fresh = read(metric_id), read(metric_id, "retrained")
    value = measure(metric_id, known, reference=fresh)
    # The prefix disturbs so small a model in everything it says, so recall sees less than others.
    assert value.mean > (0.75 if metric_id == "mia-recall" else 0.9)
    assert abs(value.parts["auc_reference"] - 0.5) < 0.3
    assert value.parts["s"] < 0.6
    assert measure(metric_id, fresh, reference=fresh).parts["s"] == 1.0


@pytest.mark.parametrize("score", ["min-k", "min-k-plus-plus"])
def test_privleak_is_negative_where_the_rows_are_known(score, read):
    known, fresh = (read("privleak", who, score=score) for who in ("knows", "retrained"))
    assert measure("privleak", known, reference=fresh, score=score).mean < -70
    assert measure("privleak", fresh, reference=fresh, score=score).mean == 0


def test_rows_to_keep_deviate_little(world, read):
    known, retrained = (
        read("retain-deviation", who, rows=world.retain) for who in ("knows", "retrained")
    )
    kept = measure("retain-deviation", known, reference=retrained)
    lost = read("retain-deviation", "lost", rows=world.retain)
    assert kept.mean < 10 < 25 < measure("retain-deviation", lost, reference=retrained).mean


@pytest.mark.parametrize("metric_id", ["mia-min-k-plus-plus", "mia-gradnorm", "mia-neighbour"])
def test_order_and_company_of_rows_change_no_score(metric_id, world, models):
    def of(rows, size):
        models["knows"].batch_size = size
        sets = {"forget": rows, "holdout": world.holdout}
        beside = Models(model=models["knows"])
        scores = Gathered(beside, sets).scores(Measure(metric=metric_id))
        return measure(metric_id, scores)

    whole = of(world.forget, 32)
    turned = of(world.forget[::-1], 3)
    assert turned.mean == pytest.approx(whole.mean, abs=1e-12)
    assert turned.per_row == pytest.approx(whole.per_row, abs=1e-4)
    models["knows"].batch_size = 32


def test_the_rows_of_the_prefix_are_not_scored(read):
    scores = read("mia-recall", shots=4)
    assert len(scores["holdout.prefixed_logp"]) == 11
    value = measure("mia-recall", scores)
    assert len(value.beside["holdout"]) == 11
    assert "4 of 15 rows have no holdout" in value.note
    assert read("mia-recall", shots=4) == scores
    assert read("mia-recall", shots=4, seed=1).keys() == scores.keys()
    assert set(read("mia-recall", shots=4, seed=1)["holdout.prefixed_logp"]) != set(
        scores["holdout.prefixed_logp"]
    )


def test_a_prefix_takes_at_most_half_of_the_holdout(read):
    assert len(read("mia-recall", shots=40)["holdout.prefixed_logp"]) == 8


def test_running_text_is_attacked_whole(world, models):
    rows = [Row(id=f"t{n}", text=row.prompt + row.completion) for n, row in enumerate(world.forget)]
    fresh = [
        Row(id=f"h{n}", text=row.prompt + row.completion) for n, row in enumerate(world.holdout)
    ]
    sets = {"forget": rows, "holdout": fresh}
    for metric_id in ("mia-min-k", "mia-min-k-plus-plus", "mia-recall"):
        scores = Gathered(Models(model=models["knows"]), sets).scores(Measure(metric=metric_id))
        tokens = len(models["knows"].tokenizer(rows[0].text).input_ids)
        reading = next(name for name in scores if not name.startswith("holdout"))
        assert abs(len(scores[reading]["t0"]) - tokens) <= 1
        assert measure(metric_id, scores).n == len(rows)


@pytest.mark.parametrize("metric_id", SUITE)
def test_without_holdout_rows_it_says_so(metric_id, world, models):
    beside = Models(model=models["knows"], base=models["base"])
    scores = Gathered(beside, {"forget": world.forget}).scores(Measure(metric=metric_id))
    value = measure(metric_id, scores, reference=scores)
    assert value.mean is None
    assert "not measurable" in value.note
