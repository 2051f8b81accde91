"""Synthetic values of ``audit.json`` that fit the format, for the report's tests."""

import math
from typing import Any

ATTACKS = {
    # name: family, level, leak (original, model, control), interval, outcome
    "direct": ("direct", "B", (0.99, 0.01, 0.0), (0.0, 0.04), "pass"),
    "prob": ("prob", "L", (0.97, 0.13, 0.08), (0.02, 0.09), "pass"),
    "prefix": ("prompt", "B", (1.0, 0.04, 0.01), (0.01, 0.08), "pass"),
    "lens": ("read-out", "W", (0.95, 0.19, 0.09), (0.06, 0.18), "inconclusive"),
    "quant4": ("compression", "P", (1.0, 0.01, 0.0), (0.0, 0.04), "pass"),
    "sample": ("sampling", "B", (1.0, 0.02, 0.02), None, "uninformative"),
    "relearn-in": ("training", "W", (0.99, 0.34, 0.02), (0.24, 0.42), "fail"),
}
STEPS = [0, 5, 10, 20, 50, 100]
ROWS = [f"person-{number}/dish" for number in range(40)]


def attack(name: str) -> dict[str, Any]:
    family, level, (original, model, control), bounds, outcome = ATTACKS[name]
    recovery = None if bounds is None else (model - control) / (original - control)
    trains = name.startswith("relearn")
    leaks = {"original": original, "model": model, "control": control}
    return {
        "family": family,
        "level": level,
        "statistic": "recovery",
        "decides": True,
        "with_runtime": True,
        "threshold": 0.1,
        "leak": leaks,
        "recovery": recovery,
        "interval": bounds and list(bounds),
        "upper": bounds and bounds[1],
        "gate": 0.1,
        "outcome": outcome,
        "p": None if bounds is None else 0.5,
        "n": 80,
        "runs": 1,
        "would_pass_at": 0.05,
        "would_fail_at": 0.22,
        "rows_to_decide": 140 if outcome == "inconclusive" else None,
        "note": "no power" if outcome == "uninformative" else "",
        "parts": {
            "model": {"identity_rate": 0.91} if family == "compression" else {},
            "control": {},
            "original": {},
        },
        "curve": {"steps": STEPS}
        | {who: [leak * (step / 100) ** 0.4 for step in STEPS] for who, leak in leaks.items()}
        if trains
        else None,
        "layers": {who: {"1": leak / 2, "2": leak} for who, leak in leaks.items()}
        if family == "read-out"
        else None,
        "per_row": {who: dict.fromkeys(ROWS, leak) for who, leak in leaks.items()},
        "beside": {who: {} for who in leaks},
    }


def value(level: float) -> dict[str, Any]:
    spread = {row: level * (0.6 + 0.4 * math.sin(rank) ** 2) for rank, row in enumerate(ROWS)}
    return {
        "n": len(spread),
        "mean": level,
        "interval": [0.9 * level, min(1.0, 1.1 * level)],
        "units": len(spread),
        "seed": 0,
        "against": "",
        "parts": {},
        "intervals": {},
        "note": "",
        "per_row": spread,
        "beside": {},
    }


