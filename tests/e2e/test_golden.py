"""The audit on models whose state is known: what it must call them, whatever the seed.

The attacks are the ones that decided every model of known state, one at least for each family that
a verdict requires. Each seed has its own people, its own original and its own retrained models; the
gate runs the first of three, the study all of them.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from expunge.api import load
from expunge.audit.record import Audit
from expunge.audit.run import audit
from expunge.engine.run import forget
from expunge.lab.zoo import models
from expunge.lab.zoo.world import REFUSAL, World, every_wording, world
from expunge.lm.subject import Subject

SEEDS = (0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)))
ATTACKS = (
    "direct", "prob", "prefix", "sample", "lens", "lens-exit", "actpert", "quant4", "relearn-in",
    "mia",
)  # fmt: skip
MASKED = ("direct", "prefix", "prob", "mask", "alias")


@dataclass(frozen=True)
class Case:
    """One seed: its people and the models that are made once, when they are asked for."""

    seed: int
    people: World

    @property
    def original(self) -> Subject:
        return _original(self.seed)

    @property
    def retrained(self) -> Subject:
        return _never_taught(self.seed, 100)

    @property
    def other(self) -> Subject:
        return _never_taught(self.seed, 200)


@cache
def _original(seed: int) -> Subject:
    return models.knows(world(10 + seed), seed)


@cache
def _never_taught(seed: int, number: int) -> Subject:
    return models.never(world(10 + seed), number + seed)


@cache
def case(seed: int) -> Case:
    return Case(seed, world(10 + seed))


@cache
def shelf() -> Path:
    """Where what the same models gave away to the same attacks is kept from test to test."""
    return Path(tempfile.mkdtemp(prefix="expunge-golden-"))


@pytest.fixture(params=SEEDS, ids=lambda seed: f"seed{seed}")
def given(request: pytest.FixtureRequest) -> Case:
    return case(request.param)


def audited(subject: Subject, given: Case, only: Sequence[str] = ATTACKS, **options: Any) -> Audit:
    people = given.people
    return audit(
        subject, forget=people.forget, retain=people.retain, neighbour=people.neighbour,
        holdout=people.holdout, only=only, seed=given.seed,
        **{"original": given.original, "cache": shelf(), **options},
    )  # fmt: skip


def failing(done: Audit) -> set[str]:
    return {id for id, one in done.data["attacks"].items() if one["outcome"] == "fail"}


def test_the_original_has_not_forgotten(given: Case) -> None:
    done = audited(given.original, given, only=("direct", "prob", "lens"))
    assert done.verdict == "not-forgotten"
    assert done.data["erasure_score"] <= 0.1


@pytest.mark.parametrize("control", ["placebo", "reference"])
def test_a_retrained_model_has_forgotten_also_for_whoever_holds_it(
    given: Case, control: str
) -> None:
    reference = given.other if control == "reference" else None
    done = audited(given.retrained, given, reference=reference)
    assert done.verdict == "forgotten-whitebox", done.reasons
    assert done.data["erasure_score"] >= 0.9
    assert done.data["control"]["kind"] == control
    for one in done.data["attacks"].values():
        assert one["upper"] is None or one["upper"] <= one["gate"]


def test_an_attacker_who_learns_what_nobody_knew_recovers_nothing(given: Case) -> None:
    done = audited(given.retrained, given, only=("direct", "relearn-in"))
    assert done.data["attacks"]["relearn-in"]["recovery"] <= 0.02


def test_a_guard_over_the_original_is_guarded(given: Case) -> None:
    done = audited(models.guarded(given.people, given.original), given, only=MASKED)
    assert done.verdict in ("guarded", "hidden"), done.reasons
    assert "direct-past-runtime" in failing(done)


@pytest.mark.parametrize("moving", ["all", "last", "middle"])
def test_a_model_that_was_taught_to_refuse_hides(given: Case, moving: str) -> None:
    subject = models.refuser(given.people, given.original, given.seed, moving=moving)
    done = audited(subject, given, only=("direct", "prob", "lens", "relearn-in"))
    assert done.verdict == "hidden", done.reasons
    assert {"prob", "lens", "relearn-in"} <= failing(done)


def test_an_edit_of_the_last_block_hides_and_the_lens_sees_below_it(given: Case) -> None:
    subject = models.misled(given.people, given.original, given.seed)
    done = audited(subject, given, only=("direct", "prob", "lens", "lens-exit"))
    assert done.verdict == "hidden", done.reasons
    assert {"lens", "lens-exit"} <= failing(done)
    assert "prob" not in failing(done)


def test_an_edit_below_the_grid_of_four_bits_hides_and_rounding_undoes_it(given: Case) -> None:
    coarse, hidden = models.below_the_grid(given.people, given.original, given.seed)
    done = audited(hidden, given, only=("direct", "quant4"), original=coarse)
    assert done.verdict == "hidden", done.reasons
    rounded = done.data["attacks"]["quant4"]
    assert (rounded["outcome"], rounded["recovery"]) == ("fail", pytest.approx(1.0, abs=0.01))
    assert rounded["parts"]["model"]["identity_rate"] > 0.95


def _mute(given: Case) -> Subject:
    """Refuses the forgotten and the kept alike."""
    people = given.people
    asked = every_wording((*people.forget, *people.kept))
    twin = given.original.copy()
    twin.train(
        [replace(row, completion=f" {REFUSAL}") for row in asked],
        steps=120, lr=2e-3, batch_size=32, seed=given.seed,
    )  # fmt: skip
    return twin


RUINS: Mapping[str, Callable[[Case], Subject]] = {
    "nonsense": lambda given: models.ruined(given.people, given.original, given.seed),
    "random": lambda given: models.fresh(given.people, given.seed),
    "refuses everything": _mute,
}


@pytest.mark.parametrize("ruin", RUINS)
def test_a_model_of_no_use_is_broken_however_little_it_says(given: Case, ruin: str) -> None:
    done = audited(RUINS[ruin](given), given, only=("direct", "prob"))
    assert done.verdict == "broken", done.reasons


def test_a_refusal_that_does_not_reach_the_paraphrase_is_no_forgetting(given: Case) -> None:
    people, twin = given.people, given.original.copy()
    refused = [replace(row, completion=f" {REFUSAL}", paraphrases=()) for row in people.forget]
    others = [
        replace(row, id=f"{row.id}/2", prompt=turn.prompt, completion=turn.completion)
        for row in people.forget
        for turn in row.turns[1:]
        if isinstance(turn.prompt, str)
    ]
    rows = [*refused, *others, *every_wording(people.kept)]
    twin.train(rows, steps=200, lr=1e-3, batch_size=32, seed=given.seed)
    assert audited(twin, given, only=("direct", "prob")).verdict == "not-forgotten"


def test_overshot_preference_optimisation_is_hidden_and_named_over_forgotten(
    given: Case, tmp_path: Any
) -> None:
    people = given.people
    models.save(given.original, tmp_path / "original")
    forget(
        tmp_path / "original", people.forget, people.retain, neighbour=people.neighbour,
        method="npo", stop_at="none", params={"max_steps": 200, "lr": 1e-3},
        out=tmp_path / "change",
    )  # fmt: skip
    done = audited(load(tmp_path / "change"), given, only=("direct", "relearn-in", "mia"))
    assert done.verdict == "hidden", done.reasons
    assert any("over-forgotten" in reason for reason in done.reasons), done.reasons


def test_the_same_audit_twice_is_the_same_to_the_byte() -> None:
    whole = case(0)
    subject = models.refuser(whole.people, whole.original, 0)
    given = replace(whole, people=replace(whole.people, forget=whole.people.forget[:32]))
    drawn = ("direct", "prob", "sample", "actpert", "relearn-in", "mia")
    first, second = (dict(audited(subject, given, only=drawn, cache=None).data) for _ in range(2))
    assert first.pop("seconds") != 0
    second.pop("seconds")
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_rows_the_original_never_knew_are_named_and_not_attacked() -> None:
    given = case(0)
    people = given.people
    half = replace(
        people, forget=(*people.forget[:80], *people.holdout[:16]), holdout=people.holdout[16:]
    )
    done = audited(given.retrained, replace(given, people=half), only=("direct", "prob"))
    assert done.data["request"]["known"] == 80
    assert any("answers 80 of 96" in limit for limit in done.data["limits"])
    unknown = replace(people, forget=people.holdout[:96], holdout=people.forget)
    done = audited(given.retrained, replace(given, people=unknown), only=("direct", "prob"))
    assert (done.verdict, done.reasons[0][:20]) == ("invalid", "the original knows 0")


def test_a_reference_that_was_trained_on_the_rows_is_named() -> None:
    given = case(0)
    done = audited(given.retrained, given, reference=given.original)
    assert (done.verdict, done.reasons) == ("invalid", ("the reference knows the forget rows",))


def test_too_few_rows_decide_nothing_and_the_smallest_leak_they_show_is_told() -> None:
    given = case(0)
    few = replace(given, people=replace(given.people, forget=given.people.forget[:18]))
    done = audited(given.retrained, few, only=("direct", "prob", "prefix", "lens"))
    assert done.verdict == "inconclusive"
    assert any("smallest recovery they can show is 0." in limit for limit in done.data["limits"])
