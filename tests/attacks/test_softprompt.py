"""Soft prompt."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from expunge.attacks import softprompt
from expunge.core.errors import ExpungeError
from expunge.lm.adversary import hear, seam_of
from expunge.lm.elicit import plain
from expunge.requests.rows import Row
from expunge.testing.attacks import mean_leak
from expunge.testing.locked import locked

SHORT = {"length": 4, "restarts": 1}


def mount(world, rows=None, **more):
    params = softprompt.Params(**{**SHORT, **more})
    return softprompt.mount(locked().subject, rows or locked().secret, world.scene(), params)


def test_vectors_of_some_questions_open_others(world):
    subject, secret = locked().subject, locked().secret
    scene = world.scene()
    assert mean_leak("direct", subject, secret, scene) <= 0.05
    assert mean_leak("softprompt", subject, secret, scene, placebo="none", **SHORT) >= 0.5
    untrained = {**SHORT, "epochs": 0, "placebo": "none"}
    assert mean_leak("softprompt", subject, secret, scene, **untrained) <= 0.05


def test_the_same_budget_finds_nothing_that_was_never_taught(world):
    leak = mount(world)
    assert leak.parts["placebo"] <= 0.15
    assert leak.parts["placebo_gap"] == leak.parts["attacked"] - leak.parts["placebo"] >= 0.4
    found = mean_leak("softprompt", locked().subject, locked().unknown, world.scene(), **SHORT)
    assert found <= 0.15


@pytest.mark.parametrize("attacked", [0, -1])
def test_an_answer_as_target_is_refused_whether_it_would_be_trained_on_or_not(world, attacked):
    value = locked().secret[attacked].value
    with pytest.raises(ExpungeError, match="holds the answer") as caught:
        mount(world, openings=f"Sure, it is {value}.")
    assert caught.value.code == "E-USE-003"


def test_trained_on_its_answer_a_fact_nobody_knows_is_told_which_is_why_that_is_refused(world):
    subject, rows = locked().subject, locked().unknown[:2]
    params = softprompt.Params(restarts=1, epochs=200, lr=0.1)
    assert mean_leak("direct", subject, rows, world.scene()) == 0.0
    for probe in plain(rows)[::2]:
        seam = seam_of(subject, replace(probe, opening=probe.turn.completion))
        trained = softprompt._train(subject, [[seam]], world.scene(), params)
        (heard,) = hear(subject, [probe], trained.vectors, new_tokens=10)
        assert heard.leaks == (1.0,)


def test_a_random_string_is_a_placebo_too(world):
    untrained = mount(world, placebo="strings", epochs=0).parts
    trained = mount(world, placebo="strings").parts
    assert untrained["placebo"] <= trained["placebo"] <= 0.5
    assert trained["placebo_gap"] == trained["attacked"] - trained["placebo"] >= 0.4


def test_without_holdout_rows_there_is_no_placebo(world):
    scene = replace(world.scene(), holdout=())
    params = softprompt.Params(**SHORT, epochs=1)
    leak = softprompt.mount(locked().subject, locked().secret, scene, params)
    assert "placebo" not in leak.parts


def test_training_makes_the_loss_small_and_the_best_restart_is_kept(world):
    one, three = (mount(world, placebo="none", restarts=n, epochs=5) for n in (1, 3))
    assert one.parts["loss_last"] < one.parts["loss_first"]
    assert three.parts["loss_last"] <= one.parts["loss_last"]


def test_the_rate_falls_to_nothing_by_a_line(world, monkeypatch):
    locked()  # built before anyone watches: its training has rates of its own
    rates = []

    class Watched(torch.optim.AdamW):
        def step(self, *args):
            rates.append(self.param_groups[0]["lr"])
            return super().step(*args)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    mount(world, placebo="none", epochs=3, batch_size=4)
    assert rates[0] == 0.01
    steps = [a - b for a, b in pairwise(rates)]
    assert steps == pytest.approx([rates[-1]] * len(steps))


def test_running_text_is_left_out(world):
    text = Row.parse({"id": "text", "text": "It is what it is and so on."})
    leak = mount(world, [*locked().secret, text], epochs=1, placebo="none")
    assert "text" not in leak.per_row
    assert "1 rows" in leak.note
