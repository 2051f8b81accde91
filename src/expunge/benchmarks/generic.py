"""Generic: your own rows, measured with whatever they allow.

Definition (of each set that is there; every number is that of its metric):
    forget       what is left of the rows to forget, and how far answers are from them
    privacy      whether hold-out rows and forget rows can be told apart
    retain, neighbour    what is kept; the utility of every stratum, ``meta["stratum"]`` of a row
    utility      the smallest utility of any stratum of both

Reference: none; the metrics name their papers.

Departs from the paper: nothing. ``metrics`` is ``default`` (cheap: one pass and one generation a
row), ``all``, or ids of metrics; any id of the registry may be named, one that these rows do not
allow says why. A method is given the same rows it is measured on, as a request to forget is: put
other wordings of the facts under ``paraphrases``, or keep them out and measure those.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge.core import registry
from expunge.core.canonical import digest
from expunge.core.errors import raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import known_split
from expunge.data.jsonl import read_rows
from expunge.requests.rows import Row, check_roles

CARD = {
    "id": "generic",
    "kind": "benchmark",
    "summary": "Your own forget, retain, neighbour and hold-out rows, with what they allow.",
    "paper": "none: rows of the user",
    "needs": ["forget"],
    "access": "logits",
    "cost": "default: one forward pass and one greedy generation a row",
    "maturity": "beta",
    "version": 1,
    "splits": ["own"],
    "default_split": "own",
    "licence": "that of your rows",
}

SPLITS = ("own",)

ROLES = ("forget", "retain", "neighbour", "holdout")
"""Files of the folder, ``ROLE.jsonl``; only the first must be there."""

FORGET = (
    "probability",
    "rouge",
    "extraction-strength",
    "exact-memorisation",
    "truth-ratio",
    "forget-quality",
    "answer-containment",
    "forget-efficacy",
    "gibberish",
)
"""Of the rows to forget: one pass over each wording, one answer."""

PRIVACY = ("mia-loss", "mia-min-k", "mia-zlib", "privleak")
"""Of forget rows beside hold-out rows, from the same pass."""

KEPT = ("probability", "rouge", "gibberish", "stratum-utility")
"""Of the rows to keep."""

DEARER_FORGET = (
    "answer-f1",
    "exact-match",
    "fluency",
    "repetition",
    "rejection-rate",
    "answer-perplexity",
    "answer-agreement",
    "consistency-score",
    "surrogate-stress",
    "deviation-score",
    "uwc-score",
    "lens-erasure",
    "unlearning-depth",
    "cka",
    "pca-shift",
    "fisher-overlap",
    "fade",
)
"""More answers, more passes, or more models."""

DEARER_PRIVACY = (
    "mia-min-k-plus-plus",
    "mia-lower",
    "mia-neighbour",
    "mia-recall",
    "mia-reference",
    "mia-gradnorm",
    "retain-deviation",
    "remind",
)
"""Attacks of more passes a row, and the landscape around the rows."""

DEARER_KEPT = ("answer-containment", "exact-memorisation", "fluency", "answer-perplexity")

UTILITY = "weakest-utility"
LOW_WHEN_KEPT = ("gibberish", "answer-perplexity")
"""Metrics for which low is good on rows to keep as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is measured, and on how many rows."""

    metrics: tuple[str, ...] = param(
        ("default",), help="default, all, or ids of metrics, separated by commas"
    )
    rows: int | None = param(None, help="most rows of a set that are evaluated; none: all", low=20)
    new_tokens: int = param(50, help="longest greedy answer, in tokens", paper=50, low=1)


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows by role.

    Args:
        data: Folder with ``forget.jsonl`` and, where there are any, ``retain.jsonl``,
            ``neighbour.jsonl`` and ``holdout.jsonl``: rows as every command reads them.
        split: ``own``.
        params: Not used.

    Raises:
        ExpungeError: E-USE-001 for another split; E-DATA-001 to E-DATA-012 for a missing or broken
            file, and for rows that stand in two of them.
    """
    known_split("generic", split, SPLITS)
    there = {role: data / f"{role}.jsonl" for role in ROLES}
    roles = {
        role: read_rows(path, role)
        for role, path in there.items()
        if role == "forget" or path.exists()
    }
    raise_all(check_roles(**roles))
    return roles


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows on which models are compared: those of `splits`, at most ``rows`` of each.

    Raises:
        ExpungeError: As `splits`.
    """
    roles = splits(data, split, params)
    return {role: _some(rows, params.rows) for role, rows in roles.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers asked for, under ``SET.METRIC``.

    Raises:
        ExpungeError: E-USE-001 for a metric that there is not.
    """
    asked = [registry.metrics.card(name).id for name in params.metrics if name not in GROUPS]
    chosen = {metric for name in params.metrics for metric in GROUPS.get(name, ())} | set(asked)
    found = {name: measure for name, measure in _every() if measure.metric in chosen}
    placed = {measure.metric for measure in found.values()}
    found |= {f"forget.{name}": Measure(metric=name) for name in asked if name not in placed}
    if {"stratum-utility", UTILITY} & chosen:
        own = {role: f"{role}.stratum-utility" for role in ("retain", "neighbour")}
        found |= {name: measure for name, measure in _every() if name in own.values()}
        found["utility"] = Measure(metric=UTILITY, on="retain", of=own)
        found.pop(f"forget.{UTILITY}", None)
    return found


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    known_split("generic", split, SPLITS)
    return (
        "Train the base model anew with the recipe of the original on everything it learned, "
        "without the rows of forget.jsonl; the hold-out rows belong to neither."
    )


def _every() -> Iterator[tuple[str, Measure]]:
    """Everything this benchmark places by itself, in the order of its table."""
    for metric in (*FORGET, *DEARER_FORGET):
        beside = {"retain": "retain"} if metric in ("deviation-score", "uwc-score") else {}
        yield f"forget.{metric}", Measure(metric=metric, beside=beside)
    for metric in (*PRIVACY, *DEARER_PRIVACY):
        yield f"privacy.{metric}", Measure(metric=metric, beside={"holdout": "holdout"})
    for role in ("retain", "neighbour"):
        for metric in (*KEPT, *DEARER_KEPT):
            better = "low" if metric in LOW_WHEN_KEPT else "high"
            yield f"{role}.{metric}", Measure(metric=metric, on=role, better=better)


def _some(rows: Sequence[Row], most: int | None) -> list[Row]:
    """At most so many rows, the same ones in whatever order the file has them."""
    if most is None:
        return list(rows)
    said = {row.id: [str(row.training.prompt), row.training.completion] for row in rows}
    return sorted(rows, key=lambda row: digest(said[row.id]))[:most]


DEFAULT = frozenset((*FORGET, *PRIVACY, *KEPT))
GROUPS = {
    "default": DEFAULT,
    "all": DEFAULT | {*DEARER_FORGET, *DEARER_PRIVACY, *DEARER_KEPT},
}
"""Words that stand for several metrics."""
