"""FaithUn: forget a fact in every wording and in what follows from it, and nothing else.

Definition (accuracy of multiple choice, on questions the original model answers rightly):
    ua, ua_para    facts to forget, in the words of the request and in other words    low is good
    ma_f           questions that reach through a fact to forget                      low is good
    ta             facts of other clusters                                            high is good
    sa             other facts with the same answer as one to forget                  high is good
    ma_t           questions that reach through facts to keep                         high is good
    score          see `faithun-score`

Reference: FaithUn: Toward Faithful Forgetting in Language Models by Investigating the
Interconnectedness of Knowledge (2025).

Departs from the paper: the read-out (letters, both models asked in all orders of the options) and
the score are INFERRED. The authors compare methods at equal ``ua``: they seem to stop each where it
reaches chance, ``1 / options`` (INFERRED); to follow them stop a method's run there, or read the
other numbers only among runs with about the same ``ua``. A question that is also one to forget is
left out of what must be kept.

The data file was described but not at hand, so its inner layout is INFERRED and read with leave: an
entity has ``hop1_unlearn hop1_test hop2_test same_object``, each a list or an object with one entry
for each fact, in the same order or under the same keys; an entry is a question or any nesting of
questions; a question has ``question`` (a text or several wordings), ``answers`` and
``false_answer_options``. The entries of ``hop1_unlearn`` of all entities, one after the other, are
the clusters that the files of numbers count from 0; there the order of the file does decide.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, first_file, incomplete, known_split
from expunge.data.upstream import record_id
from expunge.data.whole import json_object
from expunge.requests.rows import Row
from expunge.text.lettered import question as lettered_question

CARD = {
    "id": "faithun",
    "kind": "benchmark",
    "summary": "Forget facts about people in all wordings and consequences, and nothing else.",
    "paper": "FaithUn: Toward Faithful Forgetting in Language Models (2025)",
    "needs": ["forget", "retain", "original"],
    "access": "logits",
    "cost": "for each of two models a forward pass for each order of a question's options",
    "maturity": "paper",
    "version": 1,
    "splits": ["main"],
    "default_split": "main",
    "licence": "MIT, as the repository states; the file is not shipped",
}

SPLITS = ("main",)
DATA = ("FaithUn_Dataset.json", "FaithUnBench.json", "FaithUn_dataset.json")
NUMBERS = {
    "forget": "forget_set_split.txt",
    "retain": "retaining_set_split.txt",
    "test": "test_set_split.txt",
}
KINDS = ("hop1_unlearn", "hop1_test", "hop2_test", "same_object")
DEEPEST = 8
"""Levels of nesting that are searched for questions."""

Cluster = Mapping[str, Sequence[Row]]
"""Kind of question -> its rows; those of one fact of one entity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How models are asked to choose, and how much."""

    by: str = param(
        "letter",
        help="letter of an option, likelihood of its text, or the mean of that over its tokens",
        choices=("letter", "likelihood", "mean-likelihood"),
    )
    rotate: bool = param(True, help="show options under letters in all cyclic orders")
    rows: int = param(2000, help="most rows of a set that are evaluated", low=20)


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The base questions to forget and to keep, with their answers.

    Args:
        data: Folder with the data file, and with the three files of numbers beside it or in
            ``splits``.
        split: ``main``.
        params: Not used here.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-014 for broken files.
    """
    chosen = _chosen(data, split)
    roles: dict[str, list[Row]] = {}
    for role in ("forget", "retain"):
        rows = (_bare(row, role) for row in _rows(chosen[role], "hop1_unlearn"))
        roles[role] = distinct(rows, without=roles.get("forget", ()))
    return roles


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions on which models are compared, with their options.

    Returns:
        ``forget``, ``paraphrase``, ``through_forgotten``, ``same_answer``, ``test`` and
        ``through_kept``, as far as there are any.

    Raises:
        ExpungeError: As `splits`.
    """
    chosen = _chosen(data, split)
    forget = distinct(_rows(chosen["forget"], "hop1_unlearn"))
    gone = distinct(_rows(chosen["forget"], "hop2_test"), without=forget)
    reworded = distinct(_rows(chosen["forget"], "hop1_test"), without=forget)
    hidden = [*forget, *gone, *reworded]
    found = {
        "forget": forget,
        "paraphrase": reworded,
        "through_forgotten": gone,
        "same_answer": distinct(_rows(chosen["forget"], "same_object"), without=hidden),
        "test": distinct(_rows(chosen["test"], "hop1_unlearn"), without=hidden),
        "through_kept": distinct(_rows(chosen["test"], "hop2_test"), without=hidden),
    }
    return {
        name: [_named(row, name) for row in rows[: params.rows]]
        for name, rows in found.items()
        if rows
    }


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    asked = {"by": params.by, "rotate": params.rotate}
    on = {
        "ua": ("forget", "low"),
        "ua_para": ("paraphrase", "low"),
        "ta": ("test", "high"),
        "sa": ("same_answer", "high"),
        "ma_f": ("through_forgotten", "low"),
        "ma_t": ("through_kept", "high"),
    }
    accuracies = {
        name: Measure(metric="known-choice-accuracy", on=rows, better=better, params=asked)
        for name, (rows, better) in on.items()
    }
    score = Measure(metric="faithun-score", of={name: name for name in accuracies})
    return {**accuracies, "score": score}


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    known_split("FaithUn", split, SPLITS)
    return (
        "The facts are about well-known people and learned in pre-training, so no model can be "
        "retrained without them; compare with the original, whose accuracy is 1 on every set."
    )


def _chosen(data: Path, split: str) -> dict[str, list[Cluster]]:
    """The clusters to forget, to train on as retain rows, and to test."""
    known_split("FaithUn", split, SPLITS)
    clusters = _clusters(first_file(data, DATA))
    numbers = {role: _numbers(data, name, len(clusters)) for role, name in NUMBERS.items()}
    seen: dict[int, str] = {}
    for role, of in numbers.items():
        for number in of:
            if number in seen:
                raise _unfit(
                    f"cluster {number} is in {NUMBERS[role]} and in {NUMBERS[seen[number]]}",
                    "every cluster in one set at most, once.",
                )
            seen[number] = role
    return {role: [clusters[number] for number in of] for role, of in numbers.items()}


def _numbers(data: Path, name: str, count: int) -> list[int]:
    path = first_file(data, (name, f"splits/{name}"))
    words = path.read_text(encoding="utf-8", errors="replace").split()
    if not words or not all(word.isdecimal() and word.isascii() for word in words):
        raise incomplete(path.name, "not a list of numbers", "one number of a cluster a line.")
    numbers = [int(word) for word in words]
    if max(numbers) >= count:
        raise _unfit(f"{path.name} names cluster {max(numbers)} of {count}", "numbers from 0.")
    return numbers


def _clusters(path: Path) -> list[Cluster]:
    found: list[Cluster] = []
    for entity, kinds in json_object(path, "one JSON object, entity by entity.").items():
        where = f"{path.name}, entity {entity}"
        if not isinstance(kinds, Mapping) or any(name not in kinds for name in KINDS):
            raise incomplete(where, "lacks a kind of question", f"the keys {', '.join(KINDS)}.")
        entries = {name: _entries(kinds[name], f"{where}, {name}") for name in KINDS}
        facts = list(entries["hop1_unlearn"])
        for name, of in entries.items():
            if of.keys() - set(facts):
                raise incomplete(f"{where}, {name}", "entries of no fact", "one for each fact.")
        found += [
            {
                name: list(_questions(of.get(fact, ()), entity, f"{where}, {name}"))
                for name, of in entries.items()
            }
            for fact in facts
        ]
    return found


def _entries(given: Any, where: str) -> dict[str, Any]:
    """The entries of one kind by fact: under their keys, or under their places."""
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list):
        return {str(place): entry for place, entry in enumerate(given)}
    raise incomplete(where, f"a {type(given).__name__}", "a list or an object of questions.")


def _questions(given: Any, entity: str, where: str, depth: int = 0) -> Iterator[Row]:
    """All questions in an entry, however it nests them."""
    if isinstance(given, Mapping) and "question" in given:
        yield from _read(given, entity, where)
    elif depth < DEEPEST and isinstance(given, Mapping | list | tuple):
        for each in given.values() if isinstance(given, Mapping) else given:
            yield from _questions(each, entity, where, depth + 1)
    else:
        raise incomplete(where, f"no question in {str(given)[:60]!r}", "questions with answers.")


def _read(given: Mapping[str, Any], entity: str, where: str) -> Iterator[Row]:
    answers, false = _texts(given.get("answers")), _texts(given.get("false_answer_options"))
    wrong = [each for each in dict.fromkeys(false) if each not in answers]
    wordings = _texts(given["question"])
    if not (wordings and answers and wrong):
        expected = "'question', 'answers' and 'false_answer_options', none of them empty."
        raise incomplete(where, f"an incomplete question {str(given)[:60]!r}", expected)
    for asked in wordings:
        name = record_id(asked, answers[0])
        # The true option stands where its name puts it: always first, it would be known by place.
        options = sorted([answers[0], *wrong], key=lambda option: record_id(name, option))
        yield Row(
            id=name,
            role="probe",
            prompt=f"Question: {asked}\nAnswer:",
            completion=f" {answers[0]}",
            answer=answers[0],
            aliases=tuple(answers[1:]),
            subject=entity,
            meta=lettered_question(asked, options, options.index(answers[0])),
        )


def _texts(given: Any) -> list[str]:
    listed = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    return [each.strip() for each in listed if isinstance(each, str) and each.strip()]


def _rows(clusters: Iterable[Cluster], kind: str) -> Iterator[Row]:
    return (row for cluster in clusters for row in cluster[kind])


def _bare(row: Row, role: str) -> Row:
    """A row as a method may see it."""
    return replace(row, role=role, meta={})


def _named(row: Row, name: str) -> Row:
    """A row of a set; the same question may stand in two sets under two names."""
    return row if name == "forget" else replace(row, id=record_id(row.id, name))


def _unfit(found: str, expected: str) -> ExpungeError:
    return ExpungeError("E-DATA-014", f"{found}.", expected, "Take all files from one release.")
