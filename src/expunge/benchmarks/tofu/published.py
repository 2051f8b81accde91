"""Published evaluation logs of TOFU, read as if we had evaluated the models ourselves.

Two formats beside our own: the original authors' (four sections, each {name: {number: value}}) and
that of OpenUnlearning (metric -> {"agg_value", "value_by_index"}). Rows are named by what was asked
and answered, so logs of different splits match on the rows they share.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.limits import MIB

LOG_BYTES = 256 * MIB
"""Largest log that is read."""

SECTIONS = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
PREFIXES = {"retain": "retain", "real_authors": "ra", "world_facts": "wf", "forget": "forget"}

Log = dict[str, dict[str, dict[str, Any]]]


def read_log(path: Path) -> tuple[Log, float | None]:
    """Read a published log, or one that ``expunge bench`` stored.

    Returns:
        The log in the shape `evaluate` gives, and the min-k membership AUC where it has one.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002, E-DATA-003, E-DATA-009.
    """
    content = _content(path)
    if {"key", "log"} <= content.keys():
        return dict(content["log"]), None
    try:
        if SECTIONS["forget"] in content:
            sections = {name: _original(content[key]) for name, key in SECTIONS.items()}
            return sections, None
        log = {name: _unlearning(content, prefix) for name, prefix in PREFIXES.items()}
        return log, content.get("mia_min_k", {}).get("auc")
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ExpungeError(
            "E-DATA-003",
            f"{path}: {error!r} where a TOFU log has something else.",
            "eval_log_aggregated.json (original) or TOFU_EVAL.json (OpenUnlearning).",
            "Give the log with per-row values, not its summary.",
        ) from error


def _content(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ExpungeError("E-DATA-001", f"{path} is not there.", "a log.", "Check the path.")
    if path.stat().st_size > LOG_BYTES:
        raise ExpungeError(
            "E-DATA-009", f"{path} is too large.", f"at most {LOG_BYTES} bytes.", "Check the file."
        )
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ExpungeError(
            "E-DATA-002", f"{path}: {error}.", "one JSON object.", "Fetch the log again."
        ) from error


def _original(section: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    texts = section["generated_text"]
    ids = {number: _id(asked, true) for number, (asked, _, true) in texts.items()}
    columns = {
        "nll": section["avg_gt_loss"],
        "paraphrase_nll": section["avg_paraphrased_loss"],
        "wrong_nll": section["average_perturb_loss"],
        "generation": {number: said for number, (_, said, _) in texts.items()},
        "reply": {number: true for number, (_, _, true) in texts.items()},
    }
    return {
        name: {ids[number]: value for number, value in values.items()}
        for name, values in columns.items()
    }


def _unlearning(content: Mapping[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    def column(metric: str, key: str) -> dict[str, Any]:
        rows = content.get(f"{prefix}_{metric}", {}).get("value_by_index", {})
        return {number: row[key] for number, row in rows.items() if row is not None}

    texts = content[f"{prefix}_Q_A_ROUGE"]["value_by_index"]
    ids = {number: _id(row["input"], row["ground_truth"]) for number, row in texts.items()}
    columns = {
        "nll": column("Q_A_Prob", "avg_loss"),
        "paraphrase_nll": column("Q_A_PARA_Prob", "avg_loss"),
        "wrong_nll": column("Q_A_PERT_Prob", "avg_loss"),
        "generation": column("Q_A_ROUGE", "generation"),
        "reply": column("Q_A_ROUGE", "ground_truth"),
    }
    return {
        name: {ids[number]: value for number, value in values.items()}
        for name, values in columns.items()
    }


def _id(asked: str, true: str) -> str:
    return digest([asked, true])[:16]
