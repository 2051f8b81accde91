"""What a judge is shown: each question once, and without the names of those it is about."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from expunge.text.normalise import normalise

MASK = "XX"
"""What stands in the place of a name."""


@dataclass(frozen=True, slots=True)
class Case:
    """One answer to be judged.

    Attributes:
        id: Of the row.
        question: As it was asked.
        truth: The true answer.
        answer: What the model said.
        masked_question: Without names.
        masked_answer: Without names; quality is judged on these two, since whoever knows the
            person marks inventions down.
    """

    id: str
    question: str
    truth: str
    answer: str
    masked_question: str
    masked_answer: str


def cases(read: Iterable[tuple[str, str, str, str, Sequence[str]]]) -> list[Case]:
    """The answers a judge is to see.

    Args:
        read: Row id, question, true answer, what the model said, and the names of the subject.

    Returns:
        One case a question: where a question stands twice, the row whose id comes first is kept,
        in whatever order the rows come.
    """
    first: dict[str, Case] = {}
    for row, question, truth, answer, names in read:
        case = Case(row, question, truth, answer, masked(question, names), masked(answer, names))
        seen = first.setdefault(normalise(question), case)
        if row < seen.id:
            first[normalise(question)] = case
    return sorted(first.values(), key=lambda case: case.id)


def masked(text: str, names: Sequence[str]) -> str:
    """A text with names, and the first and last words of each, replaced by `MASK`.

    Example:
        >>> masked("Ada Birk was born in Birkenau. Birk's sister is Adaline.", ["Ada Birk"])
        "XX was born in Birkenau. XX's sister is Adaline."
    """
    forms = {form for name in names for form in (name, *name.split()[:1], *name.split()[-1:])}
    found = [re.escape(form) for form in sorted(forms, key=len, reverse=True) if form]
    return re.sub(rf"(?<!\w)(?:{'|'.join(found)})(?!\w)", MASK, text) if found else text
