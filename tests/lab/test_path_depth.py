"""Depth of forgetting: its arithmetic by hand, and one small run of two histories."""

import json
from dataclasses import replace

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.lab.path_dependence import Stage
from expunge.lab.path_depth import ORDERS, Levels, Trial, Verdict, ascend, depths, levels
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

NUMBERS = ("one", "two", "three", "four")
SAID = {"C": " take {n} away", "U": " try {n} first now", "R": " no"}
START = Levels(C=-5.0, U=-4.0, R=-3.0)


def answered(name):
    return [
        Row(id=f"{name}{n}", role="forget", prompt=f"open {n}", completion=SAID[name].format(n=n))
        for n in NUMBERS
    ]


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    base = tmp_path_factory.mktemp("depth") / "base"
    texts = [f"{row.prompt}{row.completion}" for name in SAID for row in answered(name)]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=64)
    tiny_model("llama", vocab=len(tokenizer), seed=0, positions=32).save_pretrained(base)
    tokenizer.save_pretrained(base)
    return Trial(
        base=base,
        stages={name: Stage(rows=answered(name), epochs=5, lr=5e-3) for name in SAID},
        lr=1e-2,
        epochs=4,
        orders=(("U", "C", "R"), ("R", "C", "U")),
        seeds=(0,),
        batch_size=2,
    )


def subject_of(trial):
    loaded = load(trial.base)
    return Subject(loaded.model, loaded.tokenizer)


def ended(c, u, r):
    return Verdict([START, Levels(C=-5.0 + c, U=-4.0 + u, R=-3.0 + r)])


@pytest.mark.parametrize(
    ("change", "depth"),
    [
        ((-1.0, -2.0, 0.5), "deep"),
        ((-1.0, -2.0, -9.0), "deep"),
        ((0.0, -2.0, 0.5), "superficial"),
        ((0.5, -2.0, 0.0), "superficial"),
        ((0.5, -2.0, -0.5), "astray"),
        ((-3.0, 0.0, -3.0), "held"),
        ((-3.0, 1.0, -3.0), "held"),
    ],
)
def test_deep_is_c_falling_with_u_and_superficial_is_u_falling_alone(change, depth):
    assert ended(*change).depth == depth


def test_a_verdict_compares_the_end_with_the_beginning():
    """Half way C was below where it began; at the end it is not."""
    dip = Levels(C=-9.0, U=-5.0, R=-3.0)
    verdict = Verdict([START, dip, Levels(C=-4.5, U=-6.0, R=-3.0)])
    assert verdict.change == Levels(C=0.5, U=-2.0, R=0.0)
    assert verdict.depth == "superficial"


def test_c_is_read_on_the_line_to_the_first_epoch_in_which_u_has_fallen_enough():
    falls = [(-5.0, -4.0), (-5.5, -5.0), (-8.5, -8.0), (-2.0, -5.0), (-1.0, -9.0)]
    verdict = Verdict([Levels(C=c, U=u, R=-3.0) for c, u in falls])
    assert verdict.kin_at(1.0) == pytest.approx(-0.5)
    assert verdict.kin_at(2.0) == pytest.approx(-1.5)
    assert verdict.kin_at(4.0) == pytest.approx(-3.5)
    assert verdict.kin_at(5.0) == pytest.approx(4.0)
    assert verdict.kin_at(5.1) is None


def test_the_six_histories_are_all_there_are():
    assert len(set(ORDERS)) == 6
    assert {tuple(sorted(order)) for order in ORDERS} == {("C", "R", "U")}
    assert sum(order[0] == "U" for order in ORDERS) == 2


def test_levels_are_whole_answers_averaged_over_prompts(trial):
    subject = subject_of(trial)
    one = replace(trial.stages["C"], rows=trial.stages["C"].rows[:1])
    two = replace(trial.stages["C"], rows=trial.stages["C"].rows[1:2])
    both = replace(trial.stages["C"], rows=trial.stages["C"].rows[:2])
    first, second, mean = (levels(subject, {**trial.stages, "C": s}).C for s in (one, two, both))
    assert mean == pytest.approx((first + second) / 2)
    scored = subject.score([one.rows[0].turn])[0]
    assert len(scored.logp) > 2
    assert first == pytest.approx(scored.logp.sum())


def test_the_ascent_is_a_plain_step_against_the_likelihood_of_u(trial):
    """One step on one batch: weight - lr * gradient of the token mean, nothing remembered."""
    one = replace(trial, epochs=1, batch_size=4)
    subject = subject_of(one)
    turns = [row.turn for row in one.stages["U"].rows]
    weight = subject.model.get_output_embeddings().weight
    before = weight.detach().clone()
    encoded = [subject.encoder.encode(turn) for turn in turns]
    total, tokens = torch.zeros(()), 0
    for item in encoded:
        logp = subject.model(input_ids=torch.tensor([item.ids])).logits.log_softmax(-1)[0]
        for at in range(1, len(item.ids)):
            if item.labels[at] != -100:
                total, tokens = total + logp[at - 1, item.ids[at]], tokens + 1
    gradient = torch.autograd.grad(total / tokens, weight)[0]
    for _ in ascend(subject, one, seed=0):
        pass
    assert torch.allclose(weight.detach(), before - one.lr * gradient, atol=1e-6)
    assert not torch.allclose(weight.detach(), before, atol=1e-6)


def test_a_run_weighs_every_epoch_and_comes_out_the_same_again(trial, tmp_path):
    found = depths(trial, tmp_path)
    assert set(found) == {"U-C-R/0", "R-C-U/0"}
    for verdict in found.values():
        assert len(verdict.track) == 5
        assert verdict.change.U < 0
    # What was learned last is the likeliest before anything is forgotten.
    first, last = found["U-C-R/0"].track[0], found["R-C-U/0"].track[0]
    assert first.R > last.R
    assert last.U > first.U
    written = json.loads((tmp_path / "depth-0.01.json").read_text())
    assert written["R-C-U/0"]["depth"] == found["R-C-U/0"].depth
    assert written["R-C-U/0"]["track"][0]["U"] == pytest.approx(last.U)
    assert depths(trial, tmp_path) == found


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_rate_that_is_far_too_high_is_an_error_and_not_a_verdict(trial, epochs, tmp_path):
    """After a single step as well: no later step would notice what it left behind."""
    much = replace(trial, lr=1e30, epochs=epochs, batch_size=4, orders=(("U", "C", "R"),))
    with pytest.raises(ExpungeError) as error:
        depths(much, tmp_path)
    assert error.value.code == "E-RUN-002"


@pytest.mark.parametrize("wrong", ["order", "prompts", "stage"])
def test_three_answers_to_the_same_prompts_are_wanted(trial, wrong, tmp_path):
    stages = dict(trial.stages)
    orders = trial.orders
    if wrong == "order":
        orders = (("U", "C"),)
    elif wrong == "prompts":
        stages["R"] = replace(stages["R"], rows=list(reversed(stages["R"].rows)))
    else:
        stages["S"] = stages.pop("R")
    with pytest.raises(ExpungeError) as error:
        depths(replace(trial, stages=stages, orders=orders), tmp_path)
    assert error.value.code == "E-USE-006"
