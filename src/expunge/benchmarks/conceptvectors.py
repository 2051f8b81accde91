"""ConceptVectors: forget a concept, of which it is known what vector of an MLP encodes it.

Definition (o: the original, u: the unlearned model; v: the value vector of a concept):
    traces       cosine, distance, Jaccard of top tokens and related-token rate of v in o and in u
    qa           BLEU and ROUGE-L of u's answers against o's, on ten questions about the concept
    completion   the same where the first half of a sentence of its article is to be completed
    unrelated    the same on questions about other things, where nothing should change

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024).

Departs from the paper: by default all concepts of a file are forgotten at once, since one run makes
one model (`concept=NAME` is the paper's protocol, of which it reports the mean over concepts);
unrelated questions that are asked about a concept to be forgotten are then left out, and one that
stands in several lists is asked once. Sentences of a paragraph are joined with a space (upstream
without one). A model with a chat template is asked in it. Places of vectors are those upstream
found in its own model; `trace=search` looks for them in another.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, nearest
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.upstream import Record, record_id, records
from expunge.requests.rows import Row

CARD = {
    "id": "conceptvectors",
    "kind": "benchmark",
    "summary": "Forget concepts of which the encoding MLP vector is known.",
    "paper": "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024)",
    "needs": ["forget", "original"],
    "access": "weights",
    "cost": "one generation of 100 tokens a question on two models, up to 70 a concept",
    "maturity": "beta",
    "version": 1,
    "splits": ["llama2-7b_dev", "llama2-7b_test", "olmo-7b_dev", "olmo-7b_test"],
    "default_split": "llama2-7b_dev",
    "licence": "CC BY 4.0, the articles inside CC BY-SA; the files are not shipped",
}

SPLITS = ("llama2-7b_dev", "llama2-7b_test", "olmo-7b_dev", "olmo-7b_test")
ASKED = ("qa", "completion", "unrelated")
KEPT = "unrelated"
TRACES = ("cosine", "distance", "jaccard", "related")
GROWING = "distance"
"""The one number of a trace that grows with forgetting."""

PARAGRAPH = 400
"""Characters beyond which a paragraph of an article ends."""

_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=\.|\?)\s")

COLUMNS = {
    "Concept": str,
    "Layer": int,
    "Dim": int,
    "QA": list,
    "text_completion": list,
    "unrelated_QA": list,
    "wikipedia_content": str,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which concepts, where their vectors are, how much is asked."""

    concept: str = param("", help="the one concept to forget; empty: all of the file at once")
    trace: str = param(
        "given",
        help="given: the places upstream found, in its own model; search: look for them",
        paper="given",
        choices=("given", "search"),
    )
    rows: int = param(400, help="most rows of a set that are asked", paper=50, low=1)
    new_tokens: int = param(100, help="longest greedy answer, in tokens", paper=100, low=1)


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """What a method may see: the articles on the concepts, by paragraphs, and others' to keep.

    Args:
        data: Folder with the upstream files.
        split: Model and part, for instance ``llama2-7b_dev``.
        params: Which concepts.

    Returns:
        ``forget``, and ``retain`` where some concept of the file is not to be forgotten.

    Raises:
        ExpungeError: E-USE-001 for an unknown split or concept; E-DATA-001 to E-DATA-010 for files
            that are missing or broken.
    """
    concepts, chosen = _concepts(data, split, params.concept)
    forget = _paragraphs(chosen, "forget")
    said = {row.text for row in forget}
    others = [each for each in concepts if each not in chosen]
    retain = [row for row in _paragraphs(others, "retain") if row.text not in said]
    return {"forget": forget, **({"retain": retain} if retain else {})}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows on which models are compared.

    Returns:
        ``concepts`` (a row a concept: its article, and where its vector is), ``qa``,
        ``completion`` and ``unrelated``.

    Raises:
        ExpungeError: As `splits`.
    """
    _, chosen = _concepts(data, split, params.concept)
    asked = {question for each in chosen for question in each["QA"]}
    made = {
        "concepts": [_concept(each, params) for each in chosen],
        "qa": [_question(text, each["Concept"]) for each in chosen for text in each["QA"]],
        "completion": [_half(pair, each) for each in chosen for pair in each["text_completion"]],
        KEPT: [
            _question(text, None)
            for each in chosen
            for text in each["unrelated_QA"]
            if text not in asked
        ],
    }
    return {name: _first(rows, params.rows) for name, rows in made.items()}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers: four of the traces, two of each set of questions."""
    traces = {
        f"trace.{score}": Measure(
            metric="parametric-traces",
            on="concepts",
            params={"score": score},
            better="high" if score == GROWING else None,
        )
        for score in TRACES
    }
    answers = {
        f"{name}.{score}": Measure(
            metric="answer-agreement",
            on=name,
            params={"score": score},
            better="high" if name == KEPT else None,
        )
        for name in ASKED
        for score in ("bleu", "rouge_l")
    }
    return {**traces, **answers}


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    return (
        f"There is none for {_known(split)}: the concepts come from the pre-training of a 7B "
        "model, which nobody repeats without them. Everything is compared with the original model."
    )


