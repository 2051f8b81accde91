"""Published evaluation logs of TOFU, read as if we had evaluated the models ourselves.

Two formats beside our own: the original authors' (four sections, each {name: {number: value}}) and
that of OpenUnlearning (metric -> {"agg_value", "value_by_index"}). Rows are named by what was asked
and answered, so logs of different splits match on the rows they share; the number of a row only
tells its author, for the rows of an author stand together.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from expunge.benchmarks.tofu.files import ROWS_PER_AUTHOR
from expunge.benchmarks.tofu.measures import BY_OPTIONS
from expunge.core.errors import ExpungeError, raise_all
from expunge.data.open_unlearning import (
    Readings,
    Rows,
    by_index,
    membership,
    memorisation,
    no_numbers,
    uneven,
    unfit,
)
from expunge.data.upstream import record_id
from expunge.data.whole import json_object

SECTIONS = {
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}
PREFIXES = {"retain": "retain", "real_authors": "ra", "world_facts": "wf", "forget": "forget"}
OF_AUTHORS = ("retain", "forget")

TINY = 1e-10
"""What OpenUnlearning adds to denominators: it shows where the truth is as improbable."""

EXPECTED = "eval_log_aggregated.json (original) or TOFU_EVAL.json (OpenUnlearning)."

SCORED = ("nll", "paraphrase_nll", "wrong_nll")
OPTIONAL = ("paraphrase_nll",)
"""Readings that some sections of some logs do not have."""

Log = dict[str, Readings]


def read_log(path: Path) -> Log:
    """Read a published log, or one that ``expunge bench`` stored.

    Returns:
        The log in the shape that an evaluation gives. Scores of membership inference, which
        OpenUnlearning logs hold ready-made, stand under ``@MEASURE`` as ``score`` and
        ``holdout.score``.

    Raises:
        ExpungeError: E-DATA-001, E-DATA-002 for a file that is cut or is no JSON, E-DATA-003 for
            sections or rows that are missing, E-DATA-007 for a row that stands twice, E-DATA-009.
    """
    found = json_object(path, EXPECTED)
    if {"key", "log"} <= found.keys():
        return dict(found["log"])
    is_original = any(section in found for section in SECTIONS.values())
    try:
        return _original(found) if is_original else _unlearning(found)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise unfit(f"{path}: {error!r} where a TOFU log has something else.") from error


def first_lines(log: Mapping[str, Mapping[str, Any]]) -> Log:
    """A log whose answers end at their first line, without the ``Answer:`` some begin with."""
    return {
        name: {
            reading: {row: first_line(text) for row, text in rows.items()}
            if reading == "generation"
            else dict(rows)
            for reading, rows in readings.items()
        }
        for name, readings in log.items()
    }


def first_line(answer: str) -> str:
    r"""The first line of an answer.

    Example:
        >>> first_line("Answer: In Oslo.\nQuestion: And he?")
        'In Oslo.'
    """
    return answer.strip().split("\n", 1)[0].removeprefix("Answer:").strip()


def _original(found: Mapping[str, Any]) -> Log:
    _all_there(found, SECTIONS.values())
    log = {}
    for name, key in SECTIONS.items():
        section = found[key]
        texts = {
            number: {"question": asked, "generation": said, "reply": true}
            for number, (asked, said, true) in section["generated_text"].items()
        }
        scored = {
            "nll": section["avg_gt_loss"],
            "paraphrase_nll": section.get("avg_paraphrased_loss", {}),
            "wrong_nll": section["average_perturb_loss"],
        }
        log[name] = _readings(name, texts, scored)
    return log


def _unlearning(found: Mapping[str, Any]) -> Log:
    metrics = ("Q_A_ROUGE", "Q_A_Prob", "Q_A_PERT_Prob")
    entries = [f"{prefix}_{metric}" for prefix in PREFIXES.values() for metric in metrics]
    _all_there(found, [*entries, *(f"{PREFIXES[of]}_Q_A_PARA_Prob" for of in OF_AUTHORS)])

    def losses(prefix: str, metric: str) -> Rows:
        rows = by_index(found, f"{prefix}_{metric}")
        return {number: row and row["avg_loss"] for number, row in rows.items()}

    log = {}
    for name, prefix in PREFIXES.items():
        texts = {
            number: {
                "question": row["input"],
                "generation": row["generation"],
                "reply": row["ground_truth"],
            }
            for number, row in by_index(found, f"{prefix}_Q_A_ROUGE").items()
        }
        scored = {
            "nll": losses(prefix, "Q_A_Prob"),
            "paraphrase_nll": losses(prefix, "Q_A_PARA_Prob"),
            "wrong_nll": losses(prefix, "Q_A_PERT_Prob"),
        }
        log[name] = _readings(name, texts, scored)
        chances = {
            reading: {_id(texts[number]): _chances(row) for number, row in rows.items()}
            for reading, rows in {
                "true": by_index(found, f"{prefix}_Q_A_Prob"),
                "wrong": by_index(found, f"{prefix}_Q_A_PERT_Prob"),
            }.items()
        }
        log |= _as_scored(name, log[name], chances)
    forgotten = by_index(found, "forget_Q_A_ROUGE").items()
    ids = {number: record_id(row["input"], row["ground_truth"]) for number, row in forgotten}
    return log | memorisation(found, ids) | membership(found, ids, _unseen_author)


def _as_scored(name: str, readings: Readings, chances: Readings) -> Log:
    """``@MEASURE`` -> probabilities and log truth ratios of one set, to the digits of its script.

    That rounds probabilities to single precision and adds `TINY` to denominators.
    """
    truth = readings["paraphrase_nll"] or readings["nll"]
    ratios = {row: _log_ratio(nll, readings["wrong_nll"][row]) for row, nll in truth.items()}
    shares = chances["true"]
    if name in BY_OPTIONS:
        shares = {row: _share(true, chances["wrong"][row]) for row, true in shares.items()}
    log: Log = {f"@{name}.prob": {"score": shares}, f"@{name}.truth_ratio": {"score": ratios}}
    return log | ({"@forget_quality": {"score": ratios}} if name == "forget" else {})


def _chances(row: Mapping[str, Any] | None) -> Any:
    """The probability of an answer, or of each of several; None where it was not scored."""
    if not row or row["avg_loss"] is None:
        return None
    nll, probs = row["avg_loss"], row.get("prob")
    if isinstance(nll, list):
        given = probs if isinstance(probs, list) and len(probs) == len(nll) else [None] * len(nll)
        return [_chance(*pair) for pair in zip(nll, given, strict=True)]
    return _chance(nll, probs)


def _chance(nll: float, prob: object) -> float:
    """The probability that the log states, where it is that of the loss but for its rounding."""
    exact = math.exp(-nll)
    is_rounded = isinstance(prob, float) and math.isclose(prob, exact, rel_tol=1e-6, abs_tol=1e-37)
    return prob if isinstance(prob, float) and is_rounded else exact


def _share(true: float | None, wrong: Sequence[float] | None) -> float | None:
    """The true answer's share among all that were offered."""
    return None if true is None or not wrong else true / (true + math.fsum(wrong) + TINY)


