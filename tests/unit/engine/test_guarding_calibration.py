"""Thresholds of the gate: what they promise, on how many texts, and when they are due again."""

import math
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.engine.guarding import calibration
from expunge.engine.guarding.calibration import (
    any_fires,
    calibrate,
    highest,
    is_due,
    texts_of,
    threshold,
    to_let_through,
)
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.rungs import full, standard
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row

SECRET = bytes(32)


class Chance:
    """A rung whose scores of a text are drawn by the text's name, one for each target."""

    name, is_calibrated = "chance", True

    def __init__(self, targets, least=0.0, name="chance"):
        self.targets, self.threshold, self.least, self.name = targets, 0.0, least, name
        self.seen = []

    def key(self, target):
        return None

    def add(self, id, key):
        self.targets += 1

    def remove(self, id):
        self.targets -= 1

    def each(self, text):
        return np.random.default_rng(crc32(f"{self.name} {text}".encode())).random(self.targets)

    def scores(self, text, most):
        self.seen.append(text)
        each = self.each(text)
        return [(f"t{at}", float(each[at])) for at in np.argsort(-each)[:most]]


class Whole:
    """A rung of whole matches: fires for texts that have a word."""

    name, threshold, is_calibrated = "whole", 0.0, False

    def __init__(self, word):
        self.word = word

    def scores(self, text, most):
        return [("t", 1.0)] if self.word in text else []


def texts(count, first=0):
    return [(first + at,) for at in range(count)]


# ------------------------------------------------------------------------------- the quantile


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.001, 0.999))
def test_at_most_the_share_of_the_given_texts_is_above(scores, rate):
    set_to, promised = threshold(scores, rate)
    assert sum(score > set_to for score in scores) <= rate * len(scores) + 1e-9
    assert promised >= rate or promised == pytest.approx(rate)
    assert set_to in scores


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40, unique=True), st.floats(0.05, 0.95))
def test_left_out_one_by_one_the_promise_holds(scores, rate):
    """Exchangeable texts: the mean over which of them is the further one is the promise itself."""
    outside = [
        scores[at] > threshold(scores[:at] + scores[at + 1 :], rate)[0] for at in range(len(scores))
    ]
    promised = threshold(scores[1:], rate)[1]
    assert np.mean(outside) <= promised + 1e-9


def test_too_few_texts_promise_what_they_can():
    assert threshold([0.3, 0.5, 0.1], 0.01) == (0.5, 0.25)
    assert threshold([0.2] * 98, 0.01)[1] == pytest.approx(1 / 99)
    assert threshold([0.2] * 99, 0.01)[1] == 0.01


def test_a_plain_quantile_would_break_the_promise():
    """With n texts and the rate 1 / (n + 1) the naive quantile lies below the highest of them."""
    draw = np.random.default_rng(0)
    over_naive, over_ours = [], []
    for _ in range(4000):
        *seen, new = draw.random(20)
        over_naive.append(new > np.quantile(seen, 0.9))
        over_ours.append(new > threshold(seen, 0.1)[0])
    assert np.mean(over_naive) > 0.115
    assert np.mean(over_ours) <= 0.105


# ---------------------------------------------------------------- the highest score over the store


def test_set_on_the_highest_the_rate_holds_at_any_number_of_targets():
    for count in (1, 100, 5_000):
        rung = Chance(count)
        calibrate(Ladder([rung]), texts(1_000), targets=count, rate=0.05)
        fired = [highest(rung, one) > rung.threshold for one in texts(1_000, 10_000)]
        assert np.mean(fired) < 0.09


def test_set_on_targets_one_by_one_it_does_not():
    """The trap: one in a thousand for each of 1,000 targets stops two texts of three."""
    count, rate = 1_000, 1e-3
    rung = Chance(count)
    single = np.concatenate([rung.each(text) for (text,) in texts(200)])
    rung.threshold = float(np.quantile(single, 1 - rate))
    fired = np.mean([highest(rung, one) > rung.threshold for one in texts(500, 10_000)])
    assert (
        any_fires(rate, count)
        == pytest.approx(1 - (1 - rate) ** count)
        == pytest.approx(0.632, abs=1e-3)
    )
    assert fired == pytest.approx(any_fires(rate, count), abs=0.08)
    calibrate(Ladder([rung]), texts(1_000), targets=count, rate=rate)
    assert np.mean([highest(rung, one) > rung.threshold for one in texts(500, 10_000)]) < 0.02


def test_the_example_of_a_thousand_targets():
    assert any_fires(1e-4, 1000) == pytest.approx(0.095, abs=5e-4)
    assert any_fires(0.0, 10**5) == 0.0


def test_kept_while_the_store_doubles_the_rate_at_most_about_doubles():
    rung = Chance(200)
    calibrate(Ladder([rung]), texts(2_000), targets=200, rate=0.05)
    rung.targets = 400
    fired = np.mean([highest(rung, one) > rung.threshold for one in texts(2_000, 10_000)])
    assert 0.06 < fired < 0.13
    calibrate(Ladder([rung]), texts(2_000), targets=400, rate=0.05)
    assert np.mean([highest(rung, one) > rung.threshold for one in texts(2_000, 10_000)]) < 0.07


