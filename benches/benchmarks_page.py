"""The page of `benches/benchmarks.py`: what a row costs, what a split costs, what is in it."""

from collections.abc import Iterator, Mapping
from typing import Any

Line = Mapping[str, Any]

COUNTS = {
    "row_passes": "row passes",
    "positions": "positions",
    "scored": "scored",
    "generated": "generated",
    "generated_at_most": "at most",
}
"""Count -> head of its column."""


def page(record: Mapping[str, Any]) -> str:
    """The whole page, in Markdown."""
    good = [line for line in record["lines"] if "failed" not in line]
    bad = [line for line in record["lines"] if "failed" in line]
    parts = [*_what(record), *_rows(good), *_splits(good), *_failed(bad)]
    parts += [text for line in good for text in _one(line)]
    return "\n".join(parts).rstrip() + "\n"


def _what(record: Mapping[str, Any]) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    yield from (
        "# What benchmarks cost",
        "",
        "Written by `benches/benchmarks.py`; do not edit.",
        "",
        "Every benchmark with its default settings, on its authors' own files where they were",
        "there and on an invented replica of them where they were not. The model is a llama of two",
        "layers that was never trained, with a tokenizer made of the same rows, so the numbers of",
        "this page are work and not quality: what a benchmark says of a model is not here.",
        "",
        f"At most {record['most']} rows of each set were evaluated, taken evenly from all of them.",
        "**Row passes** are rows of all forward passes: writing a token is one, scoring an answer",
        "is one. **Positions** are the tokens that went through the model, padding included.",
        "**Scored** are tokens of given texts whose log-probability was taken, **generated** are",
        "tokens written. **At most** is what would have been written had every answer had the full",
        "length that the benchmark allows; a model that is not trained comes close to it, since it",
        "rarely ends an answer, and a trained one stays below. Where a number looks at other",
        "models as well, their work is included. Positions and scored tokens are those of a",
        "vocabulary of some 2,000; a larger one has fewer. CPU time, of one thread, says which",
        "benchmark is the dearer, not what a real model takes.",
        "",
        "Each section ends with the numbers that could not be measured and why. Where a number",
        "compares with the original or the reference, this model stood for them as well.",
        "",
        f"Run again: `{record['command']}`, seed {record['seed']}; {versions}.",
        "",
    )


def _rows(lines: list[Line]) -> Iterator[str]:
    yield from (
        "## One row",
        "",
        *_head(("benchmark", "rows of"), ("rows", "CPU-s", *COUNTS.values())),
    )
    for line in lines:
        rows = sum(line["sampled"].values())
        each = [_number(line["counts"][name] / rows) for name in COUNTS]
        of = "its files" if line["real"] else "replica"
        yield _cells(line["id"], of, f"{rows:,}", f"{line['cpu_seconds']:.2f}", *each)
    yield ""


def _splits(lines: list[Line]) -> Iterator[str]:
    yield from (
        "## A whole split",
        "",
        "Extrapolated from the rows above: each set's share of the work is scaled by its rows. The",
        "split is the default one, or where its files were not there the first whose files were.",
        "A benchmark that ran on its replica is left out, since the replica has a few rows only.",
        "",
        *_head(("benchmark", "split"), ("rows", *COUNTS.values())),
    )
    for line in lines:
        if line["real"]:
            rows = sum(line["rows"].values())
            counts = [_number(line["whole"][name]) for name in COUNTS]
            yield _cells(line["id"], line["split"], f"{rows:,}", *counts)
    yield ""


def _failed(lines: list[Line]) -> Iterator[str]:
    if lines:
        yield from ("## Not measured", "", *_head(("benchmark", "why"), ()))
        for line in lines:
            yield _cells(line["id"], line["failed"].splitlines()[0])
        yield ""


def _one(line: Line) -> Iterator[str]:
    beside = f" Some numbers look at the {' and the '.join(line['beside'])} as well."
    yield from (
        f"## {line['id']}",
        "",
        f"{line['summary']}{beside if line['beside'] else ''}",
        "",
        f"Licence: {line['licence']}.",
        "",
        f"Metrics: {', '.join(f'`{name}`' for name in line['metrics'])}.",
        "",
        *_other_settings(line),
        *_files(line),
        "",
    )
    yield from _not_measurable(line)


def _other_settings(line: Line) -> Iterator[str]:
    if line["settings"]:
        given = ", ".join(f"`{name}={value}`" for name, value in line["settings"].items())
        yield from (f"With {given} in place of the default, which needs a larger model.", "")


def _files(line: Line) -> Iterator[str]:
    if not line["real"]:
        yield f"Ran on its replica, split `{line['split']}`: {line['why']}."
        return
    if line["split"] != line["default_split"]:
        missing = line["splits"][line["default_split"]]["missing"]
        yield from (f"The default split could not be read: {missing}.", "")
    yield from _head(("split", "rows that methods see", "rows that models are compared on"), ())
    gone = []
    for split, told in line["splits"].items():
        if "missing" in told:
            gone.append(split)
        else:
            yield _cells(split, _counted(told["roles"]), _counted(told["sets"]))
    if gone:
        yield from ("", f"Without all their files here: {', '.join(gone)}.")


def _not_measurable(line: Line) -> Iterator[str]:
    """Numbers without a value, those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, note in line["not_measurable"].items():
        names.setdefault(note, []).append(f"`{name}`")
    total = len(line["measured"]) + len(line["not_measurable"])
    and_not = "; on these rows and this model not:" if names else "."
    yield f"{len(line['measured'])} of {total} numbers were measured{and_not}"
    yield ""
    for note, of in names.items():
        yield f"- {', '.join(of)}: {note.removeprefix('not measurable: ')}"
    if names:
        yield ""


def _counted(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in rows.items()) or "none"


def _head(words: tuple[str, ...], numbers: tuple[str, ...]) -> Iterator[str]:
    yield _cells(*words, *numbers)
    yield f"|{'---|' * len(words)}{'---:|' * len(numbers)}"


def _cells(*texts: str) -> str:
    return f"| {' | '.join(text.replace('|', chr(92) + '|') for text in texts)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
