"""What of a request to an ensemble can be known to be wrong before weights load."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from expunge.core.errors import ExpungeError, Problems
from expunge.core.families import EnsembleParams, GradientParams
from expunge.core.registry import methods
from expunge.engine.counts import shape
from expunge.engine.exact.scheme import is_ensemble, scheme_of
from expunge.engine.exact.state import Ensemble, asked_of, recipe_of
from expunge.engine.made import FOLDER as MADE
from expunge.engine.part_files import entries_of
from expunge.engine.world import sharding
from expunge.lm.folder import Folder
from expunge.requests.rows import Row

SHOWN = 5
"""Parameters that a message names."""


def earlier_of(method: str, folder: Folder) -> Ensemble | None:
    """The ensemble that a model has, of this method; None where it has none.

    Raises:
        ExpungeError: ``E-MODEL-002`` when it is served with one whose state is not there.
    """
    own = methods.card(method).id
    if folder.manifest is None or own not in _methods_in(folder):
        return None
    if not (folder.path / MADE).is_dir():
        raise ExpungeError(
            "E-MODEL-002",
            f"{folder.path} is served with an ensemble of {own}, and has no {MADE}/ with its "
            "state.",
            f"the folder of a change that {own} itself has made.",
            "Name that one.",
        )
    return Ensemble.read(folder.path / MADE)


def own_base(method: str, folder: Folder) -> str | None:
    """The base of the ensemble that a model has, of this method: the weights of its folder."""
    own = methods.card(method).id
    is_own = folder.manifest is not None and own in _methods_in(folder)
    return str(folder.path) if is_own and is_ensemble(methods.load(method)) else None


def parts_beside(method: str, folder: Folder) -> Iterator[ExpungeError]:
    """Run-time parts of other methods, which what is trained anew would be served with."""
    own = methods.card(method).id
    others = [] if folder.manifest is None else [m for m in _methods_in(folder) if m != own]
    if others:
        yield ExpungeError(
            "E-USE-006",
            f"{method} on {folder.path}, which has a run-time part of {others[0]}.",
            "a model without: the part was made for other weights, and may have met the rows.",
            "Name the model that this change was made from.",
        )


def problems_of(
    method: str,
    params: GradientParams | None,
    folder: Folder,
    base: Folder | None,
    *,
    rows: Mapping[str, Sequence[Row]],
    seed: int,
    max_minutes: float | None,
) -> list[ExpungeError]:
    """What is wrong with a request to a method that trains an ensemble; nothing for others.

    Args:
        method: Id of the method.
        params: Its parameters, if they could be read.
        folder: The model to change.
        base: The base model, if one is named.
        rows: The rows given, by role.
        seed: Of the run.
        max_minutes: Longest training time, if there is one.
    """
    if not isinstance(params, EnsembleParams) or not is_ensemble(methods.load(method)):
        return []
    found = list(_about_options(method, params, max_minutes))
    if base is None or folder.problems or base.problems:
        return found
    found += _about_precision(folder, base)
    try:
        blocks, _, _ = shape(base.config)
        scheme = scheme_of(methods.load(method), params, blocks, seed)
        before = earlier_of(method, folder)
    except Problems as several:
        return [*found, *several.problems]
    except ExpungeError as one:
        return [*found, one]
    if before is not None:
        wrong = list(_about_recipe(before, params, seed, folder))
        found += wrong
        if not wrong:
            found += _about_rows(before, rows, scheme.retrains)
    return found


def _methods_in(folder: Folder) -> list[str]:
    return [str(entry["method"]) for entry in entries_of(folder.manifest or {})]


def _about_options(
    method: str, params: EnsembleParams, max_minutes: float | None
) -> Iterator[ExpungeError]:
    if max_minutes is not None:
        yield _together(
            f"--max-minutes with {method}: an ensemble is whole, or none.",
            "Leave it out. A run that is interrupted goes on by the same command.",
        )
    if sharding() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield _together(f"Several processes with {method}.", "Start it without torchrun.")
    if params.precision == "bf16-masters":
        yield _together(
            f"precision=bf16-masters with {method}: adapters are float32 in any case, and nothing "
            "else moves.",
            "Use --set precision=bf16.",
        )


def _about_precision(folder: Folder, base: Folder) -> Iterator[ExpungeError]:
    if folder.dtype != base.dtype:
        yield _together(
            f"The base is stored in {base.dtype}, the original in {folder.dtype}, in which the "
            "change would be written: adapters would stand on rounded weights.",
            "Store the base as the original is.",
        )


def _about_recipe(
    before: Ensemble, params: EnsembleParams, seed: int, folder: Folder
) -> Iterator[ExpungeError]:
    asked = recipe_of(params, seed)
    other = {name: was for name, was in before.recipe.items() if asked.get(name, was) != was}
    if other:
        named = ", ".join(f"{n}={_text(w)} (asked: {_text(asked[n])})" for n, w in other.items())
        sets = [f"--set {n}={_text(w)}" for n, w in other.items() if n != "seed"]
        sets += [f"--seed {other['seed']}"] if "seed" in other else []
        yield _together(
            f"The ensemble in {folder.path} was built with {named}.",
            f"Give {' '.join(sets[:SHOWN])}{' ...' if len(sets) > SHOWN else ''}: what is trained "
            "anew must be trained as the rest was.",
        )


def _about_rows(
    before: Ensemble, rows: Mapping[str, Sequence[Row]], retrains: Any
) -> Iterator[ExpungeError]:
    kept = [*rows.get("retain", ()), *rows.get("neighbour", ())]
    asked = asked_of(before, rows.get("forget", ()), kept, retrains)
    if asked.missing:
        yield ExpungeError(
            "E-USE-007",
            f"{len(asked.missing)} rows that shards {list(asked.anew)} are trained on anew are "
            "neither kept nor to be forgotten.",
            "every row that the ensemble was trained on and that stays.",
            "Give them all in --retain.",
        )


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _together(found: str, remedy: str) -> ExpungeError:
    return ExpungeError("E-USE-006", found, "options that go together.", remedy)
