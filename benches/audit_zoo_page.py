"""The page of `benches/audit_zoo.py`: who was called what, and which instrument saw it."""

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap
from typing import Any

Record = Mapping[str, Any]

STATES = {
    "never": "never saw the forget rows",
    "knows": "know them",
    "hides": "know them and hide it",
    "ruins": "in ruins",
    "unlearned": "changed by a method (their state is not known)",
}
CLASSES = (
    "invalid", "broken", "not-forgotten", "guarded", "hidden", "inconclusive",
    "forgotten-blackbox", "forgotten-whitebox", "retrain-equivalent", "no model",
)  # fmt: skip
PROMISED = {
    "knows, called forgotten": ("never", lambda one: one["hits"] == 0),
    "hides, called forgotten": ("never", lambda one: one["hits"] == 0),
    "hides, called hidden or guarded": (
        "at least 95%", lambda one: one["hits"] >= 0.95 * one["of"],
    ),
    "never knew, called hidden or not-forgotten": (
        "at most 5%", lambda one: one["hits"] <= 0.05 * one["of"],
    ),
}  # fmt: skip


def page(found: Record) -> str:
    """The whole page, in Markdown."""
    lines = ["# Is the verdict right?", "", "Written by `benches/audit_zoo.py`; do not edit."]
    for part in (_what, _bars, _confusion, _missed, _kinds, _rows, _instruments, _costs):
        lines += ["", *part(found)]
    return "\n".join(lines).rstrip() + "\n"


def _what(found: Record) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    told = (
        f"{found['audits']} audits (profile `{found['profile']}`) of models of some ninety "
        "thousand parameters: each learned six facts about each of some forty invented people, "
        "of whom sixteen (96 rows) are to be forgotten; `expunge.lab.zoo` says how each kind is "
        "made. The control is the placebo (the audited model on people nobody taught it) for two "
        "audits of three, else a retrained reference. A model that was made to hide and still "
        "answers more than a tenth of the plain questions counts among those that know. Shares "
        "have 95% intervals (Clopper-Pearson)."
    )
    yield from wrap(told, 99)
    yield ""
    yield from wrap(f"Run again: `{found['command']}`; {versions}.", 99)
    missing = found["planned"] - found["audits"]
    if missing > 0:
        yield ""
        yield f"{missing} of {found['planned']} audits are still to be run."


def _bars(found: Record) -> Iterator[str]:
    yield "## The bars"
    yield ""
    yield from table(
        ("of models that", "promised", "found", "interval", ""),
        (
            (name, promised, f"{one['hits']} of {one['of']}", _interval(one), _held(held(one), one))
            for name, (promised, held) in PROMISED.items()
            for one in [found["bars"][name]]
        ),
    )
    yield ""
    yield from table(
        ("reported beside them", "found", "interval"),
        (
            (name, f"{one['hits']} of {one['of']}", _interval(one))
            for name, one in found["bars"].items()
            if name not in PROMISED
        ),
    )


def _held(holds: bool, one: Record) -> str:
    if not one["of"]:
        return "not run"
    return "held" if holds else "**missed**"


def _confusion(found: Record) -> Iterator[str]:
    yield "## Who was called what"
    yield ""
    yield from table(
        ("models that", *CLASSES),
        (
            (words, *(found["confusion"][state].get(name, "") for name in CLASSES))
            for state, words in STATES.items()
            if state in found["confusion"]
        ),
    )


def _missed(found: Record) -> Iterator[str]:
    if not found["missed"]:
        yield from wrap("No audit of a model of known state is on the wrong side of a bar.", 99)
        return
    yield "## What was called wrongly"
    yield ""
    for one in found["missed"]:
        yield f"- `{one['name']}`: {one['verdict']}. {'; '.join(one['reasons'][:4])}."


def _kinds(found: Record) -> Iterator[str]:
    yield "## Kind by kind"
    yield ""
    yield from table(
        ("kind", "audits", "classes", "score", "gates that fail most"),
        (
            (
                f"`{kind}`",
                of["audits"],
                _counts(of["verdicts"]),
                of["score"],
                _counts(of["failing"]),
            )
            for kind, of in found["kinds"].items()
        ),
    )


def _rows(found: Record) -> Iterator[str]:
    yield "## With fewer rows"
    yield ""
    yield from wrap(
        "Share of models that never saw the rows and were called inconclusive, by the number of "
        "forget rows the audit was given.", 99,
    )  # fmt: skip
    yield ""
    yield from table(
        ("rows", "audits", "inconclusive", "called forgotten", "called hidden or not-forgotten"),
        (
            (n, one["audits"], one["inconclusive"], one["forgotten"], one["found"])
            for n, one in found["rows"].items()
        ),
    )


def _instruments(found: Record) -> Iterator[str]:
    yield "## Which instrument can be believed"
    yield ""
    told = (
        "Faithfulness: the probability that it reads more knowledge on a model that knows than on "
        "one that never did. Hiding: the same for models that know and hide it. Relearning and "
        "quantisation: how steady it is when unlearned models are taught the rows again "
        "(compared with a retrained one) or rounded to four bits; 1 is best. Alone: models that "
        "hide and on which it was the only gate to fail."
    )
    yield from wrap(told, 99)
    yield ""
    yield from table(
        ("metric or attack", "faithfulness", "hiding", "relearning", "quantisation", "alone"),
        (
            (f"`{name}`", *(_number(of.get(key)) for key in KEYS), of["decided"] or "")
            for name, of in found["instruments"].items()
        ),
    )


KEYS = ("faithfulness", "sees hiding", "relearning", "quantisation")


def _costs(found: Record) -> Iterator[str]:
    yield "## What it costs"
    yield ""
    costs = found["costs"]
    yield from wrap(
        f"CPU-seconds of an audit, one thread: median {costs['median']:.1f}, 90% below "
        f"{costs['p90']:.1f}, the longest {costs['longest']:.1f}. What is known of an original or "
        "a control from an earlier audit is looked up.", 99,
    )  # fmt: skip


def table(heads: Iterable[Any], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """A Markdown table."""
    names = list(heads)
    yield f"| {' | '.join(map(str, names))} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _interval(one: Record) -> str:
    return f"{one['low']:.0%} to {one['high']:.0%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in of.items())
