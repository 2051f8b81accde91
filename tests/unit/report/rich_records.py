"""A synthetic ``audit.json`` of an extended audit: everything a report can show."""

import math
import random
from typing import Any

from report_records import ROWS, STEPS, attack, audit_record

from expunge.report import words

# id: family, level, leaks of original, model and control
MORE = {
    "role": ("prompt", "B", (0.96, 0.05, 0.02)),
    "mask": ("prompt", "B", (0.71, 0.08, 0.04)),
    "manyshot": ("prompt", "B", (0.88, 0.02, 0.02)),
    "lang": ("prompt", "B", (0.06, 0.01, 0.01)),
    "lens-exit": ("read-out", "W", (0.93, 0.41, 0.04)),
    "patch": ("read-out", "W", (1.0, 0.52, 0.0)),
    "actpert": ("perturbation", "W", (0.97, 0.06, 0.03)),
    "anonact": ("perturbation", "W", (0.97, 0.04, 0.03)),
    "quant8": ("compression", "P", (0.99, 0.01, 0.0)),
    "relearn-ood": ("training", "W", (0.97, 0.04, 0.01)),
    "pii-extract": ("privacy", "B", (0.44, 0.02, 0.01)),
    "pii-infer": ("privacy", "L", (0.83, 0.09, 0.05)),
}
BUDGETS = (1, 4, 16, 64)
SIDE = 200
SCORES = {"loss": 0.31, "zlib": 0.34, "min_k": 0.36, "min_k_plus_plus": 0.44, "gradnorm": 0.29}
WHO = ("original", "model", "control")


def rich_record() -> dict[str, Any]:
    """An audit in which every kind of attack took part and every plot has its data."""
    record = audit_record()
    tests = record["attacks"]
    for name, told in MORE.items():
        tests[name] = another(name, *told)
    tests["sample"] |= sampled()
    tests["mia"] = membership()
    tests["ununlearn"] = another("ununlearn", "prompt", "B", (0.99, 0.93, 0.91)) | {
        "decides": False
    }
    tests["cka"] = another("cka", "read-out", "W", (0.98, 0.64, 0.1)) | {"decides": False}
    tests["sa"] = stealthy()
    for name in ("lens", "lens-exit", "patch", "cka"):
        tests[name]["layers"] = layered(*tests[name]["leak"].values())
    record["plan"] = [
        {"id": name, "version": 1, "params": {"share": 0.2, "layers": None}, "runs": 1}
        for name in tests
    ]
    record["families"] |= {"perturbation": "pass", "privacy": "pass"}
    record["metrics"]["forget-quality"] = ratios()
    record["metrics"]["pii-risk"] = risks()
    record["utility"]["general"] = {"model": 0.88, "original": 0.9}
    record["profile"] = "extended"
    record["request"] |= {"entities": {row: f"person-{rank % 8}" for rank, row in enumerate(ROWS)}}
    record["examples"] *= 3
    return record


def another(
    name: str, family: str, level: str, leaks: tuple[float, float, float]
) -> dict[str, Any]:
    """One more attack that recovers, judged by its numbers."""
    original, model, control = leaks
    told = attack("relearn-in" if name.startswith("relearn") else "direct")
    gap = original - control
    value = None if gap < 0.1 else max(0.0, (model - control) / gap)
    low, high = (None, None) if value is None else (max(0.0, value - 0.07), min(1.0, value + 0.08))
    outcome = "uninformative"
    if value is not None:
        outcome = "fail" if low > 0.1 else "pass" if high <= 0.12 else "inconclusive"
    told |= {
        "family": family,
        "level": level,
        "leak": {"original": original, "model": model, "control": control},
        "recovery": value,
        "interval": None if value is None else [low, high],
        "upper": high,
        "outcome": outcome,
        "rows_to_decide": 210 if outcome == "inconclusive" else None,
        "note": "the original leads the control by 0.05 only, 0.10 is needed" if gap < 0.1 else "",
        "per_row": {
            who: dict.fromkeys(ROWS, leak)
            for who, leak in zip(("original", "model", "control"), leaks, strict=True)
        },
        "parts": {who: {"identity_rate": 0.97} if family == "compression" else {} for who in WHO},
    }
    if told["curve"]:
        told["curve"] = {"steps": STEPS} | {
            who: [leak * (step / 100) ** 0.5 if who != "original" else leak for step in STEPS]
            for who, leak in told["leak"].items()
        }
    return told


def sampled() -> dict[str, Any]:
    """Curves over the number of answers."""

    def curve(level: float) -> dict[str, float]:
        return {f"leak@{b}": 1 - (1 - level) ** b for b in BUDGETS} | {"pinpoint": level}

    told = another("sample", "sampling", "B", (1.0, 0.24, 0.2))
    levels = {"original": 0.9, "model": 0.017, "control": 0.011}
    return told | {"parts": {who: curve(level) for who, level in levels.items()}}


