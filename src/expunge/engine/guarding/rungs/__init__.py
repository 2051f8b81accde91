"""Rungs of the gate, one file each, and the ladders that guards use unless they say otherwise."""

from typing import TYPE_CHECKING

from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.ladder import Ladder, Rung
from expunge.engine.guarding.rungs.decided import Decided
from expunge.engine.guarding.rungs.exact import Answers, Names, Passages, Questions
from expunge.engine.guarding.rungs.wording import Spelling, Wording
from expunge.text.embedding import HASHING

if TYPE_CHECKING:
    from expunge.text.embedding import Embedder


def standard(secret: bytes) -> Ladder:
    """The ladder for questions of a guard that names none: whole matches, nothing to calibrate.

    Args:
        secret: Key of the hashes.
    """
    return Ladder([Names(secret), Questions(secret)])


def full(
    secret: bytes, embed: "str | Embedder" = HASHING, decider: Decider | None = None
) -> Ladder:
    """The ladder for questions with every rung there is; its thresholds want calibration.

    All rungs are asked, so that every target a question is about is among the hits.

    Args:
        secret: Key of the hashes and of the folding of vectors.
        embed: ``hashing``, the folder of a static embedding model, or what makes vectors of texts.
        decider: Who judges the targets that come near and do not fire; none leaves that out.
    """
    from expunge.engine.guarding.rungs.meaning import Meaning

    near: list[Rung] = [Spelling(secret), Wording(secret), Meaning(secret, embed)]
    last: list[Rung] = [] if decider is None else [Decided(decider, near)]
    return Ladder([Names(secret), Questions(secret), *near, *last], is_union=True)


def of_drafts(secret: bytes, answer_words: int = 2) -> Ladder:
    """The ladder for the drafts of answers.

    Args:
        secret: Key of the hashes.
        answer_words: Shortest answer, in words, that is looked for beside a name.
    """
    return Ladder([Names(secret), Answers(secret, answer_words), Passages(secret)])
