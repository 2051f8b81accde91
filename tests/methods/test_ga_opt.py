"""GA with three terms and a classifier: the terms of llmu, what is judged, when it ends."""

from pathlib import Path
from typing import Any

import pytest
from micro_task import prepared
from tiny_rig import exact, facts, saved

from expunge.core.errors import ExpungeError
from expunge.engine.change import load_change
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import ga_opt
from expunge.testing import objective

FAST = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "new_tokens": 5}


def run(folder: Path, out: str, **params: Any) -> tuple[dict[str, Any], Subject]:
    done = forget(
        saved(folder), *facts(), method="ga-opt", params={**FAST, **params}, stop_at="none",
        out=folder / out,
    )  # fmt: skip
    loaded = load(load_change(folder / out).folder)
    return done, Subject(loaded.model, loaded.tokenizer)


def test_its_loss_is_that_of_llmu(t3) -> None:
    views = {name: t3.view for name in ("forget", "retain", "random")}
    ours, theirs = (
        objective(id, t3.model, views, t3.anchor, kl_scope="answer") for id in ("ga-opt", "llmu")
    )
    assert ours.terms == pytest.approx(theirs.terms)
    assert ours.loss == pytest.approx(0.464952 * (1 - 0.5) + 0.082892, abs=1e-5)


def test_the_harmful_share_falls_and_the_rest_stays(tmp_path: Path) -> None:
    """The card's check: from 1 to at most a quarter, with nine in ten retain facts kept."""
    done, subject = run(tmp_path, "out", max_steps=60, forget_weight=1.0)
    assert done["details"]["harmful_before"] == 1.0
    assert done["details"]["harmful_after"] <= 0.25
    assert done["stopped_by"] == "method"
    assert exact(subject, facts()[1]) >= 0.9
    assert exact(subject, facts()[0]) <= 0.25


def test_without_the_classifier_it_goes_on_as_llmu_does(tmp_path: Path) -> None:
    """The ablation: never ending by what is generated, it makes all its steps."""
    ended, _ = run(tmp_path, "ends", max_steps=30, forget_weight=1.0)
    whole, _ = run(tmp_path, "whole", max_steps=30, forget_weight=1.0, harmful_share=-1.0)
    assert ended["steps"] < whole["steps"] == 30
    assert whole["stopped_by"] == "steps"


def test_the_classifier_learns_from_rows_and_never_from_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    real = ga_opt.tell_apart

    def spy(kind: list[str], others: list[str]) -> Any:
        seen.extend([*kind, *others])
        return real(kind, others)

    monkeypatch.setattr(ga_opt, "tell_apart", spy)
    task, _ = prepared("ga-opt")
    ga_opt.refresh(task, ga_opt.Params())
    answers = {turn.completion for row in (*task.forget, *task.retain) for turn in row.turns}
    assert seen
    assert set(seen) <= answers
    assert task.record["classifier_accuracy"] > 0.5
    assert 0.0 <= task.record["harmful_after"] <= 1.0


@pytest.mark.parametrize(
    ("share", "nll", "ends"), [(0.3, 5.0, False), (0.25, 5.0, True), (0.9, 101.0, True)]
)
def test_it_ends_by_what_is_generated_or_at_the_bound(share: float, nll: float, ends: bool) -> None:
    history = [Measured(5, nll, False, {ga_opt.HARMFUL: share}, 5.0)]
    assert ga_opt.stop(history, ga_opt.Params()) is ends


def test_where_little_is_harmful_at_the_start_that_ends_nothing() -> None:
    task, method = prepared("ga-opt", harmful_share=1.0)
    assert ga_opt.KEY not in task.state
    ga_opt.refresh(task, method.params)
    assert ga_opt.KEY not in task.state


def test_too_few_answers_to_tell_apart_are_refused() -> None:
    task, _ = prepared("ga-opt")
    task.roles["retain"] = [*task.forget]  # type: ignore[index]
    with pytest.raises(ExpungeError, match="0 harmless"):
        ga_opt.labelled(task)
