"""What metrics and attacks say of a model after it was taught its rows again, or rounded."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from expunge.audit.measures import measure
from expunge.audit.plan import METRICS
from expunge.core.registry import attacks
from expunge.core.rng import derive
from expunge.lab.zoo.world import World, every_wording
from expunge.lm.quantise import quantise_rtn
from expunge.lm.relearn import attack_rate
from expunge.lm.subject import Scene, Subject

ATTACKS = ("direct", "prob", "prefix", "lens", "lens-exit")
"""Attacks that are read under stress: the others are stress themselves, or cost too much."""
STEPS, BATCH = 30, 16
BITS, GROUP = 4, 128
NEW_TOKENS = 24


def under_stress(
    subject: Subject, original: Subject, reference: Subject, own: World, seed: int
) -> dict[str, dict[str, float]]:
    """Readings before and after stress.

    Args:
        subject: The model.
        original: The model before.
        reference: The retrained model.
        own: Its world.
        seed: Of the lesson.

    Returns:
        ``before``, ``relearned``, ``quantised`` -> metric or attack -> value.
    """
    taught = subject.copy()
    taught.train(
        every_wording(own.forget),
        steps=STEPS,
        lr=attack_rate(taught),
        batch_size=BATCH,
        seed=derive(seed, "zoo", "stress"),
    )
    rounded = subject.copy()
    quantise_rtn(rounded.model, BITS, GROUP)
    states = {"before": subject, "relearned": taught, "quantised": rounded}
    return {name: readings(one, original, reference, own, seed) for name, one in states.items()}


def readings(
    subject: Subject, original: Subject, reference: Subject, own: World, seed: int
) -> dict[str, float]:
    """Every metric and attack that is read, by its id."""
    roles = {"forget": own.forget, "retain": own.retain, "holdout": own.holdout}
    models: Mapping[str, Any] = {"model": subject, "original": original, "reference": reference}
    measured = measure(METRICS, models, roles, NEW_TOKENS, seed)
    found = {
        id: of["model"].mean
        for id, of in measured.items()
        if of["model"] is not None and of["model"].mean is not None
    }
    scene = Scene(
        retain=own.retain, neighbour=own.neighbour, seed=seed, new_tokens=NEW_TOKENS,
        original=original, holdout=own.holdout, reference=reference,
    )  # fmt: skip
    for id in ATTACKS:
        leak = attacks.load(id).mount(subject, own.forget, scene, attacks.params(id))
        found[id] = fmean(leak.per_row.values())
    return found
