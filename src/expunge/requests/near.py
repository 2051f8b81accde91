"""Texts near what is to be forgotten that do not hold it: the same topic without the facts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from expunge.requests.names import names_of
from expunge.requests.rows import Row
from expunge.requests.scope import attributes, placebo
from expunge.text.match import contains
from expunge.text.normalise import normalise

Topic = Literal["neighbour", "attributes", "invented"]
"""Neighbour rows; rows to be kept that ask for the same attributes; invented subjects."""


def near(
    rows: Sequence[Row],
    *,
    neighbour: Sequence[Row],
    retain: Sequence[Row],
    holdout: Sequence[Row],
    seed: int,
) -> dict[Topic, list[Row]]:
    """Rows on the topic of the attacked ones, by where they come from, the nearest first.

    Args:
        rows: The attacked rows.
        neighbour: Rows close to them.
        retain: Rows to be kept.
        holdout: Rows nobody was trained on; only their templates and values are used, told of
            invented subjects.
        seed: Of the invention.

    Returns:
        Every source, with the rows that hold no value of the subject they are about.
    """
    sources: dict[Topic, Sequence[Row]] = {
        "neighbour": neighbour,
        "attributes": alike(rows, retain),
        "invented": placebo(holdout, len(holdout), seed),
    }
    return {topic: without_facts(found, rows) for topic, found in sources.items()}


def alike(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """Which of the others ask for an attribute that some of the rows ask for."""
    groups = attributes([*rows, *others])
    asked = {groups[row.id] for row in rows}
    return [row for row in others if groups[row.id] in asked]


def without_facts(texts: Iterable[Row], rows: Sequence[Row]) -> list[Row]:
    """Leave out the texts that tell a value of one of the rows of its own subject.

    A text is about a subject when it says one of its names or has its id. A row whose subject
    cannot be told is taken to be meant wherever its value stands.
    """
    named, by_id, nameless = defaultdict(list), defaultdict(list), []
    names = names_of(rows)
    for row in rows:
        for name in names[row.id]:
            named[f" {normalise(name)} "].append(row)
        if row.subject is not None:
            by_id[row.subject].append(row)
        elif not names[row.id]:
            nameless.append(row)

    def tells(text: Row) -> bool:
        said = _said(text)
        plain = f" {normalise(said)} "
        about = [row for name, own in named.items() if name in plain for row in own]
        about += [*by_id.get(text.subject or "", ()), *nameless]
        return any(contains(said, row.forms) for row in about)

    return [text for text in texts if not tells(text)]


def _said(row: Row) -> str:
    """All that a row says, in all its wordings."""
    parts = []
    for turn in (row.training, *row.turns):
        asked = turn.prompt
        parts += [asked] if isinstance(asked, str) else [m["content"] for m in asked]
        parts.append(turn.completion)
    return "\n".join(parts)
