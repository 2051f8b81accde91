"""FADE: closed forms, the estimate on models whose distributions are known, and what it needs."""

import math

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.lm.gather import Gathered, Models
from expunge.lm.samples import draw, rates
from expunge.lm.subject import Subject
from expunge.metrics.fade import DRAWN, Params, between, compute
from expunge.requests.rows import Row
from expunge.testing.metrics import check_metric, measure
from expunge.testing.tiny import tiny_model, tiny_tokenizer

ROW = Row(id="a", prompt="heads or tails", completion=" heads")
ROWS = [ROW, Row(id="b", prompt="tails or heads or tails", completion=" tails")]
TOKENIZER = tiny_tokenizer(["heads or tails tails or heads"], kind="word")
END, TOKEN = 2, 4


def coin(end: float, token: float, tokenizer=TOKENIZER) -> Subject:
    """A model that ends with probability ``end`` at every place, and else says one token."""
    model = tiny_model("llama", vocab=len(tokenizer), hidden=8, layers=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(0.0 if "proj" in name else 1.0)
        head = torch.full((len(tokenizer),), -1e4)
        head[END], head[TOKEN] = math.log(end), math.log(token)
        model.lm_head.weight.copy_(head[:, None].expand(-1, 8) / 8)
    return Subject(model, tokenizer)


def flat(values: float, count: int = 1) -> dict[str, list[list[float]]]:
    return {name: [[values] * count] for name in DRAWN}


def exact(p, q) -> tuple[float, float]:
    """Both directions of two distributions over one token."""
    forth = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    back = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return forth, back


def test_sampling_many_answers_gives_the_closed_form_within_a_hundredth():
    models = Models(model=coin(0.8, 0.2), reference=coin(0.5, 0.5))
    scores = Gathered(models, {"forget": [ROW]}).scores(
        Measure(metric="fade", params={"samples": 20_000, "new_tokens": 1})
    )
    value = measure("fade", scores)
    assert exact((0.8, 0.2), (0.5, 0.5)) == pytest.approx((0.1927, 0.2231), abs=1e-4)
    assert value.parts["says_otherwise"] == pytest.approx(0.1927, abs=0.01)
    assert value.parts["misses"] == pytest.approx(0.2231, abs=0.01)
    assert value.mean == pytest.approx(0.4159, abs=0.01)


def test_the_end_of_an_answer_is_one_of_its_tokens():
    # The models differ in nothing but how soon they end: without the end they would look alike.
    (samples,) = draw(coin(0.5, 0.5), [ROW.turn], samples=100, new_tokens=3, seed=0)
    found = rates(coin(0.9, 0.1), samples)
    expected = [
        (len(s.ids) * math.log(0.1) + bool(s.ends) * math.log(0.9)) / (len(s.ids) + bool(s.ends))
        for s in samples
    ]
    assert found == pytest.approx(expected, abs=1e-5)
    assert {len(s.ids) for s in samples} >= {0, 1, 2}
    assert any(not s.ends for s in samples), "some are cut off, and have no end to score"


def test_an_answer_that_may_end_in_two_ways_ends_with_the_sum_of_both():
    subject = coin(0.5, 0.5)
    subject.model.generation_config.eos_token_id = [END, TOKEN]
    (samples,) = draw(subject, [ROW.turn], samples=20, new_tokens=3, seed=0)
    assert {s.ids for s in samples} == {()}
    assert rates(subject, samples) == pytest.approx([0.0] * 20, abs=1e-6)


def test_a_model_is_at_no_distance_from_itself_exactly():
    model = tiny_model("llama", vocab=len(TOKENIZER), seed=3)
    value = _measured(Subject(model, TOKENIZER), Subject(model, TOKENIZER))
    assert value.mean == 0.0
    assert set(value.per_row.values()) == {0.0}


def test_long_answers_weigh_no_more_than_short_ones():
    scores = flat(-1.0, 2) | {"own_rate": [[-1.0, -2.0]], "own_rate_by_reference": [[-2.0, -5.0]]}
    assert measure("fade", scores).mean == pytest.approx((1.0 + 3.0) / 2)


def test_directions_are_told_apart():
    silent = flat(-1.0, 4) | {"reference_rate_by_model": [[-4.0] * 4]}
    value = measure("fade", silent)
    assert value.parts == {"says_otherwise": 0.0, "misses": 3.0}
    loud = measure("fade", flat(-1.0, 4) | {"own_rate_by_reference": [[-3.0] * 4]})
    assert loud.parts == {"says_otherwise": 2.0, "misses": 0.0}


def test_doing_nothing_is_the_anchor_and_the_ratio_compares_with_it():
    def distance(prefix, by):
        return {
            f"{prefix}own_rate": [[-1.0]],
            f"{prefix}own_rate_by_reference": [[-1.0 - by]],
            f"{prefix}reference_rate": [[-1.0]],
            f"{prefix}reference_rate_by_model": [[-1.0]],
        }

    value = measure(
        "fade", distance("", 3.0) | distance("original:", 2.0) | distance("floor:", 0.5)
    )
    assert value.mean == 3.0
    assert value.parts["original"] == 2.0
    assert value.parts["ratio"] == 1.5
    assert value.parts["floor"] == 0.5


def test_reading_with_the_original_gives_its_distance_too():
    value = _measured(coin(0.8, 0.2), coin(0.5, 0.5), original=coin(0.5, 0.5), samples=64)
    assert value.parts["original"] == 0.0
    assert "ratio" not in value.parts, "nothing is divided by no distance"
    assert value.mean > 0.1


def test_two_references_give_the_floor():
    found = between(coin(0.5, 0.5), coin(0.5, 0.5), ROWS, Params())
    assert set(found) == set(DRAWN)
    scores = found | {f"floor:{name}": values for name, values in found.items()}
    assert compute(scores, Params()).parts["floor"] == 0.0


def test_the_seed_alone_decides_what_is_drawn():
    ours = draw(coin(0.5, 0.5), [ROW.turn], samples=64, new_tokens=4, seed=0)
    again = draw(coin(0.5, 0.5), [ROW.turn], samples=64, new_tokens=4, seed=0)
    assert ours == again
    assert ours != draw(coin(0.5, 0.5), [ROW.turn], samples=64, new_tokens=4, seed=1)


def test_without_a_reference_it_says_so_and_reads_nothing():
    gathered = Gathered(Models(model=coin(0.5, 0.5)), {"forget": ROWS})
    scores = gathered.scores(Measure(metric="fade"))
    value = measure("fade", scores)
    assert value.mean is None
    assert value.note.startswith("not measurable")


def test_models_with_other_tokens_are_refused():
    other = tiny_tokenizer(["heads or tails or neither"], kind="word")
    with pytest.raises(ExpungeError) as raised:
        _measured(coin(0.5, 0.5), coin(0.5, 0.5, tokenizer=other))
    assert raised.value.code == "E-MODEL-011"


def test_likelihoods_of_other_samples_are_refused():
    with pytest.raises(ExpungeError) as raised:
        measure("fade", flat(-1.0, 3) | {"own_rate_by_reference": [[-1.0, -1.0]]})
    assert raised.value.code == "E-DATA-013"


def test_too_few_samples_are_refused():
    with pytest.raises(ExpungeError):
        measure("fade", flat(-1.0), samples=7)


def test_fade_conforms():
    check_metric("fade")


def _measured(model, reference, original=None, samples=8):
    models = Models(model=model, reference=reference, original=original)
    scores = Gathered(models, {"forget": ROWS}).scores(
        Measure(metric="fade", params={"samples": samples, "new_tokens": 6})
    )
    return measure("fade", scores)


def test_answers_reach_the_result_for_every_row():
    value = _measured(coin(0.8, 0.2), coin(0.5, 0.5))
    assert set(value.per_row) == {"a", "b"}