@pytest.mark.parametrize(
    ("then", "now", "due"),
    [(0, 0, False), (0, 1, True), (1, 1, False), (1, 2, True), (100, 199, False),
     (100, 200, True), (100, 51, False), (100, 50, True), (100, 0, False)],
)  # fmt: skip
def test_due_again_when_the_number_has_doubled_or_halved(then, now, due):
    assert is_due(then, now) is due


def test_growing_one_by_one_it_is_due_seventeen_times_up_to_a_hundred_thousand():
    times, then = 0, 0
    for now in range(1, 100_001):
        if is_due(then, now):
            times, then = times + 1, now
    assert times == math.floor(math.log2(100_000)) + 1


# --------------------------------------------------------------------------------- whole ladders


def test_several_rungs_share_the_rate():
    rungs = [Chance(50, name=f"r{at}") for at in range(4)]
    made = calibrate(Ladder(rungs), texts(1_000), targets=50, rate=0.08)
    assert made.rate == pytest.approx(0.08)
    assert made.thresholds == {rung.name: rung.threshold for rung in rungs}
    fired = [any(highest(r, one) > r.threshold for r in rungs) for one in texts(1_000, 9_000)]
    assert np.mean(fired) < 0.11


def test_texts_that_name_a_target_are_left_out():
    rung = Chance(3)
    told = [("a",), ("say target",), ("b", "the target"), ("c",)]
    made = calibrate(Ladder([Whole("target"), rung]), told, targets=3, rate=0.5)
    assert (made.texts, made.left_out) == (2, 2)
    assert not [text for text in rung.seen if "target" in text]


def test_an_exchange_counts_once_with_the_highest_of_its_texts():
    rung = Chance(5)
    calibrate(Ladder([rung]), [("a", "b")], targets=5, rate=0.01)
    assert rung.threshold == max(highest(rung, ("a",)), highest(rung, ("b",)))


def test_nothing_is_set_without_targets_or_texts():
    rung = Chance(0)
    rung.threshold = 0.3
    assert calibrate(Ladder([rung]), texts(5), targets=0).rate == 1.0
    assert calibrate(Ladder([rung]), [], targets=5).rate == 1.0
    assert rung.threshold == 0.3
    assert calibrate(standard(SECRET), [("a",)], targets=5).rate == 0.0


def test_no_threshold_falls_below_the_least_of_its_rung():
    rung = Chance(1, least=2.0)
    assert calibrate(Ladder([rung]), texts(50), targets=1).thresholds == {"chance": 2.0}


# -------------------------------------------------------------------------- texts to be let through

NAMES = ("Ada Quillson", "Benno Marchetti", "Cara Vandermeer", "Dilo Ferranti")
TARGETS = [
    Target(
        id=f"t{at}",
        rows=tuple(
            Row.parse({"prompt": ask.format(name), "completion": f" {name}.", "names": [name]})
            for ask in ("Where was {} born?", "Whom did {} marry?")
        ),
    )
    for at, name in enumerate(NAMES)
]


def test_rows_to_be_kept_are_taken_where_there_are_any():
    kept = [Row.parse({"prompt": f"What is {at}?", "completion": " x"}) for at in range(5)]
    assert sorted(to_let_through(kept, TARGETS, 0)) == sorted(texts_of(kept))


def test_without_any_the_questions_are_asked_of_people_nobody_knows():
    told = [text for one in to_let_through([], TARGETS, 0) for text in one]
    assert sum(text.endswith(("born?", "marry?")) for text in told) >= 6
    assert not [text for text in told if any(name in text for name in NAMES)]
    assert len(told) > 100
    assert to_let_through([], TARGETS, 0) == to_let_through([], TARGETS, 0)
    assert to_let_through([], TARGETS, 1) != to_let_through([], TARGETS, 0)


def test_no_more_are_looked_at_than_enough(monkeypatch):
    monkeypatch.setattr(calibration, "ENOUGH", 7)
    kept = [Row.parse({"prompt": f"What is {at}?", "completion": " x"}) for at in range(50)]
    assert len(to_let_through(kept, [], 0)) == 7


def test_stand_ins_keep_the_same_question_about_strangers_from_firing():
    """The ladder as it comes fires for a stranger; calibrated it does not, and targets still do."""
    ladder = full(SECRET)
    for target in TARGETS:
        ladder.add(target.id, ladder.keys(target))
    for rung in ladder.rungs:
        rung.threshold = 0.3 if rung.is_calibrated else rung.threshold
    strangers = ["Where was Tolo Brandt born?", "Whom did Vesna Kirkby marry?"]
    assert all(ladder.hits([text]) for text in strangers)
    calibrate(ladder, to_let_through([], TARGETS, 0), targets=len(TARGETS), rate=0.05)
    assert not any(ladder.hits([text]) for text in strangers)
    assert ladder.hits(["Who is Ada Quillson?"])
    assert ladder.hits(["Who is Ada Quilson?"])[0].gate == "spelling"


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)))
def test_the_order_of_targets_and_texts_does_not_matter(order):
    made = []
    for targets in (TARGETS, [TARGETS[at] for at in order]):
        ladder = full(SECRET)
        for target in targets:
            ladder.add(target.id, ladder.keys(target))
        told = texts_of(row for target in targets for row in target.rows)
        asked = [(text.replace("Ada", "Ida").replace("Benno", "Bela"),) for (text,) in told]
        made.append(calibrate(ladder, asked, targets=4, rate=0.1).thresholds)
    assert made[0] == pytest.approx(made[1], abs=2e-6)
