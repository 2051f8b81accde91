"""A model behind its guards: something to ask and to audit like any other."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from expunge.core.registry import guards as registry
from expunge.engine.guarding import stored
from expunge.engine.guarding.deciders import read_decider
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.fitting import Working, opened
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.roles import cast, needed
from expunge.engine.guarding.stored import name_of
from expunge.engine.guarding.talking import read_chats
from expunge.engine.runtime import Served
from expunge.lm.folder import inspect_folder
from expunge.lm.subject import Subject


def guarded(subject: Subject, guards: Sequence[Working]) -> Subject:
    """Put guards in front of a model, and into it where they work inside.

    Args:
        subject: The model; it is not changed.
        guards: The guards.

    Returns:
        A subject whose gate is the pipeline; past it, and past what is hooked into the model,
        `expunge.engine.runtime.without_parts` finds the model as it was.

    Raises:
        ExpungeError: As `Pipeline`.
    """
    pipeline = Pipeline(guards, offers=TEXT | INSIDE)
    inside = {
        name_of(guard.state): partial(
            guard.module.attach, tokenizer=subject.tokenizer, desk=guard.desk
        )
        for guard in pipeline.guards
        if hasattr(guard.module, "attach")
    }
    served = Served(subject, (), inside) if inside else copy.copy(subject)
    served.gate = pipeline if any(map(speaks, guards)) else subject.gate
    return served


def behind_guards(subject: Subject, folder: Path) -> Subject:
    """A model behind the guard of a change folder, and behind those of the folders below it.

    Raises:
        ExpungeError: As `guarded`, as `stored.read`, and for roles that nobody plays.
    """
    return guarded(subject, list(_guards(subject, folder)))


def _guards(subject: Subject, folder: Path) -> Iterator[Working]:
    """The guards of a folder, its own first; what must be played the model plays itself."""
    manifest = inspect_folder(folder).manifest or {}
    runtime = manifest.get("runtime")
    if not isinstance(runtime, Mapping) or "guard" not in runtime:
        return
    state, secret = stored.read(folder, runtime)
    named = runtime.get("decider")
    decider = read_decider(named) if named else None
    params = registry.params(state.guard, state.params)
    roles = needed(registry.load(state.guard), params, decider)
    means = Means(
        secret=secret,
        seed=state.seed,
        chats=cast(roles, read_chats(runtime.get("chats", ())), subject),
        decider=decider,
        subject=subject,
    )
    yield opened(state, means)
    yield from _guards(subject, Path(manifest["parent"]["path"]))


def speaks(guard: Working) -> bool:
    """Whether a guard looks at texts, and not into the model alone."""
    return any(hasattr(guard.module, name) for name in ("enter", "leave"))
