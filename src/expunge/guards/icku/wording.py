"""What the model reads: the block before the question, and the samples it learns the block from.

    <<UNL>>
    T
    <</UNL>>

    q

No torch here: a gateway writes blocks without it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    import numpy as np

OPEN, CLOSE = "<<UNL>>", "<</UNL>>"
"""The two tokens, as they are written."""

_LITERAL = re.compile(r"<(?=</?UNL>>)")


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question that is asked twice: with what it is about in the block, and with something else.

    Attributes:
        turn: The question with its answer.
        own: What stands in the block of the forget sample.
        others: What may stand in that of the retain sample.
    """

    turn: Turn
    own: str
    others: tuple[str, ...]


def block(withheld: Sequence[str], question: str, *, inst: bool = False) -> str:
    """A question behind the blocks of what is withheld, one block for each.

    Args:
        withheld: What stands in the blocks; white space is closed up.
        question: The question, as it is.
        inst: Whether ``[INST]`` and ``[/INST]`` are written around it.
    """
    head = "".join(f"{OPEN}\n{' '.join(one.split())}\n{CLOSE}\n\n" for one in withheld)
    return f"[INST] {head}{question} [/INST]" if inst else f"{head}{question}"


def neutral(text: str) -> str:
    """A text in which the two tokens are written as no tokens: a space parts them.

    Example:
        >>> neutral("<<UNL>> Ada <</UNL>>"), neutral("<<unl>> is as it was")
        ('< <UNL>> Ada < </UNL>>', '<<unl>> is as it was')
    """
    return _LITERAL.sub("< ", text)


def lessons(rows: Sequence[Row], withheld: str) -> list[Lesson]:
    """What there is to learn from, a lesson for each wording of a row.

    Args:
        rows: Questions with answers.
        withheld: ``answer`` puts values into the block, ``subject`` names.

    Raises:
        ExpungeError: ``E-USE-007`` when no row has something to withhold and something else.
    """
    own = {
        row.id: told(row, withheld) for row in rows if not row.turn.running and row.reply.strip()
    }
    every = list(dict.fromkeys(one for them in own.values() for one in them[:1]))
    found = [
        Lesson(turn, own[row.id][0], others)
        for row in rows
        if own.get(row.id)
        for others in [_others(row, own[row.id], every, withheld)]
        if others
        for turn in row.turns
    ]
    if not found:
        raise ExpungeError(
            "E-USE-007",
            f"icku learns from {len(rows)} rows to be kept, and none of them has "
            + ("a name." if withheld == "subject" else "an answer that differs from the others'."),
            "questions with short answers (and names, for withheld=subject) that the model knows.",
            "Give such rows as --retain.",
        )
    return found


def told(row: Row, withheld: str) -> tuple[str, ...]:
    """What of a row may stand in a block."""
    forms = row.names if withheld == "subject" else row.forms
    return tuple(form.strip() for form in forms if form.strip())


def samples(
    told: Sequence[Lesson], word: str, blocks: int, seed: int, *, inst: bool
) -> Iterator[list[Turn]]:
    """The samples of one pass after another: of each lesson first forget, then retain.

    Args:
        told: The lessons.
        word: What is said instead of an answer.
        blocks: Most blocks of a sample; how many it has is drawn.
        seed: Decides what else stands in the blocks; it is drawn anew in every pass.
        inst: As in `block`.
    """
    for number in count():
        draw = generator(seed, "icku", "distractor", number)
        yield [turn for one in told for turn in _both(one, word, blocks, draw, inst)]


def question_of(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """What a prompt asks."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def asking(turn: Turn, text: str, completion: str) -> Turn:
    """The turn with another question and another completion."""
    if isinstance(turn.prompt, str):
        return Turn(text, completion, running=turn.running)
    return Turn((*turn.prompt[:-1], {**turn.prompt[-1], "content": text}), completion)


def _both(
    one: Lesson, word: str, blocks: int, draw: "np.random.Generator", inst: bool
) -> list[Turn]:
    said, question = one.turn.completion, neutral(question_of(one.turn.prompt))
    instead = said[: len(said) - len(said.lstrip())] + word
    size = 1 + int(draw.integers(min(blocks, len(one.others))))
    others = [one.others[at] for at in draw.permutation(len(one.others))[:size]]
    held = [*others[1:], one.own]
    held = [held[at] for at in draw.permutation(size)]
    return [
        asking(one.turn, block(told, question, inst=inst), out)
        for told, out in ((held, instead), (others, said))
    ]


def _others(row: Row, own: Sequence[str], every: Sequence[str], withheld: str) -> tuple[str, ...]:
    """Wrong options of a row where it lists some of the same kind, else what other rows have."""
    if withheld == "answer" and row.answer is None and row.wrong:
        return tuple(one.strip() for one in row.wrong)
    same = {form.casefold() for form in own}
    return tuple(one for one in every if one.casefold() not in same)


def policy_of(text: str) -> dict[str, tuple[str, ...]]:
    """The policy: role of a caller -> the targets withheld from it.

    Args:
        text: ``role=target,target`` parted by ``;``.

    Raises:
        ValueError: When it is written otherwise, or a role stands twice.

    Example:
        >>> policy_of("staff=; guest=*,5f0c")
        {'staff': (), 'guest': ('*', '5f0c')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        role, is_given, targets = part.partition("=")
        if not is_given or not role.strip() or role.strip() in found:
            raise ValueError(part)
        told: Any = (one.strip() for one in targets.split(","))
        found[role.strip()] = tuple(one for one in told if one)
    return found
