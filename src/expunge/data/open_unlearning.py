"""What evaluation logs of OpenUnlearning have in common, whichever benchmark they are of.

A metric's entry is ``{"agg_value", "value_by_index": {number: {...}}}``; a membership attack's has
such entries ``forget`` and ``holdout``. Scores that need no texts to be read are taken as they are.

Reference: OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from expunge.core.errors import ExpungeError, raise_all

Readings = dict[str, dict[str, Any]]
Rows = Mapping[str, Any]
"""Number of a row in its section, as text -> what the log says of it."""

MEMBERSHIP = (
    "privleak",
    "mia_loss",
    "mia_zlib",
    "mia_min_k",
    "mia_min_k_plus_plus",
    "mia_gradnorm",
    "mia_reference",
)
"""Measures that need hold-out rows; all but the first are AUCs, 1 where all is remembered."""

SOURCES = {"privleak": "mia_min_k"}
"""Measure -> the entry it is made of, where that has another name."""

MEMORISATION = {
    "exact_memorisation": "exact_memorization",
    "extraction_strength": "extraction_strength",
}
"""Measure -> the entry that holds its rows."""


def by_index(found: Mapping[str, Any], entry: str) -> Rows:
    """The rows of one entry; none where the log has no such entry."""
    rows: Rows = found.get(entry, {}).get("value_by_index", {})
    return rows


def ready_scores(
    found: Mapping[str, Any], entry: str, key: str, ids: Mapping[str, str]
) -> Readings:
    """Rows of one entry as ready scores.

    Args:
        found: The log.
        entry: Name of the entry.
        key: The value to take of each row.
        ids: Number -> row id.

    Raises:
        ExpungeError: E-DATA-003 for other rows than those, or values that are no numbers.
    """
    scores = {number: row and row[key] for number, row in by_index(found, entry).items()}
    raise_all([*uneven(entry, ids, {"score": scores}), *no_numbers(entry, "score", scores)])
    return {"score": {ids[number]: score for number, score in scores.items()}}


def memorisation(found: Mapping[str, Any], ids: Mapping[str, str]) -> dict[str, Readings]:
    """``@MEASURE`` -> ready scores of how far answers are known by heart."""
    return {
        f"@{measure}": ready_scores(found, entry, "score", ids)
        for measure, entry in MEMORISATION.items()
        if entry in found
    }


def membership(
    found: Mapping[str, Any],
    ids: Mapping[str, str],
    entity: Callable[[str], str | None] = lambda number: None,
) -> dict[str, Readings]:
    """``@MEASURE`` -> ready scores of membership inference.

    Args:
        found: The log.
        ids: Number -> row id, of the rows to forget.
        entity: Number of a hold-out row -> what it is about.

    Returns:
        The scores as ``score`` and ``holdout.score``, and the entities of the set ``holdout``.

    Raises:
        ExpungeError: E-DATA-003 for other rows than those, or values that are no numbers.
    """
    log: dict[str, Readings] = {}
    for measure in MEMBERSHIP:
        entry = SOURCES.get(measure, measure)
        if entry in found:
            forget = ready_scores(found[entry], "forget", "score", ids)
            numbers = in_turn(by_index(found[entry], "holdout"), "holdout")
            holdout = ready_scores(found[entry], "holdout", "score", numbers)
            log[f"@{measure}"] = {**forget, "holdout.score": holdout["score"]}
            log["holdout"] = {"subject": {row: entity(number) for number, row in numbers.items()}}
    return log


def in_turn(numbers: Iterable[str], name: str) -> dict[str, str]:
    """Number -> row id by rank: logs that count from elsewhere hold the same unquoted rows."""
    return {number: f"{name}-{turn}" for turn, number in enumerate(sorted(numbers, key=int))}


def uneven(
    name: str, ids: Mapping[str, str], scored: Mapping[str, Rows], optional: Iterable[str] = ()
) -> list[ExpungeError]:
    """Readings that have other rows than those; an optional one may have none."""
    return [
        unfit(f"{name}: {reading} has {len(rows)} rows, and it takes {len(ids)}.")
        for reading, rows in scored.items()
        if rows.keys() != ids.keys() and (rows or reading not in optional)
    ]


def no_numbers(name: str, reading: str, rows: Rows) -> list[ExpungeError]:
    """The first row whose value is neither a number nor, for ``wrong_nll``, a list of them."""
    wrong = [number for number, value in rows.items() if not _is_score(reading, value)]
    return [unfit(f"{name}: {reading} of row {wrong[0]} is no number.")] if wrong else []


def unfit(found: str) -> ExpungeError:
    """A log that does not hold what it should."""
    return ExpungeError(
        "E-DATA-003",
        found,
        "an evaluation log as its authors publish it.",
        "Give the whole log with its values by row, not its summary.",
    )


def _is_score(reading: str, value: object) -> bool:
    if reading == "wrong_nll" and isinstance(value, list):
        return bool(value) and all(isinstance(each, int | float) for each in value)
    # A null is a row that was not scored; the metrics say how many there are.
    return value is None or isinstance(value, int | float)
