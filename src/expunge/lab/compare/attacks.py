"""The attacks of an audit as numbers that two audits can be compared by.

Definition (of each attack, by what its gate looks at; * in every replicate, o, u, c the leaks of
original, audited model and control):
    recovery.<name>    XR* = clip((u* - c*) / (o* - c*), 0, 1)
    distance.<name>    s (A*_u - A*_c)     s the sign of A_u - A_c; A*_c is 1/2 without a reference
                       A* = mean* of the placements + mean* of those held out - A
    cost.<name>        mean*(damage) - mean*(damage of the clean request)
    leak.<name>, auc.<name>, damage.<name>     the same before the control is taken off

Numbers of one kind are subtracted from one another, and never from those of another kind.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from expunge.core.bootstrap import FloatArray, Units
from expunge.lab.compare.runs import ORIGINAL, Draw, Number, redrawn

Record = Mapping[str, Any]

NAMES = {"recovery": "recovery", "difference": "distance", "cost": "cost"}
"""What an attack's gate looks at -> name of the number."""
RAW = {"recovery": "leak", "difference": "auc", "cost": "damage"}
"""The same before the control is taken off."""
CHANCE = 0.5
GAP = 0.05
"""Lead of the original over the control below which a replicate has no recovery."""


def attack_numbers(record: Record) -> dict[str, Number]:
    """Two numbers of every attack: what its gate looks at, and what is behind it."""
    numbers = {}
    for name, attack in record["attacks"].items():
        kind = attack["statistic"]
        if attack["recovery"] is not None:
            numbers[f"{NAMES[kind]}.{name}"] = _gated(attack)
        numbers[f"{RAW[kind]}.{name}"] = _raw(attack)
    return numbers


def leading(names: Iterable[str]) -> list[str]:
    """Numbers worth comparing when nobody chose: without what stands behind another number."""
    names = list(names)
    behind = {
        f"{RAW[kind]}.{name.partition('.')[2]}"
        for kind, prefix in NAMES.items()
        for name in names
        if name.startswith(f"{prefix}.")
    }
    return [name for name in names if name not in behind]


def telling(record: Record) -> list[Record]:
    """The attacks that decide, recover, and could tell the original from the control."""
    return [
        attack
        for attack in record["attacks"].values()
        if attack["decides"]
        and attack["statistic"] == "recovery"
        and attack["recovery"] is not None
    ]


def recovered(attack: Record, units: Units) -> FloatArray | None:
    """XR in every replicate; None where not all leaks were kept."""
    leaks = attack["per_row"]
    drawn = {who: redrawn(leaks[who], {}, units) for who in leaks}
    if not all(drawn.values()):
        return None
    original, model, control = (drawn[who]["mean"] for who in (ORIGINAL, "model", "control"))
    gap = original - control
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap >= GAP, np.clip((model - control) / gap, 0, 1), np.nan)


def summaries(record: Record) -> dict[str, dict[str, Any]]:
    """Each attack as the tables of a comparison show it."""
    kept = ("family", "statistic", "decides", "recovery", "interval", "gate", "outcome")
    return {name: {key: of[key] for key in kept} for name, of in record["attacks"].items()}


def _gated(attack: Record) -> Number:
    draws: Mapping[str, Draw] = {
        "recovery": lambda units: recovered(attack, units),
        "difference": lambda units: _distance(attack, units),
        "cost": lambda units: _cost(attack, units),
    }
    bounds = attack["interval"]
    return Number(
        value=attack["recovery"],
        interval=None if bounds is None else (bounds[0], bounds[1]),
        rows=frozenset(attack["per_row"]["model"]),
        draw=draws[attack["statistic"]],
    )


def _raw(attack: Record) -> Number:
    rows: Mapping[str, float] = attack["per_row"]["model"]
    return Number(
        value=attack["leak"]["model"],
        rows=frozenset(rows),
        better="target" if attack["statistic"] == "difference" else "low",
        draw=lambda units: redrawn(rows, {}, units).get("mean"),
    )


def _distance(attack: Record, units: Units) -> FloatArray | None:
    model = _auc(attack, "model", units)
    control = _auc(attack, "control", units) if attack["per_row"]["control"] else CHANCE
    if model is None or control is None:
        return None
    leak = attack["leak"]
    middle = CHANCE if leak["control"] is None else leak["control"]
    sign = -1.0 if leak["model"] < middle else 1.0
    distance: FloatArray = sign * (model - control)
    return distance


def _auc(attack: Record, who: str, units: Units) -> FloatArray | None:
    placements = attack["per_row"][who]
    others = attack["beside"][who].get("holdout")
    if not placements or not others:
        return None
    mean = sum(others.values()) / len(others)
    members, beside = (redrawn(of, {}, units)["mean"] for of in (placements, others))
    drawn: FloatArray = members + beside - mean
    return drawn


def _cost(attack: Record, units: Units) -> FloatArray | None:
    damage, clean = attack["per_row"]["model"], attack["beside"]["model"].get("clean", {})
    both = [row for row in damage if row in clean]
    if not both:
        return None
    lost: FloatArray = redrawn({row: damage[row] - clean[row] for row in both}, {}, units)["mean"]
    return lost
