"""Budgets with every gradient method, the watch on the way, and models that collapse."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.measure import Level, collapsed
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.testing.methods import stage, world

GRADIENT = [card.id for card in methods.cards() if card.kind == "gradient"]
STOPS = ("placebo", "reference", "none")
HARD = {"lr": 1e-2, "max_steps": 20, "warmup": 0}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, **options: Any) -> dict[str, Any]:
    rows = world()
    options = {"stop_at": "none", **options}
    return forget(original, rows.forget, rows.retain, holdout=rows.holdout, out=out, **options)


def manifest_of(out: Path) -> dict[str, Any]:
    manifest = read_manifest(out)
    assert manifest is not None
    return dict(manifest)


@pytest.mark.parametrize("method_id", GRADIENT)
def test_the_time_allowed_ends_any_method_in_good_order(
    method_id: str, original: Path, tmp_path: Path
) -> None:
    stop_at = STOPS[GRADIENT.index(method_id) % len(STOPS)]
    done = run(
        original, tmp_path / "out", method=method_id, params={"lr": 1e-4, "warmup": 0},
        max_minutes=0.0, utility_budget=1.0, stop_at=stop_at, reference=original,
    )  # fmt: skip
    assert done["stopped_by"] in ("max-minutes", "level")
    assert done["steps"] == 1
    assert done["collapsed"] is (
        method_id == "uld"
    )  # an assistant that learnt nothing is taken off
    assert load_change(tmp_path / "out").folder == tmp_path / "out"
    manifest = manifest_of(tmp_path / "out")
    assert manifest["budgets"] == {"utility": 1.0, "minutes": 0.0}
    assert manifest["stop"]["at"]["kind"] == stop_at
    assert (manifest["stop"]["level"] is None) == (stop_at == "none")


@pytest.mark.parametrize("method_id", GRADIENT)
def test_at_the_level_any_method_rests_or_ends(
    method_id: str, original: Path, tmp_path: Path
) -> None:
    params = {"lr": 1e-3, "warmup": 0, "max_steps": 3}
    done = run(original, tmp_path / "out", method=method_id, params=params, stop_at="nll=0.001")
    manifest = manifest_of(tmp_path / "out")
    first, *others = manifest["history"]
    assert manifest["stop"]["level"]["nll"] == 0.001
    if methods.card(method_id).extra.get("through"):
        assert (done["stopped_by"], done["steps"]) == ("steps", 3)
        return
    assert first["is_level"]
    assert done["stopped_by"] == "level" or len(others) == 2
    assert all(measured["terms"]["forget"] == 0.0 for measured in others)


def test_what_damages_ends_at_the_first_measurement_over_the_budget(
    original: Path, tmp_path: Path
) -> None:
    """Nothing brings the retain rows back, so the steps that are left are not made."""
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "out", method="ga", params=HARD, utility_budget=0.0)
    assert (caught.value.code, caught.value.exit_code) == ("E-RUN-003", 6)
    assert "after 1 steps" in caught.value.found
    assert not (tmp_path / "out" / "change.json").exists()


def test_what_keeps_nothing_ends_inside_a_budget_that_lasts_a_few_steps(
    original: Path, tmp_path: Path
) -> None:
    given = {"method": "ga", "params": {"lr": 3e-4, "max_steps": 40, "warmup": 0}}
    done = run(original, tmp_path / "out", **given, utility_budget=0.5)
    free = run(original, tmp_path / "free", **given)
    assert (done["stopped_by"], free["stopped_by"]) == ("utility-budget", "steps")
    assert 0.2 < done["utility_drop"] <= 0.5 < free["utility_drop"]


def test_a_method_that_keeps_something_stays_inside_a_budget_it_would_break(
    original: Path, tmp_path: Path
) -> None:
    """While the retain rows are over the budget the forget term rests."""
    given = {"method": "npo", "params": {"lr": 3e-3, "max_steps": 80, "warmup": 0}}
    free = run(original, tmp_path / "free", **given)
    kept = run(original, tmp_path / "kept", **given, utility_budget=0.05)
    assert free["utility_drop"] > 0.08
    assert kept["utility_drop"] < 0.02
    assert kept["forget_nll"] > 2 * kept["before"]["forget_nll"]
    history = manifest_of(tmp_path / "kept")["history"]
    rests = [after["terms"] for now, after in pairwise(history) if now["is_spent"]]
    assert rests
    assert all(terms["forget"] == 0.0 for terms in rests)
    assert all(now["utility_drop"] is not None for now in history)
    assert {now["utility_drop"] for now in manifest_of(tmp_path / "free")["history"]} == {None}


def test_a_collapsed_model_is_reported_as_such(original: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    with listening(heard.append):
        broken = run(original, tmp_path / "ga", method="ga", params=HARD)
    assert broken["collapsed"] is True
    assert manifest_of(tmp_path / "ga")["summary"]["collapsed"] is True
    assert any("collapsed" in event.text and "not forgotten" in event.text for event in heard)
    gentle = {"lr": 3e-3, "max_steps": 200, "warmup": 0}
    whole = run(original, tmp_path / "npo", method="npo", params=gentle, stop_at="placebo")
    assert whole["collapsed"] is False
    assert whole["forget_nll"] > whole["before"]["forget_nll"] + 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0.1, 1.0), (0.2, 0.51), False),
        ((0.1, 1.0), (0.2, 0.49), True),
        ((0.1, 1.0), (4.7, 0.9), True),
        ((0.1, 1.0), (4.5, 0.9), False),
        ((5.0, 0.1), (5.1, 0.1), False),
        ((5.0, 0.0), (5.1, 0.0), False),
    ],
)
def test_it_collapsed_who_lost_half_or_guesses(before, after, expected: bool) -> None:
    """A guess among 100 tokens costs 4.6 nats."""
    levels = [Level(nll, accuracy, ()) for nll, accuracy in (before, after)]
    assert collapsed(*levels, vocabulary=100) is expected


@pytest.mark.parametrize(
    ("limit", "nll", "expected"),
    [("auto", 4.5, False), ("auto", 4.7, True), (2.0, 1.9, False), (2.0, 2.1, True),
     (None, 99.0, False)],
)  # fmt: skip
def test_ascent_ends_where_it_was_told_to(limit, nll: float, expected: bool) -> None:
    params = methods.params("ga", {"max_forget_nll": limit})
    history = [Measured(9, nll, False, {}, guessing=4.6)]
    ends = GradientMethod.assemble(methods.load("ga"), params).stop
    assert ends(history, params) is expected


def test_ascent_ends_at_a_guess_before_its_last_step(original: Path, tmp_path: Path) -> None:
    ended = run(original, tmp_path / "auto", method="ga", params=HARD)
    on = run(original, tmp_path / "none", method="ga", params={**HARD, "max_forget_nll": "none"})
    assert (ended["stopped_by"], on["stopped_by"]) == ("method", "steps")
    assert ended["steps"] < on["steps"] == HARD["max_steps"]
    assert ended["forget_nll"] < on["forget_nll"]