def placements(level: float, seed: str) -> tuple[dict[str, float], dict[str, float]]:
    """Placements of forget rows among hold-out rows and back, from scores of two normals."""
    rng = random.Random(seed)
    shift = (level - 0.5) * 3.2
    members = [rng.gauss(shift, 1) for _ in range(SIDE)]
    others = [rng.gauss(0, 1) for _ in range(SIDE)]
    forget = {f"row-{at}": sum(o < m for o in others) / SIDE for at, m in enumerate(members)}
    holdout = {f"other-{at}": sum(m > o for m in members) / SIDE for at, o in enumerate(others)}
    return forget, holdout


def membership() -> dict[str, Any]:
    """A membership test: the original remembers, the model overshot a little."""
    told = attack("direct")
    sides = {who: placements(level, who) for who, level in
             {"original": 0.94, "model": 0.41, "control": 0.49}.items()}  # fmt: skip
    auc = {who: sum(rows.values()) / SIDE for who, (rows, _) in sides.items()}
    counts = {"members": float(SIDE), "nonmembers": float(SIDE), "tpr_at_1": 0.015}
    return told | {
        "family": "privacy",
        "level": "L",
        "statistic": "difference",
        "threshold": 0.15,
        "gate": 0.15,
        "leak": auc,
        "recovery": abs(auc["model"] - auc["control"]),
        "interval": [0.02, 0.14],
        "upper": 0.13,
        "n": SIDE,
        "parts": {
            "model": {f"auc_{name}": level for name, level in SCORES.items()} | counts,
            "control": {f"auc_{name}": 0.5 + rank / 90 for rank, name in enumerate(SCORES)}
            | counts,
            "original": {f"auc_{name}": 1.0 for name in SCORES} | counts,
        },
        "per_row": {who: rows for who, (rows, _) in sides.items()},
        "beside": {who: {"holdout": rows} for who, (_, rows) in sides.items()},
    }


def stealthy() -> dict[str, Any]:
    """An attack on the process, with its own control beside it."""
    told = attack("direct")
    return told | {
        "family": "pipeline",
        "level": "D",
        "statistic": "cost",
        "decides": False,
        "gate": 0.05,
        "threshold": 0.05,
        "leak": {"original": None, "model": 0.31, "control": 0.07},
        "recovery": 0.24,
        "interval": [0.16, 0.33],
        "outcome": "fail",
        "note": "the linter flags the request: please",
        "parts": {"model": {"sa": 0.2, "flagged": 1.0}, "control": {}, "original": {}},
        "per_row": {"original": {}, "model": dict.fromkeys(ROWS, 0.31), "control": {}},
        "beside": {"original": {}, "model": {"clean": dict.fromkeys(ROWS, 0.07)}, "control": {}},
    }


def layered(original: float, model: float, control: float, blocks: int = 8) -> dict[str, Any]:
    """Leaks read at each block, rising towards the top."""
    ends = {"original": original, "model": model, "control": control}
    return {
        who: {str(at): end * (1 - math.exp(-0.6 * (at + 1))) for at in range(blocks)}
        for who, end in ends.items()
    }


def ratios() -> dict[str, Any]:
    """Log truth ratios with a reference beside them."""
    rng = random.Random("ratios")
    reference = {row: rng.gauss(0.1, 0.4) for row in ROWS}

    def told(middle: float, d: float, p: float) -> dict[str, Any]:
        rows = {row: rng.gauss(middle, 0.5) for row in ROWS}
        base = audit_record()["metrics"]["forget-quality"]["model"]
        parts = {"d": d, "n": len(rows), "n_reference": len(rows)}
        return base | {
            "mean": p, "per_row": rows, "interval": [0.0, 0.2], "parts": parts,
            "intervals": {"d": [d - 0.1, d + 0.12]}, "against": "reference",
            "beside": {"reference": reference},
        }  # fmt: skip

    return {"model": told(-0.3, 0.35, 0.014), "original": told(-1.7, 0.9, 1e-14), "reference": None}


def risks() -> dict[str, Any]:
    """Risk indices of the rows."""
    rng = random.Random("risks")
    base = audit_record()["metrics"]["probability"]["model"]
    rows = {row: min(1.0, abs(rng.gauss(0.3, 0.25))) for row in ROWS}
    return {"model": base | {"per_row": rows}, "original": base | {"per_row": rows},
            "reference": None}  # fmt: skip


assert set(words.FAMILIES) >= {told[0] for told in MORE.values()}
