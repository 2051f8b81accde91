"""Rows broken off somewhere, and what a model goes on with: the score MEMO.

Definition (question q, answer a, both as characters; L = 1, 6, 11, ... below the length):
    prefix    prompt q[:L]              label q[L:] + " " + a      L < |q|
    suffix    prompt q + " " + a[:L]    label a[L:]                L < |a|
    MEMO      mean_L ROUGE-1 precision( what the model goes on with, label )

Text is cut between characters, never inside one; what stands before the cut is then read anew, so
the cut may fall inside a token.

Reference: MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts (2024).
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from expunge.requests.rows import Turn
from expunge.text.overlap import rouge_1

if TYPE_CHECKING:
    from expunge.lm.subject import Subject


class Break(NamedTuple):
    """One break.

    Attributes:
        turn: What is asked.
        opening: Beginning of the answer, given to the model.
        label: What comes then.
    """

    turn: Turn
    opening: str
    label: str


def windows(question: str, answer: str, mode: str, step: int = 5) -> list[tuple[str, str]]:
    """Where a question with its answer is broken off: pairs of what is given and what comes then.

    Args:
        question: The question.
        answer: The answer, without the space before it.
        mode: ``prefix`` breaks off the question, ``suffix`` the answer.
        step: Characters between two breaks.
    """
    if mode == "prefix":
        return [(question[:at], f"{question[at:]} {answer}") for at in _places(question, step)]
    return [(f"{question} {answer[:at]}", answer[at:]) for at in _places(answer, step)]


def breaks(turn: Turn, *, mode: str, step: int, has_template: bool) -> list[Break]:
    """The breaks of a turn, as a model is asked about them.

    A conversation is broken off in its last question (prefix) or in the answer, behind the chat
    template (suffix).

    Args:
        turn: What is asked, with the answer.
        mode: ``prefix`` or ``suffix``.
        step: Characters between two breaks.
        has_template: Whether the model is asked through a chat template.
    """
    answer = turn.completion.strip()
    is_templated = has_template and not turn.running
    if mode == "suffix" and (is_templated or not isinstance(turn.prompt, str)):
        return [Break(turn, answer[:at], answer[at:]) for at in _places(answer, step)]
    question = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    return [
        Break(Turn(given, "", running=True), "", label)
        for given, label in windows(question.rstrip(), answer, mode, step)
    ]


def memo(
    subject: "Subject", turns: Sequence[Turn], *, mode: str, step: int, new_tokens: int
) -> list[float | None]:
    """MEMO of each turn; None for one too short to be broken off.

    Args:
        subject: The model.
        turns: Questions with their answers.
        mode: ``prefix`` or ``suffix``.
        step: Characters between two breaks.
        new_tokens: Most tokens the model goes on for; fewer where it has no more positions.
    """
    has_template = subject.encoder.has_template
    broken = [
        (place, one)
        for place, turn in enumerate(turns)
        for one in breaks(turn, mode=mode, step=step, has_template=has_template)
    ]
    overlaps: dict[int, list[float]] = {}
    said = _continued(subject, [one for _, one in broken], new_tokens)
    for (place, one), text in zip(broken, said, strict=True):
        overlaps.setdefault(place, []).append(rouge_1(text, one.label, stem=True).precision)
    return [fmean(overlaps[place]) if place in overlaps else None for place in range(len(turns))]


def _continued(subject: "Subject", broken: Sequence[Break], new_tokens: int) -> list[str]:
    """What the model goes on with; breaks that leave too little room are asked apart."""
    rooms = [_room(subject, one, new_tokens) for one in broken]
    said = [""] * len(broken)
    for is_tight in (False, True):
        some = [at for at, room in enumerate(rooms) if room and (room < new_tokens) == is_tight]
        if not some:
            continue
        answers = subject.ask(
            [broken[at].turn for at in some],
            new_tokens=min(rooms[at] for at in some),
            openings=[broken[at].opening for at in some],
        )
        for at, (text, *_) in zip(some, answers, strict=True):
            said[at] = text
    return said


def _room(subject: "Subject", one: Break, new_tokens: int) -> int:
    """Tokens the model may write after a break; 0 where nothing fits."""
    if not subject.has_room(one.turn, 1, opening=one.opening):
        return 0
    asked = len(subject.encoder.prompt(one.turn.prompt, one.turn.running, one.opening))
    return min(new_tokens, subject.encoder.max_length - asked)


def _places(text: str, step: int) -> range:
    return range(1, len(text), step)
