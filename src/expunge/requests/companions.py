"""What else is told of a row's subject, and how to speak of it without its name.

Attackers who know a few things about somebody describe him by them instead of naming him, and ask
for one thing after the other. What they say never holds the value they are after.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from expunge.requests.invent import name_words
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row
from expunge.text.match import contains


def companions(
    rows: Sequence[Row], known: Sequence[Row] | None = None
) -> dict[str, tuple[Row, ...]]:
    """Row id -> the other facts of its subject, those left out that give its value away.

    A subject is known by ``subject``, else by ``names``; rows with neither have no companions, and
    running text is nobody's.

    Args:
        rows: The rows asked about.
        known: Rows among which the others are looked for; None takes the same rows.
    """
    groups: dict[object, list[tuple[Row, str]]] = defaultdict(list)
    for row in rows if known is None else known:
        if row.text is None and (row.subject or row.names):
            groups[row.subject or row.names].append((row, told(row)))
    return {
        row.id: tuple(
            other
            for other, line in groups.get(row.subject or row.names, ())
            if row.text is None and other.id != row.id and not contains(line, row.forms)
        )
        for row in rows
    }


def told(row: Row) -> str:
    """A fact in one line: what is asked, and what is replied.

    Example:
        >>> told(Row(id="r", prompt="Where was Mira born?", completion=" In Turin."))
        'Where was Mira born? In Turin.'
    """
    return f"{prompts_of(row)[0].strip()} {row.reply.strip()}"


def unnamed(text: str, names: Sequence[str], stand_in: str) -> str:
    """The text with a subject's names, and each word of them, replaced.

    Example:
        >>> unnamed("Where was Mira Voss born? Voss was born in Turin.", ["Mira Voss"], "this one")
        'Where was this one born? this one was born in Turin.'
    """
    every = {part for name in names for part in (name, *name_words(name)) if part}
    if not every:
        return text
    longest_first = sorted(every, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
    return re.sub(pattern, lambda _: stand_in, text)
