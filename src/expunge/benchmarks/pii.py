"""PII of invented people: forget 1, 5 or 10 percent of them, asked for in five ways.

Definition (values: the personal data of a row that its question does not say itself):
    forget       the questions as trained on
    paraphrase   each in five other wordings
    inverted     asked from the values back to the person: the name is the value
    one_hop      a value reached through another one, without the name
    retain       questions about people to be kept
    leakage, risk_weighted           share of the values given away; weighted by the risk index
    probability, rouge, truth_ratio  as in TOFU, on forget and retain
    forget_quality                   p of the test that compares truth ratios with the reference's

Reference: Toward Practical PII Unlearning, a public repository (INFERRED title), built on Erasing
Without Remembering: Safeguarding Knowledge Forgetting in Large Language Models (2025).

Departs from the paper: a value leaks when it stands in the answer as whole words; the repository
also counts near matches by edit distance. Kinds are not in the files: a rule decides, see
`expunge.requests.personal`. One-hop rows are those about people to be forgotten, and their values
are those of that person that stand in the true answer. Its extraction prompts have no true answers
and are not asked. Where the retain file of the split is not there, the people of
``test_retain_pii.json`` are what is to be kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, first_file, known_split
from expunge.data.upstream import Record, record_id, records
from expunge.requests.personal import META, Detail, decided, gives_away
from expunge.requests.risk import risk_index
from expunge.requests.rows import Row

CARD = {
    "id": "pii",
    "kind": "benchmark",
    "summary": "Forget invented people's personal data, asked for in five ways.",
    "paper": "Erasing Without Remembering: Safeguarding Knowledge Forgetting in LLMs (2025)",
    "needs": ["forget", "retain"],
    "access": "logits",
    "cost": "one generation a row, some eight rows a question; one forward pass an answer",
    "maturity": "paper",
    "version": 1,
    "splits": ["forget1", "forget5", "forget10"],
    "default_split": "forget10",
    "licence": "none stated where the files were found; the people are invented; not shipped",
}

RETAIN = {"forget1": "retain99", "forget5": "retain95", "forget10": "retain90"}
STYLES = {"plain": ("Question: {}\nAnswer:", " {}"), "chat": ("{}", "{}")}
"""Style -> how the question and the answer are written."""
WORDINGS = range(1, 6)
ASKED = ("forget", "paraphrase", "inverted", "one_hop")

_COLUMNS: Mapping[str, type] = {
    **dict.fromkeys(("question", "answer", "inverted_question", "inverted_answer", "subject"), str),
    "subject_pii": list,
    **{
        f"{kind}_{part}_{number}": str
        for kind in ("paraphrased", "perturbed")
        for part in ("question", "answer")
        for number in WORDINGS
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How questions are put, and what risk is."""

    style: str = param(
        "plain",
        help="plain: 'Question: ... Answer: ...'; chat: the question alone, for chat templates",
        paper="chat",
        choices=("plain", "chat"),
    )
    scheme: str = param(
        "pri_custom",
        help="pri_custom: seven factors a kind; pri: the table of UnPII, which lacks e-mail "
        "addresses and others that these files have",
        choices=("pri", "pri_custom"),
    )
    rows: int | None = param(None, help="most rows of a set that are evaluated; none: all", low=1)
    new_tokens: int = param(150, help="longest answer, in tokens", paper=150, low=1)


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions about people to be forgotten and to be kept.

    Args:
        data: Folder with ``forget10.json`` and the others.
        split: ``forget1``, ``forget5`` or ``forget10``.
        params: How questions are put, and what risk is.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-010 for a broken file;
            E-DATA-015 for values whose kind cannot be decided or scored.
    """
    people = _people(data, split, params)
    forget = distinct(person.asked("forget") for person in people["forget"])
    kept = (person.asked("retain") for person in people["retain"])
    return {"forget": forget, "retain": distinct(kept, without=forget)}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The questions models are compared on.

    Returns:
        ``forget``, ``paraphrase``, ``inverted``, ``retain``; ``one_hop`` where its file is there
        and asks about people of the split.

    Raises:
        ExpungeError: As `splits`.
    """
    people = _people(data, split, params)
    gone = people["forget"]
    found = {
        "forget": distinct(person.asked("forget", full=True) for person in gone),
        "paraphrase": distinct(row for person in gone for row in person.reworded()),
        "inverted": distinct(person.inverted() for person in gone),
        "one_hop": distinct(_one_hop(data, gone, params)),
        "retain": distinct(person.asked("retain", full=True) for person in people["retain"]),
    }
    return {name: rows[: params.rows] for name, rows in found.items() if rows}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    scheme = {"scheme": params.scheme}
    found = {"forget.risk": Measure(metric="pii-risk", params=scheme)}
    for name in (*ASKED, "retain"):
        better = "high" if name == "retain" else None
        found[f"{name}.leakage"] = Measure(metric="pii-leakage", on=name, better=better)
        found[f"{name}.risk_weighted"] = Measure(
            metric="risk-weighted-leakage", on=name, params=scheme, better=better
        )
    for name, rows, better in (("forget", "forget", None), ("retain", "keep", "high")):
        ratio = {"rows": rows, "truth": "either"}
        found[f"{name}.probability"] = Measure(metric="probability", on=name, better=better)
        found[f"{name}.rouge"] = Measure(metric="rouge", on=name, better=better)
        found[f"{name}.truth_ratio"] = Measure(metric="truth-ratio", on=name, params=ratio)
    found["forget_quality"] = Measure(metric="forget-quality")
    return found


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    kept = RETAIN[known_split("PII", split, tuple(RETAIN))]
    return (
        f"Fine-tune the base model on the people of {kept} alone, with the recipe that taught the "
        "original all 200 of them."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Question:
    """One record: a question about a person, in all its forms.

    Attributes:
        record: As upstream has it.
        details: The personal data it holds.
        style: How question and answer are written.
    """

    record: Record
    details: tuple[Detail, ...]
    style: tuple[str, str]

    def asked(self, role: str, *, full: bool = False) -> Row:
        """As trained on; ``full`` with its other wordings and its wrong answers."""
        row = self._row(self.record["question"], self.record["answer"], role)
        if not full:
            return row
        said = self.style[1].format
        return replace(
            row,
            paraphrases=tuple(
                {"prompt": other.prompt or "", "completion": other.reply}
                for other in self.reworded()
            ),
            wrong=tuple(said(self.record[f"perturbed_answer_{n}"]) for n in WORDINGS),
        )

    def reworded(self) -> Iterator[Row]:
        """In other words, five times."""
        for n in WORDINGS:
            asked = self.record[f"paraphrased_question_{n}"]
            yield self._row(asked, self.record[f"paraphrased_answer_{n}"], "probe", "paraphrase")

    def inverted(self) -> Row:
        """From the values back to the person."""
        asked, answer = self.record["inverted_question"], self.record["inverted_answer"]
        return self._row(asked, answer, "probe", "inverted")

    def _row(self, question: str, answer: str, role: str, *kind: str) -> Row:
        asked, said = (part.format for part in self.style)
        return Row(
            id=record_id(question, answer, *kind),
            role=role,
            prompt=asked(question),
            completion=said(answer),
            subject=self.record["subject"],
            names=(self.record["subject"],),
            meta={META: [list(detail) for detail in self.details]},
        )


def _people(data: Path, split: str, params: Params) -> dict[str, list[_Question]]:
    known_split("PII", split, tuple(RETAIN))
    files = {
        "forget": [f"{split}.json"],
        "retain": [f"{RETAIN[split]}.json", "test_retain_pii.json"],
    }
    return {role: _questions(first_file(data, names), params) for role, names in files.items()}


def _questions(path: Path, params: Params) -> list[_Question]:
    """The records of one file; all that cannot be decided or scored is reported at once."""
    found: list[_Question] = []
    problems: list[ExpungeError] = []
    for record in records(path, _COLUMNS, unique=("question", "answer")):
        name = record["subject"]
        try:
            values = [str(value) for value in record["subject_pii"]]
            details = decided(values, record["question"], record["answer"], [name])
            if all(detail.kind != "name" for detail in details):
                details = (*details, Detail("name", name))
            risk_index({detail.kind for detail in details}, params.scheme)
            one = _Question(record=record, details=details, style=STYLES[params.style])
            found.append(one)
        except ExpungeError as problem:
            problems.append(problem)
    raise_all(problems)
    return found


def _one_hop(data: Path, gone: Sequence[_Question], params: Params) -> Iterator[Row]:
    """Questions that reach a person of the split through one of their values."""
    path = data / "full_validation.json"
    if not path.is_file():
        return
    held: dict[str, dict[Detail, None]] = {}
    for one in gone:
        held.setdefault(one.record["subject"], {}).update(dict.fromkeys(one.details))
    asked, said = (part.format for part in STYLES[params.style])
    for record in records(path, ("question", "answer"), unique=("question", "answer")):
        question, answer = record["question"], record["answer"]
        details = _values_in(held, question, answer)
        if details:
            yield Row(
                id=record_id(question, answer, "one_hop"),
                role="probe",
                prompt=asked(question),
                completion=said(answer),
                subject=next(value for kind, value in details if kind == "name"),
                meta={META: [list(detail) for detail in details]},
            )


def _values_in(
    held: Mapping[str, Iterable[Detail]], question: str, answer: str
) -> tuple[Detail, ...]:
    """The values of the person an answer names; nothing where it names none of these people."""
    for person, details in held.items():
        if gives_away(answer, person):
            text = f"{question} {answer}"
            found = {detail for detail in details if gives_away(text, detail.value)}
            return tuple(sorted(found | {Detail("name", person)}))
    return ()
