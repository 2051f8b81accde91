"""What a questioner may say of a subject without giving an answer away, and without naming it.

A *hint* for a row is another fact of the same subject that is attacked too, of another attribute.
Nothing that would itself count as a leak of the row is a hint, be it alone or together with the
hints before it. No torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from expunge.requests.companions import companions, told, unnamed
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import attributes
from expunge.text.match import leak


def hints_of(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Row id -> other facts of its subject, told one by one, one an attribute.

    Example:
        >>> born = Row(id="b", prompt="Born?", completion="In Bonn.", answer="Bonn", subject="s")
        >>> work = Row(id="w", prompt="Job?", completion="A cook.", answer="cook", subject="s")
        >>> hints_of([born, work])
        {'b': ('Job? A cook.',), 'w': ('Born? In Bonn.',)}
    """
    groups, beside = attributes(rows), companions(rows)
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        facts: dict[str, str] = {}
        for other in beside[row.id]:
            if groups[other.id] != groups[row.id]:
                facts.setdefault(groups[other.id], told(other))
        found[row.id] = _harmless(row, facts.values())
    return found


def unnamed_turn(turn: Turn, names: Sequence[str], stand_in: str) -> Turn:
    """The same turn with the subject's names replaced in all that is said before the answer."""
    if isinstance(turn.prompt, str):
        return replace(turn, prompt=unnamed(turn.prompt, names, stand_in))
    messages = (
        {**message, "content": unnamed(message["content"], names, stand_in)}
        for message in turn.prompt
    )
    return replace(turn, prompt=tuple(messages))


def initials(name: str) -> str:
    """The first letters of a name's words, each with a full stop.

    Example:
        >>> initials("Ludwig van Dorn")
        'L. v. D.'
    """
    return " ".join(f"{word[0]}." for word in name.split())


def _harmless(row: Row, facts: Iterable[str]) -> tuple[str, ...]:
    """The facts that give nothing of the row away, nor do all of them together."""
    kept: tuple[str, ...] = ()
    for fact in facts:
        if not _tells(row, "\n".join((*kept, fact))):
            kept = (*kept, fact)
    return kept


def _tells(row: Row, text: str) -> bool:
    return any(
        leak(text, row.forms if row.answer else (turn.completion,), turn.completion)
        for turn in row.turns
    )
