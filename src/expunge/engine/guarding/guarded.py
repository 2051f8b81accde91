"""A model behind its guards: something to ask and to audit like any other."""

import copy
from collections.abc import Sequence
from functools import partial

from expunge.engine.guarding.fitting import Working
from expunge.engine.guarding.pipeline import INSIDE, TEXT, Pipeline
from expunge.engine.guarding.stored import name_of
from expunge.engine.runtime import Served
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


def speaks(guard: Working) -> bool:
    """Whether a guard looks at texts, and not into the model alone."""
    return any(hasattr(guard.module, name) for name in ("enter", "leave"))
