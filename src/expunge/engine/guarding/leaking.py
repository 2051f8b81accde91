"""Whether a text gives away what some targets asked to hold back."""

from collections.abc import Collection

from expunge.engine.guarding.desk import Desk
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.rungs.exact import Answers, Passages

EVERY = 1 << 30
"""More targets than there can be: a value that many share must not hide the one asked about."""


def of_facts(secret: bytes) -> Ladder:
    """A ladder for drafts that looks for facts alone, however short, and not for names.

    For guards whose model may name the subject, as in "I know nothing about Ada Birk".

    Args:
        secret: Key of the hashes.
    """
    return Ladder([Answers(secret, least=1), Passages(secret)])


def reveals(text: str, targets: Collection[str], desk: Desk) -> bool:
    """Whether a text holds a fact of one of some targets, or quotes a passage of any target.

    A short fact says nothing where its subject is not spoken of, and many targets share it; a
    passage is known by itself.

    Args:
        text: A draft, or anything else that a guard is about to let out.
        targets: Those that are spoken of.
        desk: Of the guard; its rungs for drafts decide.
    """
    return any(
        id in targets or rung.name == Passages.name
        for rung in desk.drafts.rungs
        for id, _ in rung.scores(text, EVERY)
    )
