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
        "Utility, part by part:",
        table(lines, "details"),
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
    """What could not be measured, which runs failed, and how to read forget quality."""
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
    said += notes
    said.append(
        "A high p says that the truth ratios are those of the reference; a model in ruins can "
        "reach it too, so read it beside utility and the retain columns."
    )
    return said