def _known(split: str) -> str:
    if split not in SPLITS:
        raise ExpungeError(
            "E-USE-001",
            f"ConceptVectors has no split {split!r}.",
            f"one of {', '.join(SPLITS)}.",
            nearest(split, SPLITS),
        )
    return split


def _concepts(data: Path, split: str, name: str) -> tuple[list[Record], list[Record]]:
    """All concepts of a file in the order of their names, and those to forget."""
    model, _, part = _known(split).rpartition("_")
    path = data / f"{model}_concepts_{part}.json"
    found = sorted(records(path, COLUMNS, unique=["Concept"]), key=lambda each: each["Concept"])
    _check(path, found)
    chosen = [each for each in found if not name or each["Concept"] == name]
    if not chosen:
        names = [each["Concept"] for each in found]
        raise ExpungeError(
            "E-USE-001",
            f"{path.name} has no concept {name!r}.",
            f"one of {', '.join(names)}.",
            nearest(name, names),
        )
    return found, chosen


def _check(path: Path, found: Sequence[Record]) -> None:
    """Refuse lists that hold something else than questions and halves of sentences."""
    for each in found:
        texts = [*each["QA"], *each["unrelated_QA"]]
        halves = [
            half.get(key) if isinstance(half, dict) else None
            for half in each["text_completion"]
            for key in ("First_half", "Second_half")
        ]
        if not all(isinstance(text, str) and text.strip() for text in [*texts, *halves]):
            raise ExpungeError(
                "E-DATA-003",
                f"{path.name}, concept {each['Concept']!r}: a question or half of a sentence is "
                "no text.",
                "QA and unrelated_QA: lists of texts; text_completion: First_half, Second_half.",
                "Use the upstream files unchanged.",
            )


def _concept(record: Record, params: Params) -> Row:
    place = {"layer": record["Layer"], "dim": record["Dim"]} if params.trace == "given" else {}
    return Row(
        id=record_id("concept", record["Concept"]),
        role="forget",
        text=record["wikipedia_content"],
        subject=record["Concept"],
        names=(record["Concept"],),
        meta=place,
    )


def _question(text: str, concept: str | None) -> Row:
    """A question without an answer: what counts is what the original says."""
    return Row(
        id=record_id(concept or KEPT, text),
        role="probe",
        prompt=f"Question: {text}\n Answer:",
        completion="",
        subject=concept,
    )


def _half(pair: Record, record: Record) -> Row:
    return Row(
        id=record_id(record["Concept"], pair["First_half"], pair["Second_half"]),
        role="probe",
        prompt=f"Please complete the following paragraph: {pair['First_half']}",
        completion=f" {pair['Second_half']}",
        subject=record["Concept"],
    )


def _first(rows: Sequence[Row], count: int) -> list[Row]:
    """Each row once, and no more than so many, whatever their order in the file."""
    once = {row.id: row for row in rows}
    return [once[name] for name in sorted(once)[:count]]


def _paragraphs(concepts: Sequence[Record], role: str) -> list[Row]:
    """Articles cut after the sentence that makes a paragraph long enough; each text once."""
    rows = {
        text: Row(id=record_id(text), role=role, text=text, subject=each["Concept"])
        for each in concepts
        for text in _cut(each["wikipedia_content"])
    }
    return list(rows.values())


def _cut(article: str) -> Iterator[str]:
    held: list[str] = []
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(article))):
        held.append(sentence)
        if len(" ".join(held)) > PARAGRAPH:
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)


def present(values: Any) -> dict[str, Any]:
    """The summary by sets: traces, questions, completions, unrelated questions."""
    found: dict[str, dict[str, float | None]] = {}
    for name, value in values.items():
        of, score = name.split(".")
        found.setdefault(of, {})[score] = value.mean
    return found
