"""KLoM: closed forms, the edges of the bins, the anchors, and margins of real models."""

import math

import numpy as np
import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure, measured
from expunge.lm.gather import Gathered, Models
from expunge.lm.margins import answer_margins, margins
from expunge.lm.subject import Subject
from expunge.metrics.klom import Params, klom, pooled
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

TEXTS = ["Where is it? It is in the old mill.", "Who was there? Nobody."]
ROWS = [
    Row(id="a", prompt="Where is it?", completion=" It is in the old mill."),
    Row(id="b", prompt="Who was there?", completion=" Nobody."),
]


def normal(seed, mean=0.0, count=100):
    return (np.random.default_rng(seed).normal(size=count) + mean).tolist()


def test_equal_margins_are_at_no_distance_whatever_their_order():
    assert klom([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == 0.0
    assert klom([1.0, 1.0], [1.0, 1.0]) == 0.0, "all margins in one place"


@pytest.mark.parametrize(("ours", "theirs"), [(0.0, 10.0), (10.0, 0.0)])
def test_disjoint_margins_give_the_largest_distance_on_both_sides(ours, theirs):
    assert klom([ours] * 5, [theirs] * 5) == pytest.approx(11.512925, abs=1e-6)


def test_margins_at_the_upper_edge_count():
    # Bins of 1 from 0 to 20. Ours: half in the first, half at the edge of the last; theirs: first.
    assert klom([0.0, 20.0], [0.0, 0.0, 19.5, 0.0], bins=20) == pytest.approx(
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    )


def test_shares_are_not_shared_out_anew_after_the_floor():
    ours, theirs = [0.0] * 9 + [20.0], [0.0] * 10
    assert klom(ours, theirs) == pytest.approx(0.9 * math.log(0.9) + 0.1 * math.log(0.1 / 1e-5))


def test_margins_are_cut_at_a_hundred():
    assert klom([500.0, 100.0], [100.0, 900.0]) == 0.0
    assert klom([-1e9, 0.0], [-100.0, 0.0]) == 0.0


@pytest.mark.parametrize(
    ("shift", "low", "high"), [(0.0, 0.05, 0.45), (1.0, 0.9, 2.6), (5.0, 8, 11)]
)
def test_a_hundred_models_of_a_normal_are_as_far_apart_as_published(shift, low, high):
    found = [klom(normal(seed, shift), normal(seed + 100)) for seed in range(20)]
    assert low < np.mean(found) < high


def test_the_mean_and_the_95th_percentile_are_over_the_rows():
    ours = {str(i): [float(i), float(i)] for i in range(21)}
    theirs = {row: [0.0, 0.0] for row in ours}
    value = measure("klom", {"margin": ours}, reference={"margin": theirs})
    assert value.mean == pytest.approx(20 / 21 * math.log(1e5))
    ours = {str(i): [0.0, 1.0 if i == 20 else 0.0] for i in range(21)}
    value = measure("klom", {"margin": ours}, reference={"margin": theirs})
    assert value.parts["percentile_95"] == pytest.approx(0.0, abs=1e-12)
    assert max(value.per_row.values()) == pytest.approx(0.5 * math.log(0.5) + 0.5 * math.log(5e4))


def test_halves_of_the_retrained_models_are_the_anchor():
    theirs = {"a": [0.0, 10.0, 0.0, 10.0]}
    value = measure("klom", {"margin": {"a": [0.0, 10.0]}}, reference={"margin": theirs})
    assert value.mean == 0.0
    assert value.parts["half_split"] == pytest.approx(math.log(1e5))
    three = measure("klom", {"margin": [[0.0, 1.0]]}, reference={"margin": [[0.0, 1.0, 1.0]]})
    assert "half_split" not in three.parts


def test_models_that_forgot_nothing_are_the_other_anchor():
    scores = {"margin": [[0.0, 1.0]], "original:margin": [[60.0, 60.0]]}
    value = measure("klom", scores, reference={"margin": [[0.0, 1.0]]})
    assert (value.mean, value.parts["original"]) == (0.0, pytest.approx(math.log(1e5)))


def test_one_model_is_no_distribution_and_that_is_said():
    value = measure("klom", {"margin": [[1.0]]}, reference={"margin": [[1.0, 2.0]]})
    assert value.mean is None
    assert "pool" in value.note


def test_a_margin_that_is_no_number_is_not_averaged_away():
    scores = {"margin": [[1.0, math.nan], [1.0, 2.0]]}
    value = measure("klom", scores, reference={"margin": [[1.0, 2.0], [1.0, 2.0]]})
    assert value.mean is None
    assert "1 of 2 rows are not a number" in value.note


def test_other_rows_are_refused_unless_allowed():
    ours, theirs = {"a": [1.0, 2.0], "b": [1.0, 2.0]}, {"a": [1.0, 2.0]}
    with pytest.raises(ExpungeError) as raised:
        measure("klom", {"margin": ours}, reference={"margin": theirs})
    assert raised.value.code == "E-DATA-013"
    value = measure("klom", {"margin": ours}, reference={"margin": theirs}, allow_unmatched=True)
    assert list(value.per_row) == ["a"]
    assert "1 of 2 rows" in value.note


def test_rows_of_fewer_models_are_refused():
    with pytest.raises(ExpungeError) as raised:
        measure("klom", {"margin": [[1.0, 2.0], [1.0]]}, reference={"margin": [[1.0, 2.0]] * 2})
    assert raised.value.code == "E-DATA-013"


def test_the_margin_of_given_logits():
    logits = torch.tensor([[2.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    found = margins(logits, torch.tensor([0, 0])).tolist()
    assert found[0] == pytest.approx(2 - math.log(2), abs=1e-6) == pytest.approx(1.306853, abs=1e-5)
    assert found[1] == pytest.approx(200 - math.log(2), abs=1e-4), "its probability rounds to 1"


def test_margins_of_a_model_are_its_log_odds_row_by_row_as_in_a_batch():
    tokenizer = tiny_tokenizer(TEXTS, vocab=300)
    model = tiny_model("llama", vocab=len(tokenizer))
    together = answer_margins(Subject(model, tokenizer), ROWS)
    for row in ROWS:
        (scored,) = Subject(model, tokenizer).score([row.turn])
        odds = scored.logp - np.log1p(-np.exp(scored.logp))
        assert together[row.id] == pytest.approx(odds.tolist(), abs=1e-4)
        assert together[row.id] == pytest.approx(
            answer_margins(Subject(model, tokenizer, batch_size=1), [row])[row.id], abs=1e-5
        )


def test_models_are_read_one_by_one_and_pooled():
    tokenizer = tiny_tokenizer(TEXTS, vocab=300)

    def read(seed, **params):
        subject = Subject(tiny_model("llama", vocab=len(tokenizer), seed=seed), tokenizer)
        measure_ = Measure(metric="klom", params=params)
        return Gathered(Models(model=subject), {"forget": ROWS}).scores(measure_)

    ours, theirs = pooled(map(read, range(4))), pooled(map(read, range(4, 8)))
    assert ours["margin"]["a"] == [read(seed)["margin"]["a"][0] for seed in range(4)]
    summed = read(0, over="sum")["margin"]["a"][0]
    assert summed == pytest.approx(ours["margin"]["a"][0] * len(answer_tokens(tokenizer)), rel=1e-5)
    value = measured("klom", ours, theirs).value
    assert 0.0 <= value.mean <= math.log(1e5)
    assert set(value.intervals) >= {"percentile_95", "half_split"}


def answer_tokens(tokenizer):
    subject = Subject(tiny_model("llama", vocab=len(tokenizer)), tokenizer)
    return subject.score([ROWS[0].turn])[0].logp


def test_pooling_models_read_on_other_rows_is_refused():
    with pytest.raises(ExpungeError) as raised:
        pooled([{"margin": {"a": [1.0]}}, {"margin": {"b": [1.0]}}])
    assert raised.value.code == "E-DATA-013"
    assert pooled([]) == {"margin": {}}


def test_more_bins_see_more():
    ours, theirs = [0.0, 1.0, 10.0], [0.0, 1.6, 10.0]
    assert klom(ours, theirs, bins=10) == 0.0 < klom(ours, theirs, bins=20)
    assert Params().bins == 20


def test_klom_conforms():
    check_metric("klom")