def _log_ratio(truth: float | None, wrong: Sequence[float] | None) -> float | None:
    """Log of the geometric truth ratio, in nats."""
    if truth is None or not wrong:
        return None
    return -fmean(wrong) - math.log(math.exp(-truth) + TINY)


def _readings(name: str, texts: Rows, scored: Mapping[str, Rows]) -> Readings:
    """Readings of one section by row id, from readings by number."""
    ids = _ids(texts)
    problems = [*_twice(name, ids), *uneven(name, ids, scored, OPTIONAL)]
    problems += [problem for each in SCORED for problem in no_numbers(name, each, scored[each])]
    raise_all(problems)
    readings = {
        reading: {ids[number]: value for number, value in rows.items()}
        for reading, rows in scored.items()
    }
    for reading in ("generation", "reply"):
        readings[reading] = {ids[number]: row[reading] for number, row in texts.items()}
    return readings | ({"subject": _authors(ids)} if name in OF_AUTHORS else {})


def _ids(texts: Rows) -> dict[str, str]:
    return {number: _id(row) for number, row in texts.items()}


def _id(row: Mapping[str, str]) -> str:
    return record_id(row["question"], row["reply"])


def _authors(ids: Mapping[str, str]) -> dict[str, str]:
    """Row id -> its author, who is named by the first of his rows: so logs agree on him."""
    first: dict[int, str] = {}
    ordered = sorted(ids, key=int)
    for number in ordered:
        first.setdefault(int(number) // ROWS_PER_AUTHOR, f"author of {ids[number]}")
    return {ids[number]: first[int(number) // ROWS_PER_AUTHOR] for number in ordered}


def _unseen_author(number: str) -> str:
    """INFERRED: hold-out rows, which no log quotes, come twenty an author like all others."""
    return f"holdout-author-{int(number) // ROWS_PER_AUTHOR}"


def _all_there(found: Mapping[str, Any], names: Iterable[str]) -> None:
    lacking = [name for name in names if name not in found]
    if lacking:
        raise unfit(f"a log without {', '.join(lacking)}.")


def _twice(name: str, ids: Mapping[str, str]) -> list[ExpungeError]:
    first: dict[str, str] = {}
    return [
        ExpungeError(
            "E-DATA-007",
            f"{name}: row {number} asks and answers what row {first[row]} does.",
            "every pair of question and answer once.",
            "Fetch the log again.",
        )
        for number, row in ids.items()
        if first.setdefault(row, number) != number
    ]
