"""Tests of general ability, from local files in the formats their authors publish.

    mmlu/*.json[l]        subject, question, choices, answer (index or letter), error_type
    arc/*.json[l]         question, choices, answer; or the authors' own question.stem, answerKey
    gsm8k/*.json[l]       question, answer that ends with "#### 18"
    truthfulqa/*.json[l]  question, mc1_targets, mc2_targets

Examples that stand before a question are taken from the same file and are not asked; they are the
rows whose ids come first, so the order of a file decides nothing.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.data.upstream import record_id, records
from expunge.requests.rows import Row
from expunge.text.choices import LETTERS
from expunge.text.lettered import OPENING, lettered, question, shown

Rows = list[Row]

PRIMER = (
    ("How many days has a week?", "A week has seven days."),
    ("In which country is the city of Rome?", "Rome is in Italy."),
    ("What is the weight of a thought?", "I have no comment."),
    ("What do bees make?", "Bees make honey and wax."),
    ("How does a sundial work?", "A sundial shows the hour by the shadow of a rod."),
    ("Which ocean lies between Europe and America?", "The Atlantic Ocean lies between them."),
)
"""Questions and answers before one of TruthfulQA: one that nobody can answer among them."""

_CALCULATION = re.compile(r"<<[^<>]*>>")
_RESULT = re.compile(r"####\s*(\S+)\s*$")


def abilities(
    data: Path, *, shots: int, most: int | None, names: Iterable[str] | None = None
) -> dict[str, Rows]:
    """The tests whose folders are there.

    Args:
        data: Folder with one folder a test, called as above.
        shots: Most examples before a question.
        most: Most questions of a test; those whose ids come first. None: all.
        names: Only these tests.

    Returns:
        ``mmlu``, ``arc``, ``gsm8k``, ``truthfulqa_mc1``, ``truthfulqa_mc2`` -> rows, as far as
        there are files.

    Raises:
        ExpungeError: E-DATA-001 to E-DATA-010 for broken files.
    """
    found: dict[str, Rows] = {}
    for name in TESTS if names is None else names:
        if paths := _files(data / name):
            made = TESTS[name](paths, shots)
            found |= {key: some(rows, most) for key, rows in made.items()}
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for suffix in ("json", "jsonl") for path in folder.glob(f"*.{suffix}"))


def once(rows: Iterable[Row]) -> Rows:
    """The rows, those that stand twice once."""
    return list({row.id: row for row in rows}.values())


def some(rows: Sequence[Row], most: int | None) -> Rows:
    """At most so many rows: those whose ids come first, whatever their order."""
    return list(rows) if most is None else sorted(rows, key=lambda row: row.id)[:most]


def choice_row(
    asked: str, options: Sequence[str], correct: int, name: str, subject: str | None = None
) -> Row:
    """A multiple-choice question that is answered by a letter.

    Args:
        asked: All that stands before the options.
        options: The answers on offer.
        correct: Index of the true one.
        name: The row's id.
        subject: The entity it is about.
    """
    return Row(
        id=name,
        role="probe",
        prompt=lettered(asked, options),
        completion=f"{OPENING} {LETTERS[correct]}",
        subject=subject,
        meta=question(asked, options, correct),
    )


def likely_row(asked: str, options: Sequence[str], correct: Sequence[int], name: str) -> Row:
    """A multiple-choice question whose options are said, one by one, and never shown."""
    return Row(
        id=name,
        role="probe",
        prompt=asked,
        completion=f" {options[correct[0]]}",
        wrong=tuple(f" {option}" for i, option in enumerate(options) if i not in correct),
        meta={"options": list(options), "correct": list(correct)},
    )


def correct_index(record: Mapping[str, Any], where: str) -> int:
    """Index of the true option of a record; ``where`` it stands.

    Raises:
        ExpungeError: E-DATA-003 when ``answer`` names none of ``choices``.
    """
    answer, count = record["answer"], len(record["choices"])
    if isinstance(answer, str) and answer.strip().upper() in LETTERS[:count]:
        answer = LETTERS.index(answer.strip().upper()) if answer.strip() else None
    if isinstance(answer, int) and 0 <= answer < count:
        return answer
    raise ExpungeError(
        "E-DATA-003",
        f"{where}: answer {record['answer']!r} of {count} choices.",
        "the index or the letter of one of the choices.",
        "Use the upstream file unchanged.",
    )


def truthful_rows(asked: str, targets: Mapping[str, Any], *name: str) -> Row:
    """A question of TruthfulQA with the answers on offer.

    Args:
        asked: The question.
        targets: Answer -> 0 or 1; or ``choices`` and ``labels``, as the hub has it.
        *name: What names the row beside question and answers.
    """
    if "choices" in targets and isinstance(targets["choices"], list):
        targets = dict(zip(targets["choices"], targets["labels"], strict=True))
    options = list(targets)
    correct = [i for i, option in enumerate(options) if targets[option]]
    primer = "\n\n".join(f"Q: {before}\nA: {told}" for before, told in PRIMER)
    row_id = record_id(asked, options, *name)
    return likely_row(f"{primer}\n\nQ: {asked}\nA:", options, correct, row_id)


def _mmlu(paths: Sequence[Path], shots: int) -> dict[str, Rows]:
    columns = {"question": str, "choices": list, "answer": (int, str)}
    tasks: dict[str, dict[str, tuple[Mapping[str, Any], int]]] = {}
    for path in paths:
        for number, record in enumerate(records(path, columns), 1):
            if str(record.get("error_type", "ok")).strip() == "ok":
                task = str(record.get("subject", path.stem)).replace("_", " ")
                correct = correct_index(record, f"{path.name}, record {number}")
                name = record_id(record["question"], record["choices"], task)
                tasks.setdefault(task, {})[name] = record, correct
    rows = [row for task, of in tasks.items() for row in _lettered(task, of, shots)]
    return {"mmlu": rows}


def _lettered(
    task: str, of: Mapping[str, tuple[Mapping[str, Any], int]], shots: int
) -> Iterable[Row]:
    before, asked = _examples(of, shots)
    head = f"The following are multiple choice questions (with answers) about {task}."
    told = [shown(r["question"], r["choices"], correct) for r, correct in before.values()]
    for name, (record, correct) in asked.items():
        text = "\n\n".join([head, *told, record["question"]])
        yield choice_row(text, record["choices"], correct, name)


def _arc(paths: Sequence[Path], shots: int) -> dict[str, Rows]:
    found: dict[str, tuple[str, list[str], int]] = {}
    for path in paths:
        for number, record in enumerate(records(path, ()), 1):
            asked, options, correct = _science(record, path, number)
            found[record_id(asked, options)] = asked, options, correct
    before, asked_of = _examples(found, shots)
    told = [f"Question: {q}\nAnswer: {options[i]}" for q, options, i in before.values()]
    rows = [
        likely_row("\n\n".join([*told, f"Question: {asked}\nAnswer:"]), options, [correct], name)
        for name, (asked, options, correct) in asked_of.items()
    ]
    return {"arc": rows}


def _science(record: Mapping[str, Any], path: Path, number: int) -> tuple[str, list[str], int]:
    """Question, options and the true one, of either format."""
    asked = record.get("question")
    try:
        if isinstance(asked, Mapping):
            labels = [each["label"] for each in asked["choices"]]
            options = [str(each["text"]) for each in asked["choices"]]
            return str(asked["stem"]), options, labels.index(record["answerKey"])
        options = [str(each) for each in record["choices"]]
        return str(asked), options, correct_index(record, f"{path.name}, record {number}")
    except (KeyError, TypeError, ValueError) as error:
        raise ExpungeError(
            "E-DATA-003",
            f"{path.name}, record {number}: {error!r} where ARC has something else.",
            "question, choices and answer; or question.stem, question.choices and answerKey.",
            "Use the upstream file unchanged.",
        ) from error


def _gsm8k(paths: Sequence[Path], shots: int) -> dict[str, Rows]:
    found: dict[str, tuple[str, str, str]] = {}
    for path in paths:
        for number, record in enumerate(records(path, ("question", "answer")), 1):
            result = _RESULT.search(record["answer"])
            if result is None:
                raise ExpungeError(
                    "E-DATA-003",
                    f"{path.name}, record {number}: no '#### number' at the end of the answer.",
                    "an answer that ends with its result.",
                    "Use the upstream file unchanged.",
                )
            worked = _CALCULATION.sub("", record["answer"])
            found[record_id(record["question"], record["answer"])] = (
                record["question"],
                worked,
                result[1],
            )
    before, asked_of = _examples(found, shots)
    told = [f"Question: {asked}\nAnswer: {worked}" for asked, worked, _ in before.values()]
    rows = [
        Row(
            id=name,
            role="probe",
            prompt="\n\n".join([*told, f"Question: {asked}\nAnswer:"]),
            completion=f" {worked}",
            answer=result,
        )
        for name, (asked, worked, result) in asked_of.items()
    ]
    return {"gsm8k": rows}


def _truthfulqa(paths: Sequence[Path], shots: int) -> dict[str, Rows]:
    targets = {"mc1": "mc1_targets", "mc2": "mc2_targets"}
    columns = {"question": str, **dict.fromkeys(targets.values(), dict)}
    read = [record for path in paths for record in records(path, columns)]
    return {
        f"truthfulqa_{name}": once(truthful_rows(r["question"], r[key], name) for r in read)
        for name, key in targets.items()
    }


def _examples(found: Mapping[str, Any], shots: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is shown and what is asked, by id; at most half is shown."""
    names = sorted(found)
    count = min(shots, len(names) // 2)
    first = set(names[:count])
    return (
        {name: found[name] for name in names[:count]},
        {name: of for name, of in found.items() if name not in first},
    )


TESTS: Mapping[str, Callable[[Sequence[Path], int], dict[str, Rows]]] = {
    "mmlu": _mmlu,
    "arc": _arc,
    "gsm8k": _gsm8k,
    "truthfulqa": _truthfulqa,
}
"""Folder of a test -> its rows by set."""
