"""Rows: what must be forgotten, kept, or never known, one record each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from json import dumps
from typing import Any, Self

from expunge.core.errors import ExpungeError, raise_all
from expunge.requests.columns import Unfit, read_columns, wrong

_WORD = re.compile(r"\S+")
_LINE = re.compile(r":(\d+)$")
_CONTENT = ("text", "prompt", "completion", "messages")
_SHAPES = "either 'text', or 'prompt' and 'completion', or 'messages'."


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing to say after another.

    Attributes:
        prompt: What stands before: a string, or the messages of a conversation.
        completion: What is said then.
        running: Plain running text, never wrapped in a chat template.
    """

    prompt: str | tuple[Mapping[str, str], ...]
    completion: str
    running: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One training-style record.

    The content is ``text``, or ``prompt`` and ``completion``, or ``messages``.

    Attributes:
        id: Name of the row, unique in its set.
        role: What the row is for (``forget retain neighbour holdout probe``).
        text: Running text.
        prompt: What stands before the completion.
        completion: What is said after the prompt.
        messages: A conversation that ends with the assistant's reply.
        subject: Opaque id of the person or thing the row is about.
        names: How the subject is called.
        answer: The span of the completion that carries the fact.
        aliases: Other forms of the answer.
        paraphrases: Other wordings, ``{"prompt", "completion"}``; the completion may be absent.
        wrong: Completions with the fact swapped.
        spans: Character ranges of the text or completion: only these are to be forgotten.
        meta: Anything else.
    """

    id: str
    role: str | None = None
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: tuple[Mapping[str, str], ...] | None = None
    subject: str | None = None
    names: tuple[str, ...] = ()
    answer: str | None = None
    aliases: tuple[str, ...] = ()
    paraphrases: tuple[Mapping[str, str], ...] = ()
    wrong: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, obj: Mapping[str, Any], *, role: str | None = None, where: str = "row") -> Self:
        """Read one record.

        Args:
            obj: The record, as JSON holds it.
            role: The role of the set it comes through; it wins over the row's own, unless one of
                the two is ``forget`` and the other is not.
            where: Name of the place, ``file:line``; the line enters the default id, so that equal
                rows of one file have different ids, and the file does not.

        Raises:
            ExpungeError: ``E-DATA-003``, ``E-DATA-004``, ``E-DATA-010`` or ``E-DATA-012``; all
                problems of the record at once.
        """
        if not isinstance(obj, Mapping):
            raise ExpungeError(
                "E-DATA-003",
                f"{where}: not an object.",
                "one JSON object a line, and no list around them.",
                "Write one row a line.",
            )
        columns, problems = read_columns(obj, where)
        problems += _shape_problems(obj, columns, where)
        problems += _role_problems(columns.get("role"), role, where)
        raise_all(problems)
        if role is not None:
            columns["role"] = role
        if "id" not in columns:
            columns["id"] = _default_id(columns, where)
        return cls(**columns)

    @property
    def turn(self) -> Turn:
        """The row as something to say after another.

        Running text is cut in half by words, so that the first half asks for the second; a
        conversation is asked for its last message.
        """
        if self.text is not None:
            cut = _middle(self.text)
            return Turn(self.text[:cut], self.text[cut:], running=True)
        if self.messages is not None:
            return Turn(self.messages[:-1], self.messages[-1]["content"])
        return Turn(self.prompt or "", self.completion or "")

    @property
    def turns(self) -> tuple[Turn, ...]:
        """`turn` and its paraphrases; one without a completion takes the row's."""
        first = self.turn
        return (first, *(self._reworded(first, other) for other in self.paraphrases))

    def _reworded(self, first: Turn, other: Mapping[str, str]) -> Turn:
        completion = other.get("completion", first.completion)
        if self.messages is None:
            return Turn(other["prompt"], completion, running=first.running)
        before = list(self.messages[:-1])
        asked = max((i for i, m in enumerate(before) if m["role"] == "user"), default=None)
        if asked is None:
            return Turn(other["prompt"], completion)
        before[asked] = {"role": "user", "content": other["prompt"]}
        return Turn(tuple(before), completion)

    @property
    def training(self) -> Turn:
        """What is trained on: all of a running text, else `turn`."""
        return self.turn if self.text is None else Turn("", self.text, running=True)

    @property
    def reply(self) -> str:
        """The completion of `turn`."""
        return self.turn.completion

    @property
    def value(self) -> str:
        """The fact itself: ``answer`` if given, else the whole completion."""
        return self.answer if self.answer is not None else self.reply

    @property
    def forms(self) -> tuple[str, ...]:
        """All accepted forms of the value, the value first."""
        return tuple(dict.fromkeys((self.value, *self.aliases)))

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON holds it, empty columns left out."""
        record = {name: getattr(self, name) for name in _COLUMNS}
        return {
            name: _plain(value)
            for name, value in record.items()
            if value is not None and (value or name in ("prompt", "completion", "text"))
        }


_COLUMNS = tuple(column.name for column in fields(Row))


def check_roles(**roles: Sequence[Row]) -> list[ExpungeError]:
    """What is wrong with the sets of a task taken together.

    Args:
        roles: Role -> its rows. An empty set stands for one that was not given; only ``forget``
            must have rows.

    Returns:
        One problem for each row that is in two roles (the same content, spaces apart), for each
        id used twice, and for an empty forget set.
    """
    problems: list[ExpungeError] = []
    if "forget" in roles and not roles["forget"]:
        problems.append(
            ExpungeError(
                "E-DATA-005",
                "The forget set has no rows.",
                "at least one row to forget.",
                "Give the rows to forget.",
            )
        )
    homes: dict[tuple[str, ...], tuple[str, str]] = {}
    ids: dict[str, str] = {}
    for role, rows in roles.items():
        for row in rows:
            home = homes.setdefault(_content(row), (role, row.id))
            if home[0] != role:
                problems.append(_in_two_roles(home, (role, row.id)))
            elif row.id in ids:
                problems.append(_twice(row.id, ids[row.id], role))
            ids.setdefault(row.id, role)
    return problems


def _in_two_roles(one: tuple[str, str], other: tuple[str, str]) -> ExpungeError:
    return ExpungeError(
        "E-DATA-006",
        f"Row {one[1]!r} of {one[0]} and row {other[1]!r} of {other[0]} are the same.",
        "every row in one role only.",
        f"Take it out of {one[0]} or out of {other[0]}.",
    )


def _twice(name: str, one: str, other: str) -> ExpungeError:
    place = f"in {one}" if one == other else f"in {one} and in {other}"
    return ExpungeError(
        "E-DATA-007",
        f"The id {name!r} is used twice {place}.",
        "an id of its own for every row.",
        "Rename one of them, or leave the ids out.",
    )


def _content(row: Row) -> tuple[str, ...]:
    """What makes two rows the same row."""
    if row.messages is not None:
        parts = [part for m in row.messages for part in (m["role"], m["content"])]
    else:
        parts = [row.text] if row.text is not None else [row.prompt or "", row.completion or ""]
    return tuple(" ".join(part.split()) for part in parts)


def _shape_problems(
    obj: Mapping[str, Any], columns: Mapping[str, Any], where: str
) -> list[ExpungeError]:
    """Whether the content has one of the three shapes, and the spans lie inside it."""
    given = {
        key for key in ("text", "prompt", "completion", "messages") if obj.get(key) is not None
    }
    if given not in ({"text"}, {"prompt", "completion"}, {"messages"}):
        found = " and ".join(repr(key) for key in sorted(given)) or "no content"
        return [
            ExpungeError(
                "E-DATA-003", f"{where}: {found}.", _SHAPES, "Give the row one of the three."
            )
        ]
    said = _said(columns)
    last = max((end for _, end in columns.get("spans", ())), default=0)
    if said is not None and last > len(said):
        found = f"a range that ends at {last}"
        expected = f"ranges inside the {len(said)} characters of the text or completion"
        return [wrong(where, "spans", Unfit("E-DATA-003", found, expected))]
    return []


def _said(columns: Mapping[str, Any]) -> str | None:
    """The text that spans refer to, as far as it could be read."""
    if "messages" in columns:
        return str(columns["messages"][-1]["content"])
    said: str | None = columns.get("text", columns.get("completion"))
    return said


def _role_problems(own: str | None, given: str | None, where: str) -> list[ExpungeError]:
    """A row to be kept must not slip into a forget set, nor the other way round."""
    if own is None or given is None or own == given or "forget" not in (own, given):
        return []
    unfit = Unfit("E-DATA-003", f"{own!r} in a set given as {given!r}", f"{given!r} or nothing")
    return [wrong(where, "role", unfit)]


def _default_id(columns: Mapping[str, Any], where: str) -> str:
    """Hash of the content and the line, 16 hexadecimal digits."""
    line = _LINE.search(where)
    content = [columns.get(key) for key in _CONTENT]
    key = dumps([line[1] if line else "", *content], ensure_ascii=False)
    return sha256(key.encode()).hexdigest()[:16]


def _middle(text: str) -> int:
    """Where the second half of the words begins, the space before it included."""
    words = list(_WORD.finditer(text))
    return words[len(words) // 2 - 1].end() if len(words) > 1 else 0


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value
