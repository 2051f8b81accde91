"""Rows derived from rows: the same knowledge, asked for and told in other words.

Definition (x a row, x' one that holds the same fact; e the embedding of question and answer):
    band       lo <= cos(e(x), e(x')) <= hi      derived yet distinct
    D~(x)      the x' in the band nearest to its middle

Candidates are what is given for a row; without that, its own paraphrases, and the wordings that
rows of other subjects have for the same attribute, told of this row's subject with this row's
value.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.requests.invent import name_words
from expunge.requests.names import names_of
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import attributes
from expunge.text.normalise import normalise

if TYPE_CHECKING:
    from expunge.text.embedding import Embedder

SOURCE = "derived_from"
"""Key of ``meta`` that names the row a given row is derived from."""


def derived(
    rows: Sequence[Row],
    given: Sequence[Row],
    *,
    low: float,
    high: float,
    embedder: "Embedder",
) -> dict[str, Row]:
    """The derived row of each row.

    Args:
        rows: The rows.
        given: Rows derived by somebody else, each with ``meta["derived_from"]``; where there are
            any, none are made.
        low: Least cosine of a row and its derived row.
        high: Largest.
        embedder: Texts -> vectors.

    Returns:
        Row id -> derived row, under that same id; a row with no candidate in the band is absent.

    Raises:
        ExpungeError: E-DATA-003 when a given row does not say what it is derived from.
    """
    candidates = _given(given) if given else templated(rows)
    found: dict[str, Row] = {}
    for row in rows:
        others = {normalise(text_of(other)): other for other in candidates.get(row.id, ())}
        others.pop(normalise(text_of(row)), None)
        if not others:
            continue
        vectors = embedder([text_of(row), *map(text_of, others.values())])
        near = (vectors[1:] @ vectors[0]).tolist()
        inside = [
            (abs(cosine - (low + high) / 2), text)
            for text, cosine in zip(others, near, strict=True)
            if low <= cosine <= high
        ]
        if inside:
            found[row.id] = replace(others[min(inside)[1]], id=row.id)
    return found


def templated(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows derived by templates.

    Returns:
        Row id -> its paraphrases as rows, then the wordings of other subjects' rows of the same
        attribute with its own names and value in them. Wordings that do not show the other's
        name in the question and its value in the answer are left out, for what was put in could
        not be told.
    """
    names, groups = names_of(rows), attributes(rows)
    members: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        members[groups[row.id]].append(row)
    return {
        row.id: [
            *(_as_row(row, turn) for turn in row.turns[1:]),
            *(_as_row(row, turn) for turn in _borrowed(row, members[groups[row.id]], names)),
        ]
        for row in rows
    }


def text_of(row: Row) -> str:
    """Question and answer, as they are compared."""
    turn = row.turn
    prompt = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    return f"{prompt} {turn.completion}"


def _given(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        source = row.meta.get(SOURCE)
        if not isinstance(source, str):
            raise ExpungeError(
                "E-DATA-003",
                f"The derived row {row.id!r} does not say what it is derived from.",
                f"the id of a row to forget, as meta.{SOURCE}.",
                "Name the row, or leave the derived rows out to have them made.",
            )
        found[source].append(row)
    return found


def _borrowed(
    row: Row, members: Iterable[Row], names: Mapping[str, Sequence[str]]
) -> Iterator[Turn]:
    """How rows about others put the same question, told of this row's subject."""
    own = names[row.id]
    for other in members:
        theirs = names[other.id]
        if own and theirs and not set(own) & set(theirs):
            for turn in other.turns:
                told = _told(turn, (theirs, own[0]), (other.value, row.value))
                if told is not None:
                    yield told


def _told(turn: Turn, name: tuple[Sequence[str], str], value: tuple[str, str]) -> Turn | None:
    """A turn with names and value replaced; None where that leaves something of the other."""
    if not isinstance(turn.prompt, str) or turn.running:
        return None
    theirs, own = name
    prompt, completion = (_renamed(text, theirs, own) for text in (turn.prompt, turn.completion))
    if prompt == turn.prompt or value[0] not in turn.completion:
        return None
    completion = completion.replace(*value)
    left = {word for each in theirs for word in name_words(each)} - set(name_words(own))
    if left & set(re.findall(r"\w+", f"{prompt} {completion}")):
        return None
    return Turn(prompt, completion)


def _renamed(text: str, theirs: Sequence[str], own: str) -> str:
    for name in sorted(theirs, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _: own, text)
    return text


def _as_row(row: Row, turn: Turn) -> Row:
    """A turn as a row of its own, about the same fact."""
    answer = row.answer if row.answer is not None and row.answer in turn.completion else None
    prompt, completion, messages = (
        (turn.prompt, turn.completion, None)
        if isinstance(turn.prompt, str)
        else (None, None, (*turn.prompt, {"role": "assistant", "content": turn.completion}))
    )
    return replace(
        row,
        role="derived",
        prompt=prompt,
        completion=completion,
        messages=messages,
        answer=answer,
        paraphrases=(),
        wrong=(),
        spans=(),
    )
