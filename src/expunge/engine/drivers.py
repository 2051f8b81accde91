"""Drivers: how a method of each kind gets from the original to changed weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.registry import methods
from expunge.engine.exact import base_of, record_of
from expunge.engine.exact.making import made
from expunge.engine.exact.scheme import is_ensemble
from expunge.engine.exact.telling import details_of
from expunge.engine.levels import StopLevel
from expunge.engine.precision import loading_dtype
from expunge.engine.session import Session, Trained
from expunge.lm.load import load
from expunge.lm.subject import Subject


@dataclass(frozen=True, slots=True)
class Driven:
    """How a drive ended.

    Attributes:
        session: The session that holds the changed model.
        trained: What it ended with.
        record: What the manifest tells of the way, beside what every run tells.
        details: What the summary tells of it.
    """

    session: Session
    trained: Trained
    record: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def gradient(session: Session, stop: StopLevel | None) -> Driven:
    """Change the original by gradient steps, until the stop level.

    A method whose card says ``"through": True`` goes on to its last step whatever the level.
    """
    through = bool(methods.card(session.plan.method).extra.get("through"))
    trained = session.train(stop, through=through)
    return Driven(session, trained, trained.record, _short(trained.record))


def edit(session: Session, stop: StopLevel | None) -> Driven:
    """Let the method change the weights by itself."""
    trained = session.edit(stop)
    return Driven(session, trained, trained.record, _short(trained.record))


def merge(session: Session, stop: StopLevel | None) -> Driven:
    """Train to the last step; the method's `finish` then goes from the original to the result."""
    trained = session.train(stop, through=True)
    return Driven(session, trained, trained.record, _short(trained.record))


def exact(session: Session, stop: StopLevel | None) -> Driven:
    """Train the base model, or an ensemble on it, on the rows that stay.

    The original is only compared with.
    """
    plan, original = session.plan, session.subject
    base = load(base_of(plan).path, dtype=loading_dtype(plan.params, adapted=False))
    record = record_of(plan, base.digest)
    subject = Subject(base.model, original.tokenizer, digest=base.digest)
    anew = Session(plan, subject, session.run, session.world)
    told: dict[str, Any] = {}
    if is_ensemble(methods.load(plan.method)):
        trained = made(anew, original)
        record |= trained.record
        told = details_of(trained.record)
    else:
        trained = anew.train(None)
    details = {"base": record["base"]["digest"][:16], "trained_rows": len(record["rows"])}
    details |= {"near_duplicates": len(record["alike"]), **told}
    return Driven(anew, trained, record, details)


def reinforcement(session: Session, stop: StopLevel | None) -> Driven:
    """Reward what the model says, until the stop level or the last step."""
    from expunge.engine.reinforcement.driver import reinforce  # the library takes seconds to load

    trained = reinforce(session, stop)
    return Driven(session, trained, trained.record, _short(trained.record))


DRIVERS: Mapping[str, Callable[[Session, StopLevel | None], Driven]] = {
    "gradient": gradient,
    "merge": merge,
    "edit": edit,
    "exact": exact,
    "reinforcement": reinforcement,
}


def _short(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told for name, told in record.items() if not isinstance(told, list | dict)}
