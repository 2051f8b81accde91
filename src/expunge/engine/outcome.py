"""How a run ended: its summary, its manifest, and whether it may be called done."""

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.registry import methods
from expunge.engine.change import FORMAT
from expunge.engine.drivers import Driven
from expunge.engine.levels import StopLevel
from expunge.engine.measure import Level, collapsed
from expunge.engine.plan import Plan
from expunge.engine.session import Session, Trained

RUN = ".run"
"""Where a run keeps its checkpoints, below the folder of the change."""

PACKAGES = ("expunge", "torch", "transformers", "peft", "accelerate", "safetensors")


def summary_of(
    plan: Plan,
    driven: Driven,
    levels: Mapping[str, tuple[Level, Level]],
    changed: int,
    seconds: float,
) -> dict[str, Any]:
    """What ``expunge forget --json`` prints.

    Args:
        plan: The request.
        driven: How it went.
        levels: ``before`` and ``after`` -> forget and retain level.
        changed: Number of weights that differ from the original's.
        seconds: Wall time.
    """
    trained = driven.trained
    before, after = levels["before"], levels["after"]
    drop = 1 - after[1].accuracy / before[1].accuracy if before[1].accuracy else math.nan
    return {
        "out": str(plan.out),
        "method": plan.method,
        "steps": trained.steps,
        "resumed_from": trained.resumed_from,
        "seconds": round(seconds, 2),
        "weights_changed": changed,
        "forget_nll": _number(after[0].nll),
        "retain_nll": _number(after[1].nll),
        "utility_drop": _number(drop),
        "collapsed": _is_collapsed(driven.session, before[1], after[1]),
        "stopped_by": trained.stopped_by,
        "before": {"forget_nll": _number(before[0].nll), "retain_nll": _number(before[1].nll)},
        "retain_rows": plan.retain_origin,
        "lr": trained.lr,
        **({"details": dict(driven.details)} if driven.details else {}),
        **_caution(plan),
    }


def _is_collapsed(session: Session, before: Level, after: Level) -> bool:
    """Whether the rows to be kept went as well, said aloud: that is not forgetting."""
    if not collapsed(before, after, session.vocabulary):
        return False
    note(
        f"The model collapsed: on rows to be kept {after.accuracy:.1%} of the tokens are its first "
        f"choice ({before.accuracy:.1%} before), at {after.nll:.2f} nats a token. Whatever it no "
        "longer says was destroyed with the rest, not forgotten. Lower --set lr, add a retain "
        "term, or give --utility-budget."
    )
    return True


def _caution(plan: Plan) -> dict[str, str]:
    """What the method's card warns of, said aloud and kept with the result."""
    caution = methods.card(plan.method).extra.get("caution")
    if caution is None:
        return {}
    note(caution)
    return {"caution": caution}


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def judge(
    plan: Plan, trained: Trained, after: tuple[Level, Level], summary: Mapping[str, Any]
) -> None:
    """Refuse to call a run done that changed nothing, diverged, or broke its budget.

    Raises:
        ExpungeError: ``E-RUN-001``, ``E-RUN-002`` or ``E-RUN-003``.
    """
    if not math.isfinite(after[0].nll) or math.isinf(after[1].nll):
        raise ExpungeError(
            "E-RUN-002",
            "After the run the model gives no finite probabilities.",
            "finite log-probabilities.",
            f"Lower the learning rate (it was {trained.lr:g}): --set lr={trained.lr / 5:.1g}.",
        )
    if summary["weights_changed"] == 0:
        raise ExpungeError("E-RUN-001", *_why_nothing_changed(plan, trained))
    drop = summary["utility_drop"]
    if plan.utility_budget is not None and (drop is None or drop > plan.utility_budget):
        raise ExpungeError(
            "E-RUN-003",
            "Greedy token accuracy on retain rows fell by "
            f"{'an unknown share' if drop is None else f'{drop:.1%}'} of the original's, after "
            f"{trained.steps} steps of {plan.method} at lr {trained.lr:g}.",
            f"at most {plan.utility_budget:.1%} (--utility-budget).",
            "Give more retain rows, raise --set retain_weight, lower --set lr, or raise the "
            f"budget; checkpoints stay in {plan.out / RUN}.",
        )


def _why_nothing_changed(plan: Plan, trained: Trained) -> tuple[str, str, str]:
    if trained.lr == 0:
        cause = "the learning rate is 0"
    elif trained.record.get("zero_variance") == 1 and trained.record.get("reward") is not None:
        cause = "all answers drawn to a prompt got the same reward, every time"
    elif trained.steps == 0:
        cause = "the forget rows were at the stop level before the first step"
    else:
        cause = f"every update was below the precision of the weights ({plan.folder.dtype})"
    return (
        f"No weight differs from the original after {trained.steps} steps: {cause}.",
        "a changed model.",
        "Raise --set lr, name another --stop-at, or check --set layers.",
    )


def manifest_of(plan: Plan, driven: Driven, stop: StopLevel | None) -> dict[str, Any]:
    """What ``change.json`` tells of a run, without its hashes."""
    trained = driven.trained
    versions = {name: version(name) for name in PACKAGES}
    return {
        "format": FORMAT,
        "kind": "adapter" if plan.adapter else "checkpoint",
        "method": plan.method,
        "params": asdict(plan.params),
        "wrappers": [wrapper.as_dict() for wrapper in plan.wrappers],
        "seed": plan.seed,
        "runtime": None,
        "data": plan.data,
        "retain_origin": plan.retain_origin,
        "resolved": {"lr": trained.lr, "steps": trained.planned},
        "budgets": {"utility": plan.utility_budget, "minutes": plan.max_minutes},
        "stop": {"at": asdict(plan.stop_at), "level": asdict(stop) if stop else None},
        "fingerprint": plan.fingerprint,
        "versions": versions | {"python": platform.python_version()},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "history": [asdict(measured) for measured in trained.history],
        "record": dict(driven.record),
        **({"carry": dict(carry)} if (carry := driven.session.task.carry) else {}),
    }
