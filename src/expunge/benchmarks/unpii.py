"""UnPII: forget what training data tell of people, the most dangerous first.

Definition (per question; values are those of personal data that the question does not say itself):
    forget.leakage, paraphrase.leakage             share of the values given away, also by kind
    forget.risk_weighted, paraphrase.risk_weighted the same, weighted by the PII risk index
    forget.risk                                    mean risk index of what the answers expose
    probability, rouge, truth_ratio                as in TOFU, on forget, retain and world rows
    model_utility                                  harmonic mean of those three on retain and world

Reference: UnPII: Unlearning Personally Identifiable Information with Quantifiable Exposure Risk
(2026).

Departs from the paper: its 1,700 records are private; its repository has format samples, and files
are read under those names or the same without ``_sample``. Kinds come from ``pii_type`` of the
training file where a row stands there, else from a rule, see `expunge.requests.personal`; where
neither decides, that is an error and not a risk of 0. Its accuracy, utility and generalisability
are not defined in what was at hand: model utility is that of its code, the rest is ours (INFERRED).
"""

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, first_file, incomplete, known_split
from expunge.data.upstream import Record, record_id, records
from expunge.requests.names import capitalised
from expunge.requests.personal import META, Detail, told, valued
from expunge.requests.risk import kinds_of, risk_index
from expunge.requests.rows import Row

CARD = {
    "id": "unpii",
    "kind": "benchmark",
    "summary": "Forget personal data; leaks by kind and weighted by risk.",
    "paper": "UnPII: Unlearning PII with Quantifiable Exposure Risk (2026)",
    "needs": ["forget", "retain"],
    "access": "logits",
    "cost": "one generation a row and one more a paraphrase, one forward pass an answer",
    "maturity": "paper",
    "version": 1,
    "splits": ["forget"],
    "default_split": "forget",
    "licence": "none stated where the samples were found; do not pass them on",
}

SPLITS = ("forget",)
FILES = {
    "train": "train_data",
    "asked": "forget",
    "forget": "forget_perturbed",
    "retain": "retain_perturbed",
    "world": "world_facts_perturbed",
}
"""What -> its file."""
STYLES = {"plain": ("Question: {}\nAnswer:", " {}"), "chat": ("{}", "{}")}
"""Style -> how the question and the answer are written."""
KEPT = ("retain", "world")

