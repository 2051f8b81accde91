"""``forget``: from a request to a change folder, resumable at any moment.

The folder given as ``out`` is locked while a run works in it. Its ``.run`` holds the checkpoints
and what the run was asked; the result is moved out of it at the end, ``change.json`` last. So a
folder either has a ``change.json`` and is finished, or can be resumed by the same command.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.events import note
from expunge.core.paths import locked
from expunge.core.registry import methods
from expunge.engine.change import (
    MANIFEST,
    copy_tokenizer,
    read_manifest,
    verify_result,
    write_patch,
)
from expunge.engine.check import check_forget
from expunge.engine.drivers import DRIVERS
from expunge.engine.levels import StopLevel, stop_level
from expunge.engine.made import FOLDER as MADE
from expunge.engine.outcome import RUN, judge, manifest_of, summary_of
from expunge.engine.part_files import entries_of, parts_of, stacked, write_parts
from expunge.engine.plan import Plan
from expunge.engine.precision import loading_dtype
from expunge.engine.runtime import attach
from expunge.engine.session import Session, Trained
from expunge.engine.vocabulary import ADDED, write_tokens
from expunge.engine.world import World, gathered, joined
from expunge.lm.digest import folder_digest
from expunge.lm.load import Loaded, load, quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

RESULT = "result"

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
    anchor: str | Path | None = None,
    carry: Mapping[str, Any] | None = None,
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
        anchor: Folder of what losses compare with, in place of ``model``.
        carry: What earlier requests of a stream hand on to this one.

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
        anchor=anchor, carry=carry,
    )  # fmt: skip
    raise_all(report.problems)
    plan = report.plan
    assert plan is not None  # noqa: S101
    with joined() as world:
        _refuse_other_plans(plan, world)
        with locked(plan.out) if world.first else nullcontext():
            finished = world.agreed(_finished(plan) if world.first else None)
            return finished if finished is not None else _run(plan, world)


def _refuse_other_plans(plan: Plan, world: World) -> None:
    """Every process must have read the same thing; none writes before all have read."""
    if world.agreed(plan.fingerprint) != plan.fingerprint:
        raise ExpungeError(
            "E-USE-006",
            f"Process {world.rank} of {world.size} read another model, other rows or options "
            "than the first one.",
            "the same files and options for every process.",
            "Put the model and the rows where all machines see them, and start again.",
        )
    world.wait()


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


def _run(plan: Plan, world: World) -> dict[str, Any]:
    started = time.monotonic()
    run = plan.out / RUN
    run.mkdir(parents=True, exist_ok=True)
    if world.first:
        write_json(run / "run.json", {"fingerprint": plan.fingerprint})
    dtype = loading_dtype(plan.params, adapted=bool(plan.adapter))
    loaded = load(plan.folder.path, dtype=dtype)
    below = parts_of(plan.folder)
    for part in below:
        attach(loaded.model, part)
    subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
    frozen = None if plan.anchor is None else load(plan.anchor.path, dtype=dtype).model
    session = Session(plan, subject, run, world, frozen)
    stop = _stop_level(plan, subject)
    before = session.before
    driven = DRIVERS[methods.card(plan.method).kind](session, stop)
    trained = driven.trained
    result = _save(plan, loaded, trained, run / RESULT, world)
    parts = stacked(below, trained.runtime)
    changed = _weights_changed(plan, trained, result) if world.first else 0
    after = driven.session.levels()
    levels = {"before": before, "after": after}
    seconds = time.monotonic() - started
    summary: dict[str, Any] = world.agreed(summary_of(plan, driven, levels, changed, seconds))
    judge(plan, trained, after, summary)
    if world.first:
        added = write_tokens(plan.folder, result, driven.session.task)
        manifest = {
            **manifest_of(plan, driven, stop),
            "processes": world.size,
            "parent": _parent(loaded),
            "runtime": write_parts(result, parts),
            "result": {"digest": folder_digest(result)},
            "summary": summary,
            **({ADDED: added} if added else {}),
        }
        _publish(plan.out, result, manifest)
    world.wait()
    return summary


def _parent(loaded: Loaded) -> dict[str, Any]:
    """What the change goes back to; with its manifest, where its weights are not all of it."""
    parent = {"path": str(loaded.path.resolve()), "digest": loaded.digest}
    if loaded.manifest is None or not entries_of(loaded.manifest):
        return parent
    return {**parent, "manifest": dict(loaded.manifest)}


def _stop_level(plan: Plan, subject: Subject) -> StopLevel | None:
    if plan.base is not None:  # nothing is pushed away, so nothing can be pushed too far
        return None
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


def _save(plan: Plan, loaded: Loaded, trained: Trained, result: Path, world: World) -> Path:
    """Write the result in the original's precision, and round the model in memory alike.

    Args:
        plan: The request.
        loaded: The original.
        trained: What is saved.
        result: Where to.
        world: Of its processes the first one writes; the others only round.
    """
    model: Any = trained.model
    compute = next(model.parameters()).dtype
    if plan.adapter:
        for config in model.peft_config.values():
            config.base_model_name_or_path = str(plan.folder.path.resolve())
            config.inference_mode = True
    rounds = not plan.adapter and not world.sharded
    if rounds:
        _cast(model, loaded.stored_dtype)
    weights = gathered(model, loaded.stored_dtype) if world.sharded else None
    if world.first:
        shutil.rmtree(result, ignore_errors=True)
        with quiet():
            model.save_pretrained(result, state_dict=weights)
        copy_tokenizer(plan.folder.path, result)
    if rounds:
        _cast(model, compute)
    return result


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Parameters only: rotary buffers would stay rounded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _weights_changed(plan: Plan, trained: Trained, result: Path) -> int:
    """How many weights differ from the parent's (of an adapter: how many of its outputs move).

    What moves in a run-time part counts as well.
    """
    beside = 0 if trained.runtime is None else trained.runtime.moves
    if not plan.adapter and plan.folder.holds == "model":
        return write_patch(plan.folder.path, result) + beside
    if not plan.adapter:
        return int(folder_digest(result) != plan.folder.digest) + beside
    weights = load_file(result / "adapter_model.safetensors")
    return sum(int(w.count_nonzero()) for name, w in weights.items() if "lora_B" in name)


def _publish(out: Path, result: Path, manifest: Mapping[str, Any]) -> None:
    """Move the result out of the run's folder; the manifest last, then the run's folder goes."""
    made = out / RUN / MADE
    for file in sorted(made.iterdir()) if made.is_dir() else ():
        (out / MADE).mkdir(exist_ok=True)
        shutil.rmtree(out / MADE / file.name, ignore_errors=True)  # a folder of a cut-off move
        file.replace(out / MADE / file.name)
    for file in sorted(result.iterdir()):
        file.replace(out / file.name)
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / RUN, ignore_errors=True)
