"""Which turns a model can read at all."""

from collections.abc import Mapping

from expunge.core.errors import ExpungeError
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn


def legible(subject: Subject, turns: Mapping[str, Turn]) -> dict[str, Turn]:
    """The turns that a model can score.

    Args:
        subject: The model.
        turns: Row id -> turn.

    Returns:
        The same without those that are too long for the model, that have a completion without a
        token of text, or that are a conversation for a model without a chat template.
    """
    return {row: turn for row, turn in turns.items() if _has_text(subject, turn)}


def left_out(given: int, kept: int, why: str) -> str:
    """A note on the rows that were not tested; empty where all were."""
    return f"{given - kept} of {given} rows {why} and are left out" if given > kept else ""


def _has_text(subject: Subject, turn: Turn) -> bool:
    try:
        spans = subject.encoder.encode(turn).spans
    except ExpungeError:
        return False
    return any(start < end for start, end in spans)