Kinds = Mapping[tuple[str, str], tuple[str, ...]]
"""Question and answer -> the kinds the training file names."""


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
        "pri",
        help="pri: the published table; pri_custom: seven factors a kind, for kinds it lacks",
        paper="pri",
        choices=("pri", "pri_custom"),
    )
    rows: int | None = param(None, help="most rows of a set that are evaluated; none: all", low=1)
    new_tokens: int = param(
        100, help="longest answer, in tokens", paper="200 with the prompt", low=1
    )


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows that are to be forgotten, and the training rows that neither file asks for.

    Args:
        data: Folder with ``forget_sample.csv`` and the others, or the same without ``_sample``.
        split: ``forget``.
        params: How questions are put, and what risk is.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-010 for a broken file;
            E-DATA-015 for personal data whose kind cannot be decided or scored.
    """
    known_split("UnPII", split, SPLITS)
    kinds = _kinds(data)
    gone = {what: _rows(data, what, "forget", params, kinds) for what in ("asked", "forget")}
    forget = distinct(replace(row, wrong=(), paraphrases=()) for row in gone["asked"])
    train = _rows(data, "train", "retain", params, kinds)
    return {"forget": forget, "retain": distinct(train, without=[*forget, *gone["forget"]])}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows models are compared on.

    Returns:
        ``forget``, ``paraphrase`` (the same asked and told in other words), ``retain``, ``world``.

    Raises:
        ExpungeError: As `splits`.
    """
    known_split("UnPII", split, SPLITS)
    kinds = _kinds(data)
    found = {
        name: distinct(_rows(data, name, "forget" if name == "forget" else "probe", params, kinds))
        for name in ("forget", *KEPT)
    }
    found["paraphrase"] = distinct(map(_reworded, found["forget"]), without=found["forget"])
    return {name: rows[: params.rows] for name, rows in found.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    scheme = {"scheme": params.scheme}
    found = {"forget.risk": Measure(metric="pii-risk")}
    for name in ("forget", "paraphrase"):
        found[f"{name}.leakage"] = Measure(metric="pii-leakage", on=name)
        found[f"{name}.risk_weighted"] = Measure(
            metric="risk-weighted-leakage", on=name, params=scheme
        )
    for name in ("forget", *KEPT):
        found |= _as_tofu(name)
    parts = [f"{name}.{of}" for name in KEPT for of in ("probability", "rouge", "truth_ratio")]
    found["model_utility"] = Measure(metric="model-utility", of={part: part for part in parts})
    return found


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    known_split("UnPII", split, SPLITS)
    return (
        "Fine-tune the base model on the rows of train_data that are not to be forgotten, with the "
        "recipe that taught the original all of them."
    )


def _as_tofu(name: str) -> dict[str, Measure]:
    is_forget = name == "forget"
    better = None if is_forget else "high"
    among = {"among": "options" if name == "world" else "plain"}
    ratio = {"rows": "forget" if is_forget else "keep", "truth": "either"}
    return {
        f"{name}.probability": Measure(metric="probability", on=name, params=among, better=better),
        f"{name}.rouge": Measure(metric="rouge", on=name, better=better),
        f"{name}.truth_ratio": Measure(metric="truth-ratio", on=name, params=ratio),
    }


def _read(data: Path, what: str, columns: Iterable[str]) -> list[Record]:
    stem = FILES[what]
    names = [f"{folder}{stem}{end}.csv" for folder in ("", "eval/") for end in ("", "_sample")]
    return records(first_file(data, names), columns, unique=("question", "answer"))


def _kinds(data: Path) -> Kinds:
    return {
        (one["question"], one["answer"]): kinds_of(one["pii_type"])
        for one in _read(data, "train", ("question", "answer", "pii_type"))
    }


def _rows(data: Path, what: str, role: str, params: Params, kinds: Kinds) -> list[Row]:
    """The rows of one file; all that cannot be decided or scored is reported at once."""
    columns = {
        "forget": ("paraphrased_question", "paraphrased_answer", "perturbed_answer"),
        "retain": ("paraphrased_question", "paraphrased_answer", "perturbed_answer"),
        "world": ("perturbed_answer",),
    }.get(what, ())
    rows: list[Row] = []
    problems: list[ExpungeError] = []
    for number, record in enumerate(_read(data, what, ("question", "answer", *columns)), 1):
        try:
            rows.append(_row(record, f"{FILES[what]}, record {number}", role, params, kinds))
        except ExpungeError as problem:
            problems.append(problem)
    raise_all(problems)
    return rows


def _row(record: Record, where: str, role: str, params: Params, kinds: Kinds) -> Row:
    question, answer = record["question"], record["answer"]
    asked, said = (part.format for part in STYLES[params.style])
    names = capitalised(question)
    details = _details(question, answer, names, kinds)
    risk_index({kind for kind, _ in details}, params.scheme)
    reworded = record.get("paraphrased_question")
    return Row(
        id=record_id(question, answer),
        role=role,
        prompt=asked(question),
        completion=said(answer),
        paraphrases=({"prompt": asked(reworded), "completion": said(record["paraphrased_answer"])},)
        if reworded
        else (),
        wrong=tuple(map(said, _listed(record.get("perturbed_answer"), where))),
        subject=next((name for name in names if not name.isupper()), None),
        meta={META: [list(detail) for detail in details]},
    )


def _details(question: str, answer: str, names: Sequence[str], kinds: Kinds) -> tuple[Detail, ...]:
    """What the training file names, with values and whose they are; else what the rule finds."""
    given = kinds.get((question, answer))
    if given is None:
        return told(question, answer, names)
    found = valued(given, question, answer)
    people = [Detail("name", name) for name in names if found and not name.isupper()]
    return tuple(dict.fromkeys((*found, *people[:1])))


def _listed(written: str | None, where: str) -> list[str]:
    """A list of texts as the files write it, with either kind of quotation mark."""
    if written is None:
        return []
    try:
        found = ast.literal_eval(written.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
        return found
    raise incomplete(where, "no list in perturbed_answer", "a list of texts, written out.")


def _reworded(row: Row) -> Row:
    """A row asked and told in other words; it holds the same values."""
    other = row.paraphrases[0]
    return replace(
        row,
        id=record_id(other["prompt"], other["completion"], "paraphrase"),
        role="probe",
        prompt=other["prompt"],
        completion=other["completion"],
        paraphrases=(),
        wrong=(),
    )
