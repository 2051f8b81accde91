"""What was asked, of which models, by which plan."""

from collections.abc import Iterable

from expunge.report.audit.attacks import Record
from expunge.report.bounds import Range, wilson

NAMES = {"model": "This model", "original": "The original", "reference": "The reference"}


def models(data: Record) -> list[tuple[str, Record | None]]:
    """The three models, by what the report calls them."""
    return [(name, data["models"][key]) for key, name in NAMES.items()]


def planned(data: Record) -> list[tuple[str, int, str, int]]:
    """Each planned attack: id, version, parameters in words, runs."""
    return [
        (
            one["id"],
            one["version"],
            ", ".join(f"{name} {_short(value)}" for name, value in one["params"].items()),
            one["runs"],
        )
        for one in data["plan"]
    ]


def coverage(data: Record) -> Range | None:
    """Interval of the share of rows that the original knows."""
    rows, known = data["request"]["rows"], data["request"]["known"]
    return wilson(known / rows, rows) if rows else None


def gibberish(data: Record) -> dict[str, Range | None]:
    """Interval of the share of answers that are gibberish, of model and original."""
    utility = data["utility"]
    if utility is None:
        return {}
    return {who: wilson(of, utility["rows"]) for who, of in utility["gibberish"].items()}


def units(data: Record, rows: Iterable[str]) -> int:
    """How many units of the audit some rows belong to.

    Rows that the request does not name (those of a placebo) stand for themselves.
    """
    rows = list(rows)
    if data["request"]["unit"] != "subject":
        return len(rows)
    known = data["request"]["entities"]
    return len({known.get(row) or f"row {row}" for row in rows})


def _short(value: object) -> str:
    return "none" if value is None else str(value)
