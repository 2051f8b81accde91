"""The page of `benches/guards.py`: what the gate costs, finds, and stops wrongly."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

Record = dict[str, Any]

LEXICAL, EMBEDDING, AT, FLAT = 2.0, 15.0, 10_000, 1.5
"""Milliseconds at the 95th percentile; the number of targets of the second; largest ratio of the
lexical guard's times over the numbers of targets."""

SETS = {"ordinary": "ordinary prompts", "all": "all kinds"}


def page(record: Record) -> str:
    """The whole page, in Markdown."""
    lines = [
        "# What the gate costs, and what it finds", "",
        "Written by `benches/guards.py`; do not edit.", "",
        *_what(record), *_bars(record), *_times(record), *_memory(record), *_found(record),
        *_old(record), *_open(record),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def bars(record: Record) -> list[tuple[str, str, str, bool]]:
    """What is promised: words, the bar, what was found, whether it held."""
    sizes = record["sizes"]
    passes = [(way, [size["pipeline"][way]["p95"] for size in sizes]) for way in ("clean", "fired")]
    found = [
        (
            f"lexical guard, question and answer, {_WAYS[way]}: p95 in ms, the highest of all N",
            f"at most {LEXICAL:g}",
            f"{max(spent):.2f}",
            max(spent) <= LEXICAL,
        )
        for way, spent in passes
    ]
    most = max(max(spent) / min(spent) for _, spent in passes)
    found.append(
        ("the same: slowest N over fastest N", f"at most {FLAT:g}", f"{most:.2f}", most <= FLAT)
    )
    for size in sizes:
        if size["targets"] == AT:
            spent = max(size["rungs"]["meaning"][kind]["p95"] for kind in ("clean", "about"))
            words = f"embedding, {AT:,} targets, hashing vectors: p95 in ms"
            found.append((words, f"at most {EMBEDDING:g}", f"{spent:.2f}", spent <= EMBEDDING))
    return found


_WAYS = {"clean": "let through", "fired": "stopped"}


def _what(record: Record) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    yield from wrap(
        "Invented targets: four of five are people (names that share their words, two questions "
        "each), the others one question without a name about a thing at a place. Questions about "
        "them are worded as none of theirs is. Harmless prompts are of five kinds, of which three "
        "are made to look like questions about targets: the same questions about strangers, about "
        "namesakes (people who share a first or last name with targets), and about other things or "
        f"places. {record['prompts']:,} prompts; at most {record['asked']:,} targets are asked "
        "about. Prompts have some ten words, those of several sentences forty.",
        99,
    )
    yield ""
    yield from wrap(
        "Times are CPU time of one thread for one look-up, of each text the fastest of three, as "
        "others used the machine; wall times are in the record. An exchange of several messages is "
        "two look-ups: the question, and the "
        "whole dialogue. The rungs `name` and `question` match wholes, also under disguises; "
        "`spelling` and `wording` share words; `meaning` has vectors of 512 places.",
        99,
    )
    yield ""
    yield from wrap(f"Run again: `{record['command']}`, seed {record['seed']}; {versions}.", 99)
    yield ""


def _bars(record: Record) -> Iterator[str]:
    yield from ("| | bar | found | |", "|---|---|---:|---|")
    for words, bar, found, holds in bars(record):
        yield f"| {words} | {bar} | {found} | {'held' if holds else '**not held**'} |"
    yield ""


def _times(record: Record) -> Iterator[str]:
    sizes = record["sizes"]
    yield from ("## Time of one look-up, ms (p50 / p95)", "", *_head("", sizes))
    for kind, words in (("clean", "harmless"), ("about", "about a target")):
        for rung in sizes[0]["rungs"]:
            yield _line(f"`{rung}`, {words}", [_pair(size["rungs"][rung][kind]) for size in sizes])
    for way, words in _WAYS.items():
        cells = [_pair(size["pipeline"][way]) for size in sizes]
        yield _line(f"lexical guard in the pipeline, {words}", cells)
    yield ""
    yield from wrap(
        "The last two lines are the question and, where it is let through, the answer. A text of "
        "2,000 words:",
        99,
    )
    yield from ("", *_head("", sizes))
    for rung in sizes[0]["rungs"]:
        yield _line(f"`{rung}`", [f"{size['rungs'][rung]['long']['p50']:.1f}" for size in sizes])
    yield ""


def _memory(record: Record) -> Iterator[str]:
    sizes = record["sizes"]
    yield from ("## Time to take a target in, ms, and memory, MB", "", *_head("", sizes))
    for rung in sizes[0]["rungs"]:
        yield _line(f"`{rung}`", [_cost(size["rungs"][rung]) for size in sizes])
    yield _line("lexical guard, whole", [_cost(size["pipeline"]) for size in sizes])
    yield from ("", "Keys are made anew here; a store that is opened again only reads them.", "")


def _found(record: Record) -> Iterator[str]:
    sizes = record["sizes"]
    rate = record["rate"]
    yield from ("## What is found, and what is stopped wrongly", "")
    yield from wrap(
        f"All rungs together, any of which stops. Thresholds are set so that at most {rate:.0%} "
        "of the prompts of a set fire, on one half of them, and are tried on the other. Two sets: "
        "ordinary prompts only (everyday tasks, several sentences), and all kinds, those that look "
        "like questions about targets among them. Shares in %; of questions about targets, the "
        "share that fires, and in brackets the share for which the target itself is among the "
        "first 20 hits.",
        99,
    )
    for set, words in SETS.items():
        yield from ("", f"### Thresholds set on {words}", "", *_head("", sizes))
        results = [size["found"][set]["new"] for size in sizes]
        yield _line("promised at most", [_share(one["thresholds"]["promised"]) for one in results])
        yield _line("stopped of that set", [_share(one["false_together"]) for one in results])
        for kind in results[0]["false"]:
            yield _line(f"stopped: {kind}", [_share(one["false"][kind]) for one in results])
        for way in results[-1]["recall"]:
            yield _line(f"**found: {way}**", [_recall(one, way) for one in results])
    yield from ("", f"### By rung, at {sizes[-1]['targets']:,} targets", "")
    rungs = list(sizes[-1]["rungs"])
    for set, words in SETS.items():
        new = sizes[-1]["found"][set]["new"]
        yield from (f"| set on {words} | {' | '.join(f'`{rung}`' for rung in rungs)} |",
                    "|---|" + "---:|" * len(rungs))  # fmt: skip
        cells = [f"{new['thresholds'][r]:.2f}" if r in new["thresholds"] else "" for r in rungs]
        yield _line("threshold", cells)
        for way, told in new["recall"].items():
            yield _line(f"found: {way}", [_share(told["rungs"][rung]) for rung in rungs])
        yield ""


def _old(record: Record) -> Iterator[str]:
    sizes = record["sizes"]
    yield from ("## Thresholds that are kept while the store grows", "")
    yield from wrap(
        "Thresholds set with a tenth of the targets and kept, against those set anew: share "
        "stopped of the set they were set on, in %. They are due when the number has doubled.",
        99,
    )
    yield from ("", *_head("", sizes))
    for set, words in SETS.items():
        for which, told in (("old", "kept"), ("new", "set anew")):
            results = [size["found"][set][which]["false_together"] for size in sizes]
            yield _line(f"{words}, {told}", [_share(one) for one in results])
    yield ""


def _open(record: Record) -> Iterator[str]:
    worth = record["sizes"][-1]["worth_a_question"]
    told = ", ".join(f"{kind} {_share(share)}%" for kind, share in worth.items())
    yield from ("## What this does not show", "")
    yield from wrap(
        "The names and prompts are invented, so the shares say how the rungs compare and not what "
        "users will see. The vectors are the built-in hashing ones; no static embedding model was "
        "at hand. The rung that asks a model for typed decisions was not measured with a capable "
        f"model; with {record['sizes'][-1]['targets']:,} targets and thresholds set on all kinds "
        f"it would have been asked for this share of harmless prompts: {told}.",
        99,
    )


def _head(first: str, sizes: Sequence[Record]) -> Iterator[str]:
    yield _line(first, [f"N = {size['targets']:,}" for size in sizes])
    yield "|---|" + "---:|" * len(sizes)


def _line(first: str, cells: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


def _pair(spent: Record) -> str:
    return f"{spent['p50']:.2f} / {spent['p95']:.2f}"


def _cost(one: Record) -> str:
    return f"{one['add_us'] / 1e3:.2f}, {one['megabytes']:.0f} MB"


def _share(share: float) -> str:
    return f"{100 * share:.1f}"


def _recall(result: Record, way: str) -> str:
    told = result["recall"].get(way)
    return f"{_share(told['fired'])} ({_share(told['own'])})" if told else "–"
