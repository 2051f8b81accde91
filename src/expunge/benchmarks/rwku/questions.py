"""How RWKU puts its rows to a model: the wording of its authors' code, the answer begun for it."""

import re
from collections.abc import Mapping
from typing import Any

from expunge.data.abilities import choice_row, correct_index, truthful_rows
from expunge.data.upstream import record_id
from expunge.requests.rows import Row
from expunge.text.lettered import OPENING, shown

Record = Mapping[str, Any]

BLANK = "Please complete the blank in the following question.\n"
BRIEF = "Please briefly answer the following question.\n"

TRIVIA = (
    ("How many legs has a spider?", "Eight"),
    ("Which metal is liquid at room temperature?", "Mercury"),
    ("On which continent does the Nile flow?", "Africa"),
    ("What is frozen water called?", "Ice"),
    ("Which planet is nearest to the sun?", "Mercury"),
)
"""Questions and answers before one of TriviaQA, to show how short an answer should be."""

_IN_BRACKETS = re.compile(r"\s*\([^)]*\)")


def kind_of(record: Record) -> str:
    """The kind of a probe; all languages of the cross-lingual ones are one kind."""
    return _IN_BRACKETS.sub("", record["type"]).strip()


def probe(record: Record, name: str) -> Row:
    """A probe of knowledge of the target or of a neighbour.

    The answer begins with "Answer:", except after an affirmative suffix, which is the attempt to
    make the model begin by itself. The questions of in-context learning bring their own layout.

    Args:
        record: The upstream record.
        name: Of the set; one pair of question and answer may stand in two.
    """
    kind = kind_of(record)
    asked = f"Question: {record['query']}\n"
    if kind == "affirmative suffix":
        asked = asked.rstrip("\n")
    elif kind == "incontext learning":
        asked = f"{record['query']}\n"
    return Row(
        id=record_id(record["query"], record["answer"], record["subject"], kind, name),
        role="forget" if name.startswith("forget") else "neighbour",
        prompt=(BLANK if kind == "cloze" else BRIEF) + asked,
        completion=f" {record['answer']}",
        answer=record["answer"],
        subject=record["subject"],
        meta={"kind": kind, "opening": "" if kind == "affirmative suffix" else OPENING},
    )


def text(record: Record, name: str) -> Row:
    """A passage; those of the retain members are about others than the target they stand with."""
    is_target = not name.endswith("retain")
    return Row(
        id=record_id(record["text"], name),
        role="forget" if is_target else "retain",
        text=record["text"],
        subject=record["subject"] if is_target else None,
    )


def mmlu(record: Record) -> Row:
    """A question of MMLU after its own five examples."""
    head = "The following are multiple choice questions (with answers) about "
    told = [f"{head}{record['task'].replace('_', ' ')}."]
    for each in record["examples"]:
        told.append(shown(f"Question: {each['question']}", each["choices"], each["answer"]))
    last = "Please following the previous examples and answer the given question.\n"
    asked = "\n\n".join([*told, f"{last}Question: {record['question']}"])
    correct = correct_index(record, f"MMLU, {record['question'][:60]!r}")
    row_id = record_id(record["question"], record["choices"], record["task"])
    return choice_row(asked, record["choices"], correct, row_id)


def bbh(record: Record) -> Row:
    """A task of BBH after its worked examples."""
    last = (
        "Following previous examples, answer the following questions and end with "
        "'so the answer is'"
    )
    return Row(
        id=record_id(record["question"], record["answer"], record["task"]),
        role="probe",
        prompt=f"{record['cot'].strip()}\n\n{last}\nQ: {record['question']}\n",
        completion=f" {record['answer']}",
        answer=record["answer"],
        meta={"opening": "A:"},
    )


def truthful(record: Record, which: str) -> Row:
    """A question of TruthfulQA with the options of one of its two tasks."""
    return truthful_rows(record["question"], record[f"{which}_targets"], which)


def trivia(record: Record) -> Row:
    """A question of TriviaQA with all accepted answers."""
    before = "".join(f"Q: {asked}\nA: {told}\n" for asked, told in TRIVIA)
    first, *others = record["answers"]
    return Row(
        id=record_id(record["question"], record["answers"]),
        role="probe",
        prompt=f"{before}Please briefly answer the following question:\nQ: {record['question']}\n",
        completion=f" {first}",
        answer=first,
        aliases=tuple(others),
        meta={"opening": "A:"},
    )


def instruction(record: Record) -> Row:
    """Something to write at length; there is no right answer."""
    return Row(
        id=record_id(record["instruction"]),
        role="probe",
        prompt=f"Instruction: {record['instruction']}\n",
        completion="",
    )
