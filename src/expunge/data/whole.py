"""Files that are no lists of records, one JSON object or a list of texts; and repeated rows."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.data.upstream import record_id, text_of


def json_object(path: Path, expected: str) -> dict[str, Any]:
    """The one JSON object of a file, for instance a published log.

    Args:
        path: The file.
        expected: What it should be, in words.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002 for a file that is cut or holds something else,
            E-DATA-009, E-DATA-010.
    """
    found = _parsed(path, expected)
    if not isinstance(found, Mapping):
        raise _broken(path, f"a {type(found).__name__}", expected)
    return dict(found)


def json_texts(path: Path) -> list[str]:
    """The texts of a file that is one JSON list of strings.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002, E-DATA-003 for anything else in the list,
            E-DATA-005 for an empty list, E-DATA-007 for a text that stands twice, E-DATA-009,
            E-DATA-010.
    """
    expected = "one JSON list of texts."
    found = _parsed(path, expected)
    if not isinstance(found, list):
        raise _broken(path, f"a {type(found).__name__}", expected)
    again = "Use the upstream file unchanged."
    first: dict[str, int] = {}
    for number, text in enumerate(found, 1):
        if not isinstance(text, str) or not text.strip():
            where = f"{path.name}, text {number}"
            raise ExpungeError("E-DATA-003", f"{where}: no text.", expected, again)
        if first.setdefault(text, number) != number:
            twice = f"{path.name}: text {number} repeats text {first[text]}."
            raise ExpungeError("E-DATA-007", twice, "every text once.", again)
    if not found:
        raise ExpungeError("E-DATA-005", f"{path} has no texts.", "at least one.", again)
    return found


def distinct_ids(ids: Iterable[str]) -> list[str]:
    """Ids of rows of which the authors' own file repeats some.

    A repeat counts in their numbers, so it stays a row: it gets an id made of the first one's and
    of how often it has stood before. Rows in another order have the same ids.

    Example:
        >>> first, again, other = distinct_ids(["a", "a", "b"])
        >>> first, other, again == record_id("a", 1)
        ('a', 'b', True)
    """
    seen: Counter[str] = Counter()
    named = []
    for name in ids:
        named.append(record_id(name, seen[name]) if seen[name] else name)
        seen[name] += 1
    return named


def _parsed(path: Path, expected: str) -> Any:
    try:
        return json.loads(text_of(path), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error), expected) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of two rows of one name, one would go unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _broken(path: Path, found: str, expected: str) -> ExpungeError:
    return ExpungeError("E-DATA-002", f"{path}: {found}.", expected, "Fetch the file again.")
