"""The page of `benches/evaluation.py`: the ratio, the bars, and what was done."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

Record = dict[str, Any]

FASTER, EQUAL, SAME, CLOSE = 8.0, 1e-5, 0.995, 1e-4
"""Times faster; difference of values; share of texts that are the same; gap where they part."""


def page(records: Sequence[Record]) -> str:
    """The whole page, in Markdown; each record is a part of it."""
    lines = ["# What an evaluation costs", "", "Written by `benches/evaluation.py`; do not edit."]
    for record in records:
        lines += [*_what(record), *_bars(record), *_work(record), *_differences(record)]
    return "\n".join(lines) + "\n"


def bars(record: Record) -> list[tuple[str, str, float, bool]]:
    """What is promised: words, the bar, what was found, whether it held."""
    seconds, texts = record["cpu_seconds"], record["texts"]
    ratio = seconds["plain"] / seconds["ours"]
    worst = max(record["differences"].values())
    same = 1 - texts["different"] / texts["rows"]
    gap = texts["largest_gap"]
    return [
        ("times faster, CPU time", f"at least {FASTER:g}", ratio, ratio >= FASTER),
        ("largest difference of a row's value", f"at most {EQUAL:g}", worst, worst <= EQUAL),
        ("share of greedy answers that are the same", f"at least {SAME}", same, same >= SAME),
        ("gap of the two best tokens where answers part", f"below {CLOSE:g}", gap, gap < CLOSE),
    ]


def _what(record: Record) -> Iterator[str]:
    rows = ", ".join(f"{count} {name}" for name, count in record["rows"].items())
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    told = (
        "TOFU's numbers (probability, truth ratio, ROUGE-L, extraction strength, exact "
        f"memorisation) on {rows} rows. The model is a llama of "
        f"{record['parameters']:,} parameters ({record['layers']} layers, width "
        f"{record['hidden']}) that learned the rows for {record['epochs']} epochs; greedy answers "
        "have at most 200 tokens. The plain way takes one row at a time, and every metric makes "
        "its own passes. CPU time of one process on one thread, both ways in turn in the same "
        "run, of each the fastest."
    )
    yield from (
        "",
        f"## On {record['data']}",
        "",
        *wrap(told, 99),
        "",
        *wrap(f"Run again: `{record['command']}`, seed {record['seed']}; {versions}.", 99),
        "",
    )


def _bars(record: Record) -> Iterator[str]:
    yield from ("| | bar | found | |", "|---|---|---:|---|")
    for words, bar, found, holds in bars(record):
        yield f"| {words} | {bar} | {found:.3g} | {'held' if holds else '**not held**'} |"
    large = record["larger"]
    seconds = large["cpu_seconds"]
    told = (
        f"With {large['layers']} layers of width {large['hidden']} it is "
        f"{seconds['plain'] / seconds['ours']:.1f} times ({seconds['plain']:.1f} and "
        f"{seconds['ours']:.1f} CPU-s): there one row keeps a core busy, and only passes and "
        "tokens that are not made are saved."
    )
    yield from ("", *wrap(told, 99), "")


def _work(record: Record) -> Iterator[str]:
    seconds, work = record["cpu_seconds"], record["work"]
    plain, ours = work["plain"], work["ours"]
    yield from (
        "| | plain | ours |",
        "|---|---:|---:|",
        f"| CPU-s | {seconds['plain']:.2f} | {seconds['ours']:.2f} |",
        f"| forward passes | {plain['passes']:,} | {ours['passes']:,} |",
        f"| rows of all passes | {plain['passes']:,} | {ours['rows']:,} |",
        f"| tokens written | {plain['generated']:,} | {ours['generated']:,} |",
        "",
        "Answers to one question share the pass over it, a batch is as large as its tokens allow,",
        "and rows that have ended leave it. An answer that a score has already shown to be the",
        "greedy one is not written again, so fewer tokens are written than there are.",
        "",
    )


def _differences(record: Record) -> Iterator[str]:
    yield from ("| values | largest difference |", "|---|---:|")
    for name, worst in record["differences"].items():
        yield f"| {name} | {worst:.1e} |"
    texts = record["texts"]
    yield from ("", f"{texts['different']} of {texts['rows']:,} greedy answers differ.")
