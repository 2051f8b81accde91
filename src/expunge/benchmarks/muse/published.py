"""Published evaluation logs of MUSE: ``MUSE_EVAL.json`` of OpenUnlearning, scores ready-made.

The logs hold a ROUGE-L of stems for each row. Rows are named by what was asked and answered where
the log quotes it; where the texts were taken out, by their number in its section (such rows match
those of another log of the same files only).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.data.open_unlearning import (
    Readings,
    by_index,
    in_turn,
    membership,
    memorisation,
    ready_scores,
    unfit,
)
from expunge.data.upstream import record_id
from expunge.data.whole import distinct_ids, json_object

ENTRIES = {
    "verbmem": "forget_verbmem_ROUGE",
    "knowmem_forget": "forget_knowmem_ROUGE",
    "knowmem_retain": "retain_knowmem_ROUGE",
}
"""Measure -> the entry that holds its rows."""

EXPECTED = "MUSE_EVAL.json of OpenUnlearning."


def read_log(path: Path, statistic: str) -> dict[str, Readings]:
    """Read a published log, or one that ``expunge bench`` stored.

    Args:
        path: The file.
        statistic: ``f1`` or ``recall``: which ROUGE-L of question answering is taken.

    Returns:
        The log in the shape that an evaluation gives: ready scores under ``@MEASURE``.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002 for a file that is cut or is no JSON, E-DATA-003 for
            entries or rows that are missing, E-DATA-009.
    """
    found = json_object(path, EXPECTED)
    if {"key", "log"} <= found.keys():
        return dict(found["log"])
    if lacking := [entry for entry in ENTRIES.values() if not isinstance(found.get(entry), dict)]:
        raise unfit(f"{path}: a log without {', '.join(lacking)}.")
    try:
        return _readings(found, statistic)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise unfit(f"{path}: {error!r} where a MUSE log has something else.") from error


def _readings(found: Mapping[str, Any], statistic: str) -> dict[str, Readings]:
    log = {}
    for measure, entry in ENTRIES.items():
        key = f"rougeL_{'f1' if measure == 'verbmem' else statistic}"
        log[f"@{measure}"] = ready_scores(found, entry, key, _ids(found, entry))
    # Its scripts take the membership attacks and the memorisation scores on rows of their own.
    texts = _numbered(found.get("mia_min_k", {}).get("forget", {}), "forget")
    recited = _numbered(found.get("exact_memorization", {}), "recited")
    return log | memorisation(found, recited) | membership(found, texts)


def _ids(found: Mapping[str, Any], entry: str) -> dict[str, str]:
    """Number -> row id, from the texts where the log quotes them."""
    rows = by_index(found, entry)
    if not all(row and "input" in row for row in rows.values()):
        return _numbered(found[entry], entry)
    quoted = [record_id(row["input"], row["ground_truth"]) for row in rows.values()]
    return dict(zip(rows, distinct_ids(quoted), strict=True))


def _numbered(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    return in_turn(entry.get("value_by_index", {}), name)
