"""zsRE: forget answers to questions about relations, and what can be reasoned out from them.

Definition (token accuracy: share of the answer's tokens that are the model's first choice, each
with the true tokens before it; then the mean over questions):
    efficacy       token accuracy on the questions to forget          low is good
    generality     on paraphrased questions                           low is good
    portability    on questions that need the forgotten answer        low is good
    specificity    on unrelated questions, where the split has them   high is good
    retain         on questions of the file that are to be kept       high is good
    contained      how often the written answer contains the true one (forget and retain)

    inverse            asked from the answer back to the subject
    onehop             asked for a property of the answer
    subject_replace    the same fact asked under another name of its subject
    edit               the usual evaluation file: rephrased and unrelated questions, a rival answer

Reference: Zero-Shot Relation Extraction via Reading Comprehension (2017); token accuracy as in Fast
Model Editing at Scale (2022); portability as in Editing Large Language Models: Problems, Methods,
and Opportunities (2023).

Departs from the paper: editing as unlearning, so what editing wants high is wanted low. Some
answers of the portability files are values an editor should write in and not the truth: teach the
file to a model before it is asked to forget it. In ``edit`` the value to be forgotten is the first
of ``answers`` and ``alt`` is its rival; the layout of that file is the one its evaluation code
reads (INFERRED: the file itself was not at hand).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, first_file, incomplete, known_split
from expunge.data.upstream import Record, record_id, records
from expunge.requests.rows import Row

CARD = {
    "id": "zsre",
    "kind": "benchmark",
    "summary": "Forget answers about relations; paraphrases and what follows from them.",
    "paper": "Zero-Shot Relation Extraction via Reading Comprehension (2017)",
    "needs": ["forget", "retain"],
    "access": "logits",
    "cost": "a forward pass for each of some four questions a fact, and one generation for two",
    "maturity": "paper",
    "version": 1,
    "splits": ["onehop", "inverse", "subject_replace", "edit"],
    "default_split": "onehop",
    "licence": "none stated where the files were found; do not pass them on",
}


class Layout(NamedTuple):
    """Where a split keeps what.

    Attributes:
        files: Names it may have.
        asked: Column of the question.
        answer: Column of its answer.
        reworded: Column of the paraphrased question.
        beyond: Columns of question and answer of what follows from the fact; none in ``edit``.
    """

    files: tuple[str, ...]
    asked: str
    answer: str
    reworded: str
    beyond: tuple[str, str] | None


_PLAIN = ("question", "answer", "paraphrased_question")
LAYOUTS: Mapping[str, Layout] = {
    "onehop": Layout(("test_zsre_onehop.json",), *_PLAIN, ("onehop_question", "onehop_answer")),
    "inverse": Layout(("test_zsre_inverse.json",), *_PLAIN, ("inverse_question", "inverse_answer")),
    "subject_replace": Layout(
        ("test_zsre_subject_replace.json",), *_PLAIN, ("alter_question", "answer")
    ),
    "edit": Layout(("zsre_mend_eval.json",), "src", "answers", "rephrase", None),
}

STYLES = {"plain": ("{}", " {}"), "chat": ("{}", "{}")}
"""Style -> how the question and the answer are written."""

UNRELATED = "nq question: "
"""What stands before unrelated questions of ``edit``, in small letters and without a mark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How questions are put, and how much is forgotten and evaluated."""

    style: str = param(
        "plain",
        help="plain: a space before the answer; chat: none, for chat templates",
        choices=("plain", "chat"),
    )
    facts: int = param(50, help="facts to forget; at most half of those in the file", low=1)
    rows: int = param(1000, help="most rows of a set that are evaluated", low=20)
    new_tokens: int = param(24, help="longest written answer, in tokens", low=1)


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions to forget and to keep, without paraphrases and rivals.

    Args:
        data: Folder with the upstream files.
        split: ``onehop``, ``inverse``, ``subject_replace`` or ``edit``.
        params: How questions are put.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-010 for a broken file.
    """
    file = _read(data, split, params)
    forget = distinct(file.row(record, "forget") for record in file.gone)
    retain = distinct((file.row(record, "retain") for record in file.kept), without=forget)
    return {"forget": forget, "retain": retain} if retain else {"forget": forget}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions on which models are compared.

    Returns:
        ``forget``, ``paraphrase`` and ``retain``; ``portability`` or, in ``edit``, ``unrelated``.

    Raises:
        ExpungeError: As `splits`.
    """
    file = _read(data, split, params)
    forget = distinct(file.row(record, "forget", rival=True) for record in file.gone)
    found = {
        "forget": forget,
        "paraphrase": distinct(map(file.reworded, file.gone), without=forget),
        "retain": distinct((file.row(r, "retain", rival=True) for r in file.kept), without=forget),
    }
    if file.layout.beyond is None:
        found["unrelated"] = distinct(map(file.unrelated, file.gone), without=forget)
    else:
        found["portability"] = distinct(map(file.beyond, file.gone), without=forget)
    return {name: rows[: params.rows] for name, rows in found.items() if rows}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers; a split without rivals or unrelated questions says so where they are needed."""
    accuracy = "exact-memorisation"
    return {
        "efficacy": Measure(metric=accuracy),
        "generality": Measure(metric=accuracy, on="paraphrase"),
        "portability": Measure(metric=accuracy, on="portability"),
        "specificity": Measure(metric=accuracy, on="unrelated", better="high"),
        "retain": Measure(metric=accuracy, on="retain", better="high"),
        "forget.contained": Measure(metric="answer-containment"),
        "retain.contained": Measure(metric="answer-containment", on="retain", better="high"),
        "rival": Measure(metric="edit-success"),
    }


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    known_split("zsRE", split, tuple(LAYOUTS))
    return (
        "Fine-tune the base model on the retain rows alone, with the recipe that taught the "
        "original all questions of the file; a model that only pre-training taught has none."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """One file, divided.

    Attributes:
        layout: Where it keeps what.
        style: How question and answer are written.
        gone: Records to be forgotten.
        kept: Records to be kept.
    """

    layout: Layout
    style: tuple[str, str]
    gone: list[Record]
    kept: list[Record]

    def row(self, record: Record, role: str, *, rival: bool = False) -> Row:
        """The fact itself."""
        said = self._said(record, record[self.layout.asked], self._answers(record))
        answer = self.style[1].format
        wrong = (answer(record["alt"]),) if rival and "alt" in record else ()
        return Row(id=_name(record, self.layout), role=role, wrong=wrong, **said)

    def reworded(self, record: Record) -> Row:
        """The fact in other words."""
        asked, answers = record[self.layout.reworded], self._answers(record)
        name = record_id(asked, answers[0], "paraphrase")
        return Row(id=name, role="probe", **self._said(record, asked, answers))

    def beyond(self, record: Record) -> Row:
        """What follows from the fact."""
        asked, answer = (record[column] for column in self.layout.beyond or ())
        name = record_id(asked, answer, "portability")
        return Row(id=name, role="probe", **self._said(record, asked, [answer]))

    def unrelated(self, record: Record) -> Row:
        """A question that has nothing to do with it."""
        asked, answer = record["loc"].removeprefix(UNRELATED), record["loc_ans"]
        name = record_id(asked, answer, "unrelated")
        return Row(id=name, role="neighbour", **self._said(record, asked, [answer]))

    def _answers(self, record: Record) -> list[str]:
        return _listed(record[self.layout.answer])

    def _said(self, record: Record, asked: str, answers: list[str]) -> dict[str, Any]:
        question, answer = (part.format for part in self.style)
        return {
            "prompt": question(asked),
            "completion": answer(answers[0]),
            "answer": answers[0],
            "aliases": tuple(answers[1:]),
            "subject": record["subject"],
            "names": (record["subject"],) if record["subject"] in asked else (),
        }


def _read(data: Path, split: str, params: Params) -> _File:
    layout = LAYOUTS[known_split("zsRE", split, tuple(LAYOUTS))]
    path = first_file(data, layout.files)
    beyond = ("alt", "loc", "loc_ans") if layout.beyond is None else layout.beyond
    columns: dict[str, Any] = dict.fromkeys(
        ("subject", layout.asked, layout.reworded, *beyond), str
    )
    columns[layout.answer] = (str, list)
    found = records(path, columns, unique=(layout.asked, layout.answer))
    for number, record in enumerate(found, 1):
        if not _listed(record[layout.answer]):
            where = f"{path.name}, record {number}"
            raise incomplete(where, f"no text in {layout.answer!r}", "at least one answer.")
    ordered = sorted(found, key=lambda record: _name(record, layout))
    count = min(params.facts, max(len(ordered) // 2, 1))
    return _File(
        layout=layout, style=STYLES[params.style], gone=ordered[:count], kept=ordered[count:]
    )


def _name(record: Record, layout: Layout) -> str:
    return record_id(record[layout.asked], _listed(record[layout.answer])[0])


def _listed(answers: Any) -> list[str]:
    """Accepted answers, the first the one that is scored."""
    given = [answers] if isinstance(answers, str) else list(answers)
    return [each for each in given if isinstance(each, str) and each.strip()]
