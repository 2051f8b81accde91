"""The result of a benchmark as a Markdown page."""

from collections.abc import Mapping, Sequence
from typing import Any

UNMEASURED = "–"


def markdown(result: Mapping[str, Any]) -> str:
    """Two tables, and what a reader must know.

    Args:
        result: The content of ``bench.json``.
    """
    lines: Sequence[Mapping[str, Any]] = result["lines"]
    blocks = [
        f"# {result['benchmark']} {result['split']}",
        table(lines, "cells"),
        *(["In detail:", table(lines, "details")] if any(map(_has_details, lines)) else []),
        *remarks(lines),
        f"Reference: {result['reference_recipe']}",
    ]
    return "\n\n".join(blocks) + "\n"


def table(lines: Sequence[Mapping[str, Any]], which: str) -> str:
    """One table: a line for each model, its ``cells`` or ``details`` as columns."""
    columns = next((list(line[which]) for line in lines if which in line), [])
    head = ["model", *columns]
    body = [
        [line["name"], *(written(line.get(which, {}).get(column)) for column in columns)]
        for line in lines
    ]
    rows = [head, ["---"] + ["---:"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written(number: float | None) -> str:
    """A number with three digits, small ones as a power of ten.

    Example:
        >>> written(0.50449), written(4.3e-25), written(0), written(None)
        ('0.504', '4.3e-25', '0', '–')
    """
    if number is None:
        return UNMEASURED
    if number == 0:
        return "0"
    return f"{number:.3f}" if abs(number) >= 0.001 else f"{number:.1e}"


def remarks(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which runs failed, what could not be measured, and what else a reader must know."""
    said = [
        f"{line['name']} failed: {line['failed']['found']} {line['failed']['next']}"
        for line in lines
        if line["failed"]
    ]
    notes = dict.fromkeys(
        f"{name.replace('_', ' ').capitalize()}: {why}."
        for line in lines
        for name, why in line.get("summary", {}).get("notes", {}).items()
    )
    return [*said, *notes]


def _has_details(line: Mapping[str, Any]) -> bool:
    return bool(line.get("details"))
