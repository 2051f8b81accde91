"""Invented results of ``expunge bench``, ``audit`` and ``forget``, written as those commands do."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ENTITIES, QUESTIONS = 8, 5
SETS = ("facts", "others")
"""Sets of the benchmark restor, whose numbers are plain means and one that is made of others."""


def rows_of(name: str) -> dict[str, str]:
    """Row id -> entity."""
    return {
        f"{name}-{who}-{question}": f"{name} person {who}"
        for who in range(ENTITIES)
        for question in range(QUESTIONS)
    }


def wave(name: str, level: float, width: float = 0.1) -> dict[str, float]:
    """Values of rows around a level: entities differ, and questions a little."""
    swing = {row: ((rank // QUESTIONS) % 4 - 1.5) / 1.5 for rank, row in enumerate(rows_of(name))}
    nudge = {row: ((rank % QUESTIONS) - 2) / 20 for rank, row in enumerate(rows_of(name))}
    return {row: level + width * (swing[row] + nudge[row]) for row in swing}


def number(per_row: Mapping[str, float]) -> dict[str, Any]:
    mean = sum(per_row.values()) / len(per_row)
    interval = [mean - 0.1, mean + 0.1]
    return {"n": len(per_row), "mean": mean, "per_row": dict(per_row), "interval": interval}


def line(
    name: str,
    forget: Mapping[str, float],
    kept: Mapping[str, float],
    method: str | None = None,
    seed: int | None = None,
    **more: Mapping[str, Any],
) -> dict[str, Any]:
    """A line of a benchmark: one number of the facts to forget, one of the others."""
    values = {"corrupted": number(forget), "others": number(kept), **more}
    told = {"name": name, "method": method, "seed": seed, "failed": None, "run": None}
    return {**told, "summary": {"values": values}, "cells": {}, "details": {}}


def write_bench(
    folder: Path,
    lines: Sequence[Mapping[str, Any]],
    *,
    logs: bool = True,
    **changed: Any,
) -> Path:
    """A folder of ``expunge bench restor``."""
    result = {
        "format": "unlearning-bench/1",
        "benchmark": "restor",
        "version": 1,
        "split": "default",
        "params": {},
        "reference_recipe": "none",
        "lines": list(lines),
    }
    (folder / "logs").mkdir(parents=True)
    (folder / "bench.json").write_text(json.dumps(result | changed))
    for one in lines if logs else ():
        if "summary" not in one:
            continue
        values = one["summary"]["values"]
        sets = {"facts": values["corrupted"]["per_row"], "others": values["others"]["per_row"]}
        entities = {row: who for name in SETS for row, who in rows_of(name).items()}
        log = {
            name: {"reply": dict.fromkeys(of, "x"), "subject": {row: entities[row] for row in of}}
            for name, of in sets.items()
        }
        (folder / "logs" / f"{one['name']}.json").write_text(json.dumps({"key": "k", "log": log}))
    return folder


def write_change(folder: Path, *, seed: int = 0, digest: str = "ab" * 32, **changed: Any) -> Path:
    """A folder of ``expunge forget``, without its weights."""
    manifest = {
        "format": "unlearning-change/1",
        "kind": "checkpoint",
        "method": "npo",
        "params": {"beta": 0.1},
        "wrappers": [],
        "seed": seed,
        "data": {"forget": {"rows": 40, "digest": "f" * 64}, "retain": None},
        "parent": {"digest": "cd" * 32},
        "result": {"digest": digest},
        "summary": {"forget_nll": 4.5 + seed, "retain_nll": 0.5, "utility_drop": 0.02},
    }
    folder.mkdir(parents=True)
    (folder / "change.json").write_text(json.dumps(manifest | changed))
    return folder


ATTACKS = {
    # name: family, level, leak (original, model, control), interval
    "direct": ("direct", "B", (0.9, 0.0, 0.0), (0.0, 0.04)),
    "lens": ("read-out", "W", (0.9, 0.2, 0.1), (0.06, 0.18)),
    "relearn-in": ("training", "W", (1.0, 0.34, 0.04), (0.24, 0.42)),
}


def attack(name: str, model: float | None = None) -> dict[str, Any]:
    """One attack of an audit; every row leaks alike."""
    family, level, (original, own, control), bounds = ATTACKS[name]
    leaks = {"original": original, "model": own if model is None else model, "control": control}
    recovery = (leaks["model"] - control) / (original - control)
    undecided = dict.fromkeys(("p", "would_pass_at", "would_fail_at", "rows_to_decide", "curve"))
    return {
        **{"family": family, "level": level, "with_runtime": True, "threshold": 0.1},
        **{"leak": leaks, "recovery": recovery, "interval": list(bounds), "upper": bounds[1]},
        **{"gate": 0.1, "outcome": "inconclusive", "n": 40, "runs": 1, "note": "", **undecided},
        "parts": {"original": {}, "model": {}, "control": {}},
        **{"statistic": "recovery", "decides": True, "layers": None},
        "per_row": {who: dict.fromkeys(rows_of("facts"), leak) for who, leak in leaks.items()},
        "beside": {who: {} for who in leaks},
    }


def audit(**changed: Any) -> dict[str, Any]:
    """A value of ``audit.json``."""
    plain = {"interval": None, "units": None, "seed": 0, "against": "", "note": ""}
    value = {**plain, **number(wave("facts", 0.3)), "parts": {}, "intervals": {}, "beside": {}}
    models = {"model": "ab", "original": "cd", "reference": "ef"}
    empty = ("examples", "limits", "not_run", "open_families", "reasons")
    record = {
        **{"format": "unlearning-audit/1", "verdict": "hidden", "profile": "fast", "seed": 0},
        **{"versions": {}, "seconds": 1.0, "families": {}, "breadth": 0.8, "release": None},
        **{name: [] for name in empty},
        "models": {
            who: {"label": who, "path": None, "digest": digest * 32}
            for who, digest in models.items()
        },
        "request": {"rows": 40, "subjects": 8, "known": 40, "unit": "fact", "entities": {}},
        "control": {"kind": "reference", "rows": 40, "invented": 0},
        "attacks": {name: attack(name) for name in ATTACKS},
        **{
            "made": None,
            "data": {},
            "plan": [{"id": n, "version": 1, "params": {}, "runs": 1} for n in ATTACKS],
        },
        "metrics": {"probability": dict.fromkeys(models, value)},
        "utility": {
            **{"value": 0.93, "interval": [0.89, 0.97], "measure": "recall", "rows": 40},
            **dict.fromkeys(("retain", "neighbour", "general")),
            "gibberish": {"model": 0.0, "original": 0.0},
        },
        **{"erasure_score": 0.62, "interval": [0.54, 0.7]},
    }
    return record | changed


def write_audit(folder: Path, **changed: Any) -> Path:
    """A folder of ``expunge audit``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(audit(**changed)))
    return folder
