"""Stop levels: the negative log-likelihood at which forget rows look like rows never seen.

Overshoot is the normal failure of unlearning: past this level a model marks the forgotten rows by
how unlikely it finds them, and pays for it in utility.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.engine.datasets import wordings_of
from expunge.engine.measure import Level
from expunge.requests.rows import Row
from expunge.requests.scope import placebo

if TYPE_CHECKING:
    from expunge.lm.subject import Subject


@dataclass(frozen=True, slots=True)
class StopAt:
    """``--stop-at`` read: a kind (``nll placebo reference none``) and a number for ``nll``."""

    kind: str
    nll: float | None = None

    @classmethod
    def parse(cls, text: str) -> "StopAt":
        """Read ``nll=5.2``, ``placebo``, ``reference`` or ``none``.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        kind, _, number = text.partition("=")
        try:
            if kind == "nll" and math.isfinite(float(number)):
                return cls("nll", float(number))
        except ValueError:
            pass
        if kind in ("placebo", "reference", "none") and not number:
            return cls(kind)
        raise ExpungeError(
            "E-USE-003",
            f"--stop-at {text}.",
            "nll=NUMBER (nats a token), placebo, reference or none.",
            "Use --stop-at placebo, the default, when in doubt.",
        )


@dataclass(frozen=True, slots=True)
class StopLevel:
    """Where the forget term rests.

    Attributes:
        nll: Mean negative log-likelihood of the rows compared with, nats a token.
        target: The same with no row counted above ``nll``; None when a number was given by hand.
        origin: Which rows those are, for ``change.json`` and the person watching.
    """

    nll: float
    target: float | None
    origin: str

    def reached(self, now: Level) -> bool:
        """Whether the forget rows look like the rows compared with.

        A plain mean would let a few rows driven far up hide rows still known, so both sides are
        clipped at ``nll``.
        """
        if self.target is None:
            return now.nll >= self.nll
        return now.clipped(self.nll) >= self.target


def stop_level(
    stop_at: StopAt,
    *,
    original: "Subject",
    reference: "Subject | None",
    forget: Sequence[Row],
    holdout: Sequence[Row],
    seed: int,
) -> StopLevel | None:
    """The level at which forgetting rests, or None to run all steps.

    ``placebo`` takes the user's hold-out rows, else invented subjects in the same templates, else
    each forget prompt with another row's answer.
    """
    if stop_at.kind == "nll" and stop_at.nll is not None:
        return StopLevel(stop_at.nll, None, "given")
    if stop_at.kind == "reference" and reference is not None:
        return _level_of(reference, forget, "reference model on the forget rows")
    if stop_at.kind == "placebo":
        rows, origin = never_seen(forget, holdout, seed)
        if rows:
            return _level_of(original, rows, origin)
    return None


def _level_of(subject: "Subject", rows: Sequence[Row], origin: str) -> StopLevel:
    scored = [s.nll for s in subject.score([t for row in rows for t in wordings_of(row)])]
    mean = sum(scored) / len(scored)
    return StopLevel(mean, Level(mean, math.nan, tuple(scored)).clipped(mean), origin)


def never_seen(
    forget: Sequence[Row], holdout: Sequence[Row], seed: int
) -> tuple[Sequence[Row], str]:
    """Rows like the forget rows that no model has seen, and where they come from."""
    if holdout:
        return holdout, "hold-out rows"
    invented = placebo(forget, max(len(forget), 20), seed)
    if invented:
        return invented, "invented subjects in the forget rows' templates"
    return _exchanged(forget, seed), "forget prompts with one another's answers"


def _exchanged(rows: Sequence[Row], seed: int) -> list[Row]:
    asked = [row for row in rows if row.prompt is not None]
    if len({row.completion for row in asked}) < 2:
        return []
    shift = 1 + int(generator(seed, "exchange").integers(len(asked) - 1))
    pairs = zip(asked, asked[shift:] + asked[:shift], strict=True)
    return [
        replace(row, completion=other.completion)
        for row, other in pairs
        if row.completion != other.completion
    ]
