"""Personal data in a text: which values, and of which kind. The same text gives the same answer.

The rule: what has the form of an address, a number, a date or an e-mail address is a value, and its
kind is the nearest cue that goes with that form ("born", "credit card", "resides at"), in the
answer first and then in the question. A value whose kind neither says is an error and never
nothing: a text taken for harmless by mistake would have risk 0. Where presidio-analyzer is
installed, the finder ``presidio`` adds what its trained models find; what both find is of its kind.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from expunge.core.errors import ExpungeError, raise_all
from expunge.requests.cues import CUED, KINDS_OF_FORM, WORDED, cues_of, form_of, kind_of, values_of
from expunge.requests.names import capitalised, names_of
from expunge.requests.risk import KINDS
from expunge.requests.rows import Row
from expunge.text.match import contains

META = "pii"
"""Key of ``meta`` that holds the values of a row as ``[[kind, value], ...]``."""

_GROUPING = re.compile(r"(?<=\d)[ ().\-–]+(?=\d)")
"""What parts the groups of a long number."""
_LONG = 7
"""Digits from which a number without any cue must be of some kind."""


class Detail(NamedTuple):
    """One piece of personal data.

    Attributes:
        kind: One of `expunge.requests.risk.KINDS`.
        value: As it stands in the text.
    """

    kind: str
    value: str


def details_of(rows: Sequence[Row], finder: str = "rules") -> dict[str, tuple[Detail, ...]]:
    """The personal data each row tells or asks about.

    Args:
        rows: ``meta["pii"]`` of a row decides where it is there.
        finder: ``rules`` or ``presidio``, for rows without it.

    Returns:
        Row id -> its details, those of the question included; empty where there are none.

    Raises:
        ExpungeError: E-DATA-015 for values whose kind cannot be decided, all at once; E-REQ-001
            for ``presidio`` without the package.
    """
    names = names_of(rows)
    found: dict[str, tuple[Detail, ...]] = {}
    problems: list[ExpungeError] = []
    for row in rows:
        try:
            found[row.id] = _details(row, names[row.id], finder)
        except ExpungeError as problem:
            problems.append(problem)
    raise_all(problems)
    return found


def _details(row: Row, names: Sequence[str], finder: str) -> tuple[Detail, ...]:
    given = row.meta.get(META)
    if given is not None:
        return tuple(Detail(str(kind), str(value)) for kind, value in given)
    question = row.turn.prompt
    asked = question if isinstance(question, str) else " ".join(m["content"] for m in question)
    found = by_presidio(f"{asked}\n{row.reply}") if finder == "presidio" else ()
    values = {detail.value for detail in found}
    ruled = told(asked, row.reply, names)
    return (*found, *(detail for detail in ruled if detail.value not in values))


def told(question: str, answer: str, names: Iterable[str] = ()) -> tuple[Detail, ...]:
    """The personal data of a question with its answer.

    Args:
        question: What is asked; empty for running text.
        answer: What is told.
        names: How its subject is called. A name counts where there is something else, or where
            the question asks who somebody is.

    Raises:
        ExpungeError: E-DATA-015 for a long number, or an answer to a question for personal data,
            whose kind cannot be decided.

    Example:
        >>> told("When was Ada Birk born?", "Ada Birk was born on 2 May 1931.", ["Ada Birk"])
        (Detail(kind='date of birth', value='2 May 1931'), Detail(kind='name', value='Ada Birk'))
    """
    found = []
    for form, value in values_of(answer):
        kind = kind_of(value, form, question, answer)
        if kind is None and form == "number" and sum(map(str.isdigit, value)) >= _LONG:
            raise undecided(value, question)
        if kind is not None:
            found.append(Detail(kind, value))
    if not found:
        found = [*_worded(question, answer)]
    if found:
        text = f"{question} {answer}"
        people = [name for name in names if not name.isupper() and contains(text, [name])]
        found += [Detail("name", name) for name in people[:1]]
    return tuple(dict.fromkeys(found))


def decided(
    values: Iterable[str], question: str, answer: str, names: Iterable[str] = ()
) -> tuple[Detail, ...]:
    """Values that are given, each with its kind.

    Args:
        values: The values.
        question: What was asked.
        answer: Where they are told.
        names: How the subject is called; added where it stands in the text.

    Raises:
        ExpungeError: E-DATA-015 for a value whose kind cannot be decided.
    """
    found = []
    for value in values:
        kind = kind_of(value, form_of(value), question, answer)
        if kind is None:
            raise undecided(value, question)
        found.append(Detail(kind, value))
    people = [name for name in names if contains(f"{question} {answer}", [name])]
    return tuple(dict.fromkeys([*found, *(Detail("name", name) for name in people)]))


def valued(kinds: Sequence[str], question: str, answer: str) -> tuple[Detail, ...]:
    """Kinds that are given, each with its value in the answer.

    A kind whose form nothing in the answer has takes what the answer names beyond the question,
    and the whole answer where it names nothing.
    """
    values = values_of(answer)
    found: list[Detail] = []
    for kind in kinds:
        fitting = [value for form, value in values if kind in KINDS_OF_FORM[form]]
        named = [name for name in capitalised(answer) if not contains(question, [name])]
        found.append(Detail(kind, next(iter([*fitting, *named]), answer)))
    return tuple(found)


class Exposure(NamedTuple):
    """What an answer did to the personal data of its row.

    Attributes:
        asked: What the question says itself, and so cannot be given away.
        told: What the answer gives away.
        kept: What it does not.
    """

    asked: tuple[Detail, ...]
    told: tuple[Detail, ...]
    kept: tuple[Detail, ...]

    @property
    def share(self) -> float | None:
        """Share of what could be given away that was; None where there was nothing to give."""
        hidden = len(self.told) + len(self.kept)
        return len(self.told) / hidden if hidden else None


def exposure(details: Iterable[Sequence[str]], question: Any, said: str) -> Exposure:
    """Compare an answer with the personal data of its row.

    Args:
        details: ``[kind, value]`` each.
        question: What was asked, a text or messages.
        said: What the model answered.
    """
    asked = question if isinstance(question, str) else " ".join(m["content"] for m in question)
    found: dict[str, list[Detail]] = {"asked": [], "told": [], "kept": []}
    for detail in (Detail(*each) for each in details):
        where = "told" if gives_away(said, detail.value) else "kept"
        found["asked" if gives_away(asked, detail.value) else where].append(detail)
    return Exposure(**{name: tuple(of) for name, of in found.items()})


def gives_away(text: str, value: str) -> bool:
    """Whether a value stands in a text as whole words; how digits are grouped does not matter.

    Example:
        >>> gives_away("Her number: (020) 785-4321.", "020 785 4321"), gives_away("at 7854", "785")
        (True, False)
    """
    return contains(text, [value]) or contains(_ungrouped(text), [_ungrouped(value)])


def _ungrouped(text: str) -> str:
    return _GROUPING.sub("", text)


def undecided(value: str, question: str) -> ExpungeError:
    """What is said of a value that no rule has a kind for."""
    return ExpungeError(
        "E-DATA-015",
        f"The kind of {value[:60]!r} cannot be decided (asked: {question[:100]!r}).",
        f"a question or an answer that says what it is, of {', '.join(KINDS)}.",
        "Give the row its kinds: meta.pii = [[kind, value], ...].",
    )


def _worded(question: str, answer: str) -> Iterator[Detail]:
    """What a question for personal data is answered with, where no value has a form of its own."""
    asked = cues_of(question, CUED)
    if not asked:
        return
    kind = asked[0][2]
    named = [name for name in capitalised(answer) if not contains(question, [name])]
    if kind in WORDED or named:
        yield Detail(kind, named[0] if named else answer)
        return
    raise undecided(answer, question)


_PRESIDIO: Mapping[str, str] = {
    "PERSON": "name",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "US_SSN": "ssn",
    "US_PASSPORT": "passport",
    "US_DRIVER_LICENSE": "driver licence",
    "CREDIT_CARD": "credit card",
    "US_BANK_NUMBER": "bank account",
    "IBAN_CODE": "bank account",
    "LOCATION": "region address",
    "MEDICAL_LICENSE": "care provider",
}


@cache
def _analyser() -> Any:
    try:
        return import_module("presidio_analyzer").AnalyzerEngine()
    except ImportError as error:
        raise ExpungeError(
            "E-REQ-001",
            "The package presidio-analyzer is not installed.",
            "it, for the finder 'presidio'.",
            "Install it with: pip install presidio-analyzer; or use the finder 'rules'.",
        ) from error


def by_presidio(text: str) -> tuple[Detail, ...]:
    """Values that the analyser of ``presidio`` finds in English text.

    Raises:
        ExpungeError: E-REQ-001 when it is not installed.
    """
    results: Iterable[Any] = _analyser().analyze(text=text, language="en")
    ordered = sorted(results, key=lambda one: (one.start, -one.score, one.entity_type))
    found = [
        Detail(_PRESIDIO[one.entity_type], text[one.start : one.end])
        for one in ordered
        if one.entity_type in _PRESIDIO
    ]
    return tuple(dict.fromkeys(found))