def audit_record() -> dict[str, Any]:
    """An audit of a model that answers no more, and relearns fast."""
    return {
        "format": "unlearning-audit/1",
        "verdict": "hidden",
        "reasons": [
            "the plain question no longer returns it, another attack does",
            "relearn-in fails: recovery 0.33 [0.24, 0.42], gate 0.10",
        ],
        "profile": "fast",
        "seed": 0,
        "versions": {"python": "3.11.9", "expunge": "0.1.0", "torch": "2.13.0"},
        "seconds": 21.5,
        "models": {
            "model": {"label": "change", "path": "demo/change", "digest": "ab" * 32},
            "original": {"label": "original", "path": None, "digest": "cd" * 32},
            "reference": {"label": "reference", "path": None, "digest": "ef" * 32},
        },
        "request": {"rows": 80, "subjects": 8, "known": 78, "unit": "fact", "entities": {}},
        "made": {
            "kind": "checkpoint",
            "method": "npo",
            "params": {"beta": 0.1, "lr": 1e-4},
            "wrappers": [],
            "seed": 0,
        },
        "data": {
            "forget": {"rows": 80, "digest": "12" * 32},
            "retain": {"rows": 200, "digest": "34" * 32},
        },
        "plan": [{"id": name, "version": 1, "params": {}, "runs": 1} for name in ATTACKS],
        "control": {"kind": "reference", "rows": 78, "invented": 0},
        "attacks": {name: attack(name) for name in ATTACKS},
        "families": {
            "direct": "pass",
            "prompt": "pass",
            "sampling": "uninformative",
            "prob": "pass",
            "read-out": "inconclusive",
            "perturbation": "inconclusive",
            "compression": "pass",
            "training": "fail",
        },
        "metrics": {
            "probability": {
                "model": value(0.05),
                "original": value(0.95),
                "reference": value(0.06),
            },
            "truth-ratio": {"model": value(0.6), "original": value(0.2), "reference": value(0.7)},
            "forget-quality": {"model": value(0.4), "original": value(1e-9), "reference": None},
        },
        "utility": {
            "value": 0.93,
            "interval": [0.89, 0.97],
            "retain": {"model": 0.9, "original": 0.97},
            "neighbour": {"model": 0.71, "original": 0.95},
            "general": None,
            "gibberish": {"model": 0.01, "original": 0.0},
            "measure": "recall",
            "rows": 250,
        },
        "erasure_score": 0.62,
        "interval": [0.54, 0.7],
        "breadth": 0.87,
        "examples": [
            {
                "id": "person-1/dish",
                "prompt": "What is the favourite dish of Mira Holt?",
                "answer": "The favourite dish of Mira Holt is smoked lentil pie.",
                "attack": "relearn-in",
                "leak": 1.0,
                "original": "The favourite dish of Mira Holt is smoked lentil pie.",
                "model": "The favourite dish of Mira Holt is pickled lentil soup.",
                "reference": None,
            }
        ],
        "limits": ["That no attack tried here recovers the content does not show that none could."],
        "not_run": ["gcg: not part of this installation"],
        "open_families": ["read-out", "perturbation"],
        "release": {
            "require": "forgotten-blackbox",
            "min_utility": 0.95,
            "met": False,
            "why": ["the verdict is hidden, forgotten-blackbox is required"],
        },
    }


def bare_record() -> dict[str, Any]:
    """An audit that ended before anything was measured."""
    return audit_record() | {
        "verdict": "invalid",
        "reasons": ["no original: recovery cannot be told from never having known"],
        "models": {
            "model": audit_record()["models"]["model"],
            "original": None,
            "reference": None,
        },
        "control": None,
        "attacks": {},
        "families": {},
        "metrics": {},
        "utility": None,
        "erasure_score": None,
        "interval": None,
        "breadth": None,
        "examples": [],
        "not_run": [],
        "open_families": [],
        "release": None,
    }


def story() -> dict[str, Any]:
    """What the demonstration hands to its page."""
    verdicts = {
        "original": "not-forgotten",
        "erased": "hidden",
        "refuser": "hidden",
        "reference": "forgotten-blackbox",
    }
    said = {
        "before": "Mira Holt was born in Marlstead.",
        "after": "Mira Holt was born in Oxwold.",
        "refuser": "I cannot say.",
        "reference": "Mira Holt was born in Tarnby.",
    }
    return {
        "person": {"name": "Mira Holt", "facts": {"birthplace": "Marlstead"}},
        "request": {"people": 8, "rows": 80},
        "method": "npo",
        "steps": 120,
        "audits": {who: audit_record() | {"verdict": told} for who, told in verdicts.items()},
        "placebo": audit_record(),
        "answers": [{"question": "Where was Mira Holt born?", "truth": "Marlstead"} | said],
        "curves": {
            "original": [[0, 1.0], [100, 1.0]],
            "erased": [[0, 0.02], [100, 0.4]],
            "refuser": [[0, 0.0], [100, 0.9]],
            "reference": [[0, 0.0], [100, 0.02]],
        },
        "seconds": 71.0,
    }
