"""The public calls: forget, audit, guard, load; on objects in memory or on folders."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError, raise_all
from expunge.core.paths import locked
from expunge.core.registry import guards
from expunge.data.jsonl import read_rows
from expunge.engine.again import carry_out, how_it_was_made, is_repeatable
from expunge.engine.change import FORMAT, MANIFEST, Change, load_change
from expunge.engine.check import Report, occupied, read_roles
from expunge.engine.guarding import stored
from expunge.engine.guarding.chat import Chat
from expunge.engine.guarding.deciders import read_decider
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.fitting import fitted
from expunge.engine.guarding.guarded import behind_guards, guarded
from expunge.engine.guarding.pipeline import TEXT
from expunge.engine.guarding.roles import cast, needed, unplayed
from expunge.engine.guarding.talking import read_chats
from expunge.engine.guarding.targets import targets_of
from expunge.engine.part_files import served
from expunge.engine.run import forget as forget_folder
from expunge.lm.folder import inspect_folder
from expunge.lm.load import load as load_weights
from expunge.lm.load import quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.audit.record import Audit

Rows = str | Path | Sequence[Row]


def load(path: str | Path, *, runtime: bool = True) -> Subject:
    """Open a model, adapter or change folder as something to ask, score and audit.

    Args:
        path: The folder, or a hub id.
        runtime: Whether to attach what the change has beside its weights: a guard, or what a method
            puts into the forward pass.

    Raises:
        ExpungeError: For anything unsafe, broken, or not what its manifest says.
    """
    loaded = load_weights(path)
    subject = Subject(loaded.model, loaded.tokenizer, digest=loaded.digest)
    if not runtime:
        return subject
    subject = served(subject, inspect_folder(loaded.path))
    beside = (loaded.manifest or {}).get("runtime")
    if isinstance(beside, Mapping) and "guard" in beside:
        return behind_guards(subject, loaded.path)
    return subject


def forget(
    model: "str | Path | PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    forget: Rows,
    retain: Rows | None = None,
    method: str = "npo",
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    **options: Any,
) -> Change:
    """Make a model forget rows; the model given is not changed.

    Args:
        model: A folder, or a model in memory (then give its tokenizer).
        tokenizer: The tokenizer of a model in memory.
        forget: Rows to be forgotten, or a file of them.
        retain: Rows to be kept, or a file of them.
        method: Id of the method.
        params: Its parameters.
        seed: Seed of the run.
        out: Folder for the change; a new temporary one when not given.
        **options: The other options of `expunge.engine.run.forget`.

    Returns:
        The change; its folder loads with `load` or ``from_pretrained``.

    Example:
        ``expunge.forget("model", forget="forget.jsonl", retain="retain.jsonl", out="change")``
    """
    folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="expunge-")) / "change"
    parent = model if isinstance(model, str | Path) else _saved(model, tokenizer, folder)
    forget_folder(
        parent, forget, retain, method=method, params=params, seed=seed, out=folder, **options
    )
    return load_change(folder)


def audit(
    model: "str | Path | Change | Subject",
    *,
    forget: Rows,
    retain: Rows | None = None,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    original: "str | Path | Subject | PreTrainedModel | None" = None,
    reference: "str | Path | Subject | PreTrainedModel | None" = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    **options: Any,
) -> "Audit":
    """Attack a model and say what it still knows of the forget rows.

    Args:
        model: A change, a folder, or a subject.
        forget: The rows it is said to have forgotten.
        retain: Rows it must still know.
        neighbour: Rows close to the forgotten ones that it must still know.
        holdout: Rows like the forgotten ones that it never saw.
        original: The model before; a change knows its own.
        reference: A model trained without the forget rows.
        tokenizer: The tokenizer of models given in memory.
        **options: ``profile only skip seed require min_utility cache`` of `expunge.audit.run`.
    """
    from expunge.audit.run import audit as run
    from expunge.lm.samples import check_same_tokens

    if isinstance(model, Change):
        original = original or model.manifest["parent"]["path"]
        model = model.folder
    elif isinstance(model, str | Path) and original is None:
        original = _original_of(Path(model))
    models = {"model": model, "original": original, "reference": reference}
    subjects = {name: _subject(one, tokenizer) for name, one in models.items() if one is not None}
    check_same_tokens(*subjects.values(), added=True)
    kept = _rows(retain, "retain")
    return run(
        subjects["model"],
        forget=_rows(forget, "forget"),
        retain=kept,
        neighbour=_rows(neighbour, "neighbour"),
        holdout=_rows(holdout, "holdout"),
        original=subjects.get("original"),
        reference=subjects.get("reference"),
        paths={name: one for name, one in models.items() if isinstance(one, str | Path)},
        unlearn=_process(model, kept),
        made=how_it_was_made(_manifest(model)),
        **options,
    )


def audit_paths(
    model: str | Path,
    forget: Rows,
    retain: Rows | None = None,
    *,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    original: str | Path | None = None,
    reference: str | Path | None = None,
    profile: str = "default",
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    require: str | None = None,
    min_utility: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> "Audit":
    """``expunge audit``: check everything, audit, and write the report to ``out``.

    Raises:
        ExpungeError: For bad input, all problems at once, before any weights load.
    """
    from expunge.audit.check import check_audit

    report = check_audit(
        model, forget, retain, neighbour=neighbour, holdout=holdout, original=original,
        reference=reference, profile=profile, only=only, skip=skip, require=require,
        min_utility=min_utility, seed=seed, out=out,
    )  # fmt: skip
    raise_all(report.problems)
    target = Path(str(out))
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        done = audit(
            Path(model), forget=forget, retain=retain, neighbour=neighbour, holdout=holdout,
            original=original, reference=reference, profile=profile, only=list(only) or None,
            skip=skip, require=require, min_utility=min_utility, seed=seed, cache=target / "cache",
        )  # fmt: skip
        done.save(target)
    return done


@dataclass(slots=True)
class Guarded:
    """A model behind its guard.

    Attributes:
        subject: The model with the gate in front.
        folder: The change folder, when one was written.
    """

    subject: Subject
    folder: Path | None = None

    def generate(self, prompts: Sequence[str], *, new_tokens: int = 64) -> list[str]:
        """Answer each prompt through the guard, greedily."""
        from expunge.requests.rows import Turn

        turns = [Turn(prompt, "") for prompt in prompts]
        return [texts[0] for texts in self.subject.ask(turns, new_tokens=new_tokens)]


def guard(
    model: "str | Path | PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    targets: Rows,
    retain: Rows | None = None,
    guard: str = "lexical",
    params: Mapping[str, Any] | None = None,
    chats: "Mapping[str, Chat] | None" = None,
    decider: "Decider | None" = None,
    seed: int = 0,
) -> Guarded:
    """Put a guard in front of a model at once. It suppresses; the weights keep what they know.

    Args:
        model: A folder, or a model in memory (then give its tokenizer).
        tokenizer: The tokenizer of a model in memory.
        targets: Rows whose content must not come out.
        retain: Rows whose questions must be let through; thresholds are set on them.
        guard: Id of the guard.
        params: Its parameters.
        chats: Role -> the language model that plays it, ``*`` for all others; None lets the guarded
            model play what must be played.
        decider: Answers typed questions, for guards that have use for it.
        seed: Of all randomness.

    Raises:
        ExpungeError: ``E-SERVE-002`` for roles that must be played, and nobody does.
    """
    resolved = guards.params(guard, params or {})
    roles = needed(guards.load(guard), resolved, decider)
    subject = _subject(model, tokenizer)
    means = Means(
        secret=token_bytes(32),
        seed=seed,
        retain=_rows(retain, "retain"),
        chats=cast(roles, {}, subject) if chats is None else cast(roles, chats),
        decider=decider,
        subject=subject,
    )
    rows = targets_of(_rows(targets, "forget"))
    working = fitted(guard, rows, resolved, means)
    return Guarded(guarded(subject, [working]))


def guard_paths(
    model: str | Path,
    forget: Rows,
    guard: str,
    params: Mapping[str, Any],
    out: str | Path,
    *,
    retain: Rows | None = None,
    chats: Sequence[str] = (),
    decider: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """``expunge guard``: write a change folder whose only part is a guard.

    Returns:
        ``out``, ``guard``, ``targets`` (their number), ``digest`` of the guard's state.

    Raises:
        ExpungeError: For bad input, all problems at once.
    """
    report = Report()
    given = {"forget": forget} if retain is None else {"forget": forget, "retain": retain}
    rows = read_roles(report, given)
    folder = inspect_folder(model)
    report.problems += folder.problems
    component = report.attempt(lambda: guards.load(guard))
    resolved = report.attempt(lambda: guards.params(guard, params)) if component else None
    players = report.attempt(lambda: read_chats(chats)) or {}
    decides = report.attempt(lambda: read_decider(decider)) if decider else None
    if (problem := occupied(Path(out))) is not None:
        report.problems.append(problem)
    raise_all(report.problems)
    assert component is not None  # noqa: S101
    card = component.CARD
    roles = needed(component, resolved, decides)
    is_asked = bool(set(card["stages"]) - TEXT or unplayed(roles, players))
    subject = load(model) if is_asked else None
    means = Means(
        secret=token_bytes(32),
        seed=seed,
        retain=rows.get("retain", ()),
        chats=cast(roles, players, subject),
        decider=decides,
        subject=subject,
    )
    targets = targets_of(rows["forget"])
    working = fitted(guard, targets, resolved, means)
    target = Path(out)
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        runtime = stored.write(target, working.state, means.secret)
        manifest = {
            "format": FORMAT,
            "kind": "guard",
            "parent": {"path": str(Path(model).resolve()), "digest": folder.digest},
            "result": {"digest": None},
            "runtime": {**runtime, "chats": list(chats), "decider": decider},
            "seed": seed,
        }
        write_json(target / MANIFEST, manifest)
    return {
        "out": str(out),
        "guard": card["id"],
        "targets": len(targets),
        "digest": runtime["digest"],
    }


def _process(model: Any, retain: Sequence[Row]) -> "Callable[[Sequence[Row]], Subject] | None":
    """Carries out a request as the change in a folder was made; None for anything else."""
    manifest = _manifest(model)
    if manifest is None or not is_repeatable(manifest):
        return None

    def unlearn(rows: Sequence[Row]) -> Subject:
        with tempfile.TemporaryDirectory(prefix="expunge-") as place:
            carry_out(manifest, rows, retain, Path(place) / "change")
            return load(Path(place) / "change")

    return unlearn


def _manifest(model: Any) -> Mapping[str, Any] | None:
    return inspect_folder(model).manifest if isinstance(model, str | Path) else None


def _rows(source: Rows | None, role: str) -> list[Row]:
    if isinstance(source, str | Path):
        return read_rows(source, role)
    return list(source or ())


def _subject(model: Any, tokenizer: Any) -> Subject:
    if isinstance(model, Subject):
        return model
    if isinstance(model, str | Path):
        return load(model)
    return Subject(model, _needed(tokenizer))


def _original_of(folder: Path) -> str | None:
    manifest = inspect_folder(folder).manifest
    return str(manifest["parent"]["path"]) if manifest else None


def _saved(model: "PreTrainedModel", tokenizer: Any, change: Path) -> Path:
    """A model in memory as a folder beside the change, which its manifest can name."""
    parent = change.parent / f"{change.name}-original"
    with quiet():
        model.save_pretrained(parent)
        _needed(tokenizer).save_pretrained(parent)
    return parent


def _needed(tokenizer: Any) -> Any:
    if tokenizer is None:
        raise ExpungeError(
            "E-USE-007",
            "a model in memory without its tokenizer.",
            "both.",
            "Give the tokenizer as well, or the folder of the model.",
        )
    return tokenizer
