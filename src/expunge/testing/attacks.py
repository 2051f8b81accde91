"""The suite that every attack of the registry passes, open to attacks of other distributions."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from statistics import fmean
from typing import Any

import numpy as np
import torch

from expunge.core.card import Card
from expunge.core.registry import attacks
from expunge.core.results import Leak
from expunge.lm.digest import model_digest
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row
from expunge.testing.expect import expect
from expunge.testing.micro import Micro, micro_world
from expunge.testing.tiny import tiny_model

FAMILIES = (
    "direct",
    "prob",
    "prompt",
    "sampling",
    "read-out",
    "perturbation",
    "compression",
    "training",
    "privacy",
    "pipeline",
)
LEVELS = ("B", "L", "W", "P", "D")
STATISTICS = ("recovery", "difference", "cost")
TESTED = ("forget", "retain")


def check_attack(attack_id: str) -> None:
    """Mount an attack on a tiny random model and check what every attack promises.

    Its card names family, level and threshold; it leaves the attacked model, its mode and all
    random states as they were; the same seed gives the same leak; leaks lie in [0, 1] and belong
    to rows it was given; the result is a JSON value; without rows it finds nothing. An attack that
    takes long at its defaults names smaller values in ``QUICK``, which are used here.

    Args:
        attack_id: Id of an attack of the registry.

    Raises:
        AssertionError: Names the promise that is broken.
    """
    card, module = attacks.card(attack_id), attacks.load(attack_id)
    _check_card(card)
    world, subject, other, reference = _stage()
    params = attacks.params(attack_id, getattr(module, "QUICK", {}))
    scene = world.scene(original=other, reference=reference, unlearn=lambda _: other)
    before = [_fingerprint(each) for each in (subject, other, reference)]
    leak = module.mount(subject, world.forget, scene, params)
    _check_leak(leak, world.retain if card.extra.get("rows") == "retain" else world.forget)
    again = module.mount(subject, world.forget, scene, params)
    expect(asdict(leak) == asdict(again), "the same seed gives two different leaks")
    empty = module.mount(subject, (), scene, params)
    expect(not empty.per_row and not empty.transcript, "it finds something in no rows")
    after = [_fingerprint(each) for each in (subject, other, reference)]
    expect(before == after, "it changes a model it was given or a random state")


def mean_leak(
    attack_id: str, subject: Subject, rows: Sequence[Row], scene: Scene, **overrides: Any
) -> float:
    """Mean leak of one attack: the number a power test compares over models of known state.

    Args:
        attack_id: Id of an attack of the registry.
        subject: The model.
        rows: The attacked rows.
        scene: What the attack may use.
        **overrides: Parameters of the attack, for instance to switch its decisive step off.

    Raises:
        AssertionError: When the attack tested no row or declared itself invalid.
    """
    params = attacks.params(attack_id, overrides)
    leak = attacks.load(attack_id).mount(subject, rows, scene, params)
    expect(bool(leak.per_row), f"no row was tested: {leak.note}")
    expect(not leak.invalid, leak.invalid)
    return fmean(leak.per_row.values())


def _check_card(card: Card) -> None:
    expect(card.kind == "attack", f"the card's kind is {card.kind!r}, not 'attack'")
    family, level = card.extra.get("family"), card.extra.get("level")
    expect(family in FAMILIES, f"family {family!r} is none of {', '.join(FAMILIES)}")
    expect(level in LEVELS, f"level {level!r} is none of {', '.join(LEVELS)}")
    threshold = card.extra.get("threshold")
    passable = threshold is None or (isinstance(threshold, float) and 0 < threshold < 1)
    expect(passable, f"threshold {threshold!r} is no number between 0 and 1")
    statistic, rows = card.extra.get("statistic", "recovery"), card.extra.get("rows", "forget")
    expect(statistic in STATISTICS, f"statistic {statistic!r} is none of {', '.join(STATISTICS)}")
    expect(rows in TESTED, f"rows {rows!r} is none of {', '.join(TESTED)}")
    expect(isinstance(card.extra.get("decides", True), bool), "'decides' is no truth value")


def _check_leak(leak: Leak, rows: Sequence[Row]) -> None:
    known = {row.id for row in rows}
    expect(bool(leak.per_row), f"no row was tested: {leak.note}")
    expect(set(leak.per_row) <= known, "it reports rows it was not given")
    tables = (leak.per_row, *leak.beside.values())
    inside = all(0 <= value <= 1 for of in tables for value in of.values())
    expect(inside, "a leak is outside [0, 1]")
    for entry in leak.transcript:
        honest = leak.per_row.get(entry["id"]) == entry["leak"]
        expect(honest, f"the transcript of row {entry['id']!r} tells of another leak")
    json.dumps(asdict(leak), allow_nan=False)


@cache
def _stage() -> tuple[Micro, Subject, Subject, Subject]:
    """A world, a model to attack, and two more that stand for the original and the reference."""
    world = micro_world()
    attacked, other, reference = (
        Subject(
            tiny_model("llama", vocab=len(world.tokenizer), layers=3, positions=128, seed=seed),
            world.tokenizer,
        )
        for seed in range(3)
    )
    return world, attacked, other, reference


def _fingerprint(subject: Subject) -> tuple[object, ...]:
    """Everything of the surroundings that an attack could change by mistake."""
    return (
        model_digest(subject.model),
        subject.model.training,
        [weight.requires_grad for weight in subject.model.parameters()],
        any(weight.grad is not None for weight in subject.model.parameters()),
        sum(len(module._forward_hooks) for module in subject.model.modules()),
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
    )
