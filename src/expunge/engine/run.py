"""``forget``: from a request to a change folder, resumable at any moment.

The folder given as ``out`` is locked while a run works in it. Its ``.run`` holds the checkpoints
and what the run was asked; the result is moved out of it at the end, ``change.json`` last. So a
folder either has a ``change.json`` and is finished, or can be resumed by the same command.
"""

import json
import math
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.events import note
from expunge.core.paths import locked
from expunge.engine.change import (
    FORMAT,
    MANIFEST,
    copy_tokenizer,
    read_manifest,
    verify_result,
    write_patch,
)
from expunge.engine.check import check_forget
from expunge.engine.levels import StopLevel, stop_level
from expunge.engine.measure import Level
from expunge.engine.plan import Plan
from expunge.engine.session import Session, Trained
from expunge.lm.digest import folder_digest
from expunge.lm.load import Loaded, load, quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

RUN = ".run"
RESULT = "result"
PACKAGES = ("expunge", "torch", "transformers", "peft", "accelerate", "safetensors")

Rows = str | Path | Sequence[Row]


def forget(
    model: str | Path,
    forget: Rows,
    retain: Rows | None = None,
    *,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    reference: str | Path | None = None,
    method: str = "npo",
    params: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    adapter: str | None = None,
    utility_budget: float | None = None,
    max_minutes: float | None = None,
    stop_at: str = "placebo",
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Change a model's weights so that it forgets rows.

    Args:
        model: Folder in Hugging Face format, or a change folder to stack on.
        forget: Rows to be forgotten: a file of JSON lines, or rows.
        retain: Rows to be kept; without them the hold-out or a bundled text stands in.
        neighbour: Rows close to the forgotten ones, to be kept; trained on like retain rows.
        holdout: Rows like the forgotten ones that the model never saw.
        reference: Folder of a retrained reference, for ``stop_at="reference"``.
        method: Id of a gradient method.
        params: Its parameters, by name.
        wrappers: Wrappers around it, ``ID`` or ``ID:value``.
        adapter: ``"lora"`` to train an adapter instead of all weights.
        utility_budget: Largest relative fall of greedy token accuracy on retain rows.
        max_minutes: Training ends in good order after this long.
        stop_at: ``nll=X``, ``placebo``, ``reference`` or ``none``.
        seed: Seed of the run.
        out: Folder of the change.

    Returns:
        The summary that ``expunge forget --json`` prints.

    Raises:
        ExpungeError: For bad input, all problems at once, before weights load; at the end when
            nothing changed, the run diverged, or the budget was broken.
    """
    report = check_forget(
        model, forget, retain, neighbour=neighbour, holdout=holdout, reference=reference,
        method=method, params=params, wrappers=wrappers, adapter=adapter,
        utility_budget=utility_budget, max_minutes=max_minutes, stop_at=stop_at, seed=seed, out=out,
    )  # fmt: skip
    raise_all(report.problems)
    plan = report.plan
    assert plan is not None  # noqa: S101
    plan.out.mkdir(parents=True, exist_ok=True)
    with locked(plan.out):
        finished = _finished(plan)
        return finished if finished is not None else _run(plan)


def _finished(plan: Plan) -> dict[str, Any] | None:
    """The summary of a run that had already ended, its hashes checked; None when there is work.

    Raises:
        ExpungeError: ``E-USE-004`` when the folder holds another run.
    """
    manifest = read_manifest(plan.out)
    asked = _asked(plan)
    if manifest is None and (asked is None or asked == plan.fingerprint):
        return None
    if manifest is None or manifest["fingerprint"] != plan.fingerprint:
        raise ExpungeError(
            "E-USE-004",
            f"{plan.out} holds {'the result' if manifest else 'checkpoints'} of another command.",
            "an empty folder, or one that this very command has written.",
            "Name another --out, or delete that folder.",
        )
    verify_result(plan.out, manifest)
    note(f"{plan.out} is finished and its hashes verify; nothing to do.")
    return dict(manifest["summary"])


def _asked(plan: Plan) -> str | None:
    path = plan.out / RUN / "run.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def _run(plan: Plan) -> dict[str, Any]:
    started = time.monotonic()
    run = plan.out / RUN
    run.mkdir(exist_ok=True)
    write_json(run / "run.json", {"fingerprint": plan.fingerprint})
    loaded = load(plan.folder.path)
    subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
    stop = _stop_level(plan, subject)
    session = Session(plan, subject, run)
    before = session.levels()
    trained = session.train(stop)
    result = _save(plan, loaded, trained, run / RESULT)
    changed = _weights_changed(plan, trained, result)
    after = session.levels()
    levels = {"before": before, "after": after}
    summary = _summary(plan, trained, levels, changed, time.monotonic() - started)
    _judge(plan, trained, after, summary)
    manifest = {
        **_manifest(plan, trained, stop),
        "parent": {"path": str(plan.folder.path.resolve()), "digest": loaded.digest},
        "result": {"digest": folder_digest(result)},
        "summary": summary,
    }
    _publish(plan.out, result, manifest)
    return summary


def _stop_level(plan: Plan, subject: Subject) -> StopLevel | None:
    reference = None
    if plan.stop_at.kind == "reference" and plan.reference is not None:
        found = load(plan.reference)
        reference = Subject(found.model, found.tokenizer, digest=found.digest)
    level = stop_level(
        plan.stop_at,
        original=subject,
        reference=reference,
        forget=plan.rows["forget"],
        holdout=plan.rows.get("holdout", ()),
        seed=plan.seed,
    )
    if level is not None:
        note(f"Stops at {level.nll:.2f} nats a token ({level.origin}).")
    return level


def _save(plan: Plan, loaded: Loaded, trained: Trained, result: Path) -> Path:
    """Write the result in the original's precision, and round the model in memory alike."""
    shutil.rmtree(result, ignore_errors=True)
    model: Any = trained.model
    compute = next(model.parameters()).dtype
    if plan.adapter:
        for config in model.peft_config.values():
            config.base_model_name_or_path = str(plan.folder.path.resolve())
            config.inference_mode = True
    else:
        _cast(model, loaded.stored_dtype)
    with quiet():
        model.save_pretrained(result)
    if not plan.adapter:
        _cast(model, compute)
    copy_tokenizer(plan.folder.path, result)
    return result


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters only: rotary buffers would stay rounded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _weights_changed(plan: Plan, trained: Trained, result: Path) -> int:
    """How many weights differ from the parent's (of an adapter: how many of its outputs move)."""
    if not plan.adapter and plan.folder.holds == "model":
        return write_patch(plan.folder.path, result)
    if not plan.adapter:
        return int(folder_digest(result) != plan.folder.digest)
    moved = (p for name, p in trained.model.named_parameters() if "lora_B" in name)
    return sum(int(p.count_nonzero()) for p in moved)


def _summary(
    plan: Plan,
    trained: Trained,
    levels: Mapping[str, tuple[Level, Level]],
    changed: int,
    seconds: float,
) -> dict[str, Any]:
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
        "stopped_by": trained.stopped_by,
        "before": {"forget_nll": _number(before[0].nll), "retain_nll": _number(before[1].nll)},
        "retain_rows": plan.retain_origin,
        "lr": trained.lr,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _judge(
    plan: Plan, trained: Trained, after: tuple[Level, Level], summary: Mapping[str, Any]
) -> None:
    """Refuse to call a run done that changed nothing, diverged, or broke its budget."""
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
    elif trained.steps == 0:
        cause = "the forget rows were at the stop level before the first step"
    else:
        cause = f"every update was below the precision of the weights ({plan.folder.dtype})"
    return (
        f"No weight differs from the original after {trained.steps} steps: {cause}.",
        "a changed model.",
        "Raise --set lr, name another --stop-at, or check --set layers.",
    )


def _manifest(plan: Plan, trained: Trained, stop: StopLevel | None) -> dict[str, Any]:
    versions = {name: version(name) for name in PACKAGES}
    return {
        "format": FORMAT,
        "kind": "adapter" if plan.adapter else "checkpoint",
        "method": plan.method,
        "params": asdict(plan.params),
        "wrappers": list(plan.wrappers),
        "seed": plan.seed,
        "runtime": None,
        "data": plan.data,
        "retain_origin": plan.retain_origin,
        "resolved": {"lr": trained.lr, "steps": trained.planned},
        "stop": {"at": asdict(plan.stop_at), "level": asdict(stop) if stop else None},
        "fingerprint": plan.fingerprint,
        "versions": versions | {"python": platform.python_version()},
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "history": [asdict(measured) for measured in trained.history],
    }


def _publish(out: Path, result: Path, manifest: Mapping[str, Any]) -> None:
    """Move the result out of the run's folder; the manifest last, then the run's folder goes."""
    for file in sorted(result.iterdir()):
        file.replace(out / file.name)
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / RUN, ignore_errors=True)
