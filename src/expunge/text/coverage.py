"""Shares of answers that name what the true one names, with a judge's word on contradictions."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import aligned, average, table, unmeasurable
from expunge.text.entities import coverage

VERDICTS = "contradicts"
"""The reading of a judge: row -> whether the answer and the true one contradict one another."""


def covered(scores: Mapping[str, Any], counts: Callable[[float, bool], bool], told: str) -> Value:
    """The share of answers that count.

    Args:
        scores: ``generation``, ``forms``, and ``contradicts`` where a judge was asked.
        counts: Of a coverage in [0, 1] and a contradiction, whether the row counts.
        told: What a reader must know of that rule.

    Returns:
        The share, with the mean ``coverage`` and the rate of ``contradictions`` (where judged)
        among the parts. Rows whose true answer names nothing are left out; where a judge was asked
        about some rows only, nothing is measurable.
    """
    rows = aligned(scores, "generation", "forms")
    found = {row: coverage(said, forms) for row, (said, forms) in rows.items()}
    known = {row: share for row, share in found.items() if share is not None}
    verdicts = table(scores, VERDICTS)
    if missing := [row for row in known if verdicts and row not in verdicts]:
        return unmeasurable(f"{len(missing)} rows have no {VERDICTS} ({missing[0]})")
    against = {row: bool(verdicts.get(row, False)) for row in known}
    shares = {row: float(counts(share, against[row])) for row, share in known.items()}
    value = average(shares, scores, "generation", "forms")
    if value.mean is None:
        return value
    beside = {"coverage": known}
    if verdicts:
        beside["contradictions"] = {row: float(each) for row, each in against.items()}
    parts = {name: fmean(each.values()) for name, each in beside.items()}
    alone = "" if verdicts else "by entities alone: no judge said what contradicts what"
    note = "; ".join(filter(None, (value.note, told, alone)))
    return replace(value, beside=beside, parts=parts, note=note)
