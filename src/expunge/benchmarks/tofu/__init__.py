"""TOFU: forget some of 200 invented authors, on whom a model was trained with the rest.

Definition (per set of rows; L = mean negative log-likelihood of an answer's tokens, in nats):
    probability    exp(-L(y)); among its options for real authors and world facts
    ROUGE          ROUGE-L recall, stemmed, of the greedy answer against y
    truth ratio    of paraphrase and wrong answers (of y itself where there is no paraphrase)
    model utility  harmonic mean of these three on retain rows, real authors and world facts
    forget quality Kolmogorov-Smirnov p of the forget rows' truth ratios against the reference's

Reference: TOFU: A Task of Fictitious Unlearning for LLMs (2024); extraction strength and exact
memorisation as in OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking (2025).

Departs from the paper: both forms of the truth ratio are computed and named; retain is evaluated on
all 400 rows that have wrong answers (``rows=300`` gives the original protocol); extraction strength
is 0 and not 1/n when even the last token is wrong; rows are matched by question and answer; a
utility that the original model never had is said to be not measurable. Answers can be cut at their
first line (``answers=first-line``): a model that never ends raises its recall by running on. The
hold-out rows for membership inference are read from ``holdoutNN.json`` where the folder has one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.benchmarks.tofu.files import SPLITS, Files, key, read_files
from expunge.benchmarks.tofu.measures import SETS, cells, details, present, review
from expunge.benchmarks.tofu.measures import measures as numbers
from expunge.benchmarks.tofu.published import Log, first_lines
from expunge.benchmarks.tofu.published import read_log as published
from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError, nearest
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.upstream import Record
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from expunge.lm.readings import Asking

__all__ = [
    "CARD",
    "Params",
    "asking",
    "cells",
    "details",
    "fitting",
    "measures",
    "present",
    "read_log",
    "references",
    "review",
    "sets",
    "splits",
]

CARD = {
    "id": "tofu",
    "kind": "benchmark",
    "summary": "Forget 1, 5 or 10 percent of 200 invented authors.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["forget", "retain", "reference"],
    "access": "logits",
    "cost": "eight forward passes and one generation a row, on up to 1,017 rows",
    "maturity": "beta",
    "version": 1,
    "splits": ["forget01", "forget05", "forget10"],
    "default_split": "forget10",
    "licence": "MIT, as its authors state on the data card; the files are not shipped",
}

ROLES = ("forget", "retain", "holdout")

STYLES = {"plain": ("Question: {}\nAnswer:", " {}"), "chat": ("{}", "{}")}
"""Style -> how the question and the answer are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How questions are put and how much is evaluated."""

    style: str = param(
        "plain",
        help="plain: 'Question: ... Answer: ...'; chat: the question alone, for chat templates",
        paper="plain for Phi, chat for Llama-2-chat",
        choices=("plain", "chat"),
    )
    rows: int = param(400, help="most rows of a set that are evaluated", paper=300, low=20)
    new_tokens: int = param(200, help="longest greedy answer, in tokens", paper=200, low=1)
    answers: str = param(
        "whole",
        help="whole: as generated; first-line: cut at the first newline, a leading 'Answer:' "
        "dropped, for models that never end (Phi), whose run-on text raises recall",
        paper="whole",
        choices=("whole", "first-line"),
    )


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows to forget and to keep, as a method may see them: question and answer, no more.

    Args:
        data: Folder with the upstream files.
        split: ``forget01``, ``forget05`` or ``forget10``.
        params: How questions are put.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; what `files.read_files` raises.
    """
    files = read_files(data, _known(split))
    given = {"forget": files.forget, "retain": files.retain, "holdout": files.holdout}
    return {
        role: [_row(_bare(record), role, files, params) for record in records]
        for role, records in given.items()
        if records
    }


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows on which models are compared, with paraphrased and wrong answers.

    Returns:
        ``forget``, ``retain``, ``real_authors`` and ``world_facts``; ``holdout`` where the folder
        has rows of authors whom no model was trained on.

    Raises:
        ExpungeError: As `splits`.
    """
    files = read_files(data, _known(split))
    given = {
        "forget": files.forget,
        "retain": files.retain_evaluated,
        "real_authors": files.real_authors,
        "world_facts": files.world_facts,
        "holdout": files.holdout,
    }
    return {
        name: [
            _row(record, name if name in ROLES else "probe", files, params)
            for record in records[: params.rows]
        ]
        for name, records in given.items()
        if records
    }


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    return numbers()


def asking(params: Params) -> dict[str, "Asking"]:
    """How the rows are put to a model."""
    from expunge.lm.readings import Asking

    until = ("\n",) if params.answers == "first-line" else ()
    usual = Asking(new_tokens=params.new_tokens, until=until)
    return dict.fromkeys((*SETS, "holdout"), usual)


def read_log(path: Path, params: Params) -> Log:
    """A published log, or one that ``expunge bench`` stored; see `published.read_log`."""
    log = published(path)
    return first_lines(log) if params.answers == "first-line" else log


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    kept, percent = SPLITS[_known(split)]
    return (
        f"Fine-tune the base model on {kept}.json alone ({100 - percent} percent of the authors) "
        "with the recipe that made the original from all of them: 5 epochs, AdamW, weight decay "
        "0.01, learning rate 1e-5 (2e-5 for Phi-1.5), batch 64, loss on answer tokens."
    )


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ExpungeError(
            "E-USE-001",
            f"TOFU has no split {split!r}.",
            f"one of {', '.join(SPLITS)}.",
            nearest(split, SPLITS),
        )
    return split


def _bare(record: Record) -> Record:
    return {"question": record["question"], "answer": record["answer"]}


def _row(record: Record, role: str, files: Files, params: Params) -> Row:
    question, answer = (part.format for part in STYLES[params.style])
    author = files.author_of(record)
    reworded: dict[str, Any] = {}
    if "paraphrased_answer" in record:
        asked = question(record.get("paraphrased_question", record["question"]))
        told = answer(record["paraphrased_answer"])
        reworded["paraphrases"] = ({"prompt": asked, "completion": told},)
        # Said to the row's own question it makes the truth ratio, also where it equals the answer.
        reworded["meta"] = {"paraphrased_answer": told}
    return Row(
        id=digest(list(key(record)))[:16],
        role=role,
        prompt=question(record["question"]),
        completion=answer(record["answer"]),
        subject=None if author is None else f"author-{author}",
        wrong=tuple(answer(each) for each in record.get("perturbed_answer", ())),
        **reworded,
    )
