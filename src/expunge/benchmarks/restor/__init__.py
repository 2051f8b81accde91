"""RESTOR: forget documents full of false facts, and see whether the true ones come back.

Definition (facts of the entities the documents are about; five examples of the same relation and
other entities stand before each question; an answer ends with its line):
    accuracy       share of answers that contain an accepted form of the true value
    corrupted      share of answers that contain a value the documents gave instead; 1 minus it is
                   how far the false value was forgotten
    recovery       (accuracy - of the original) / (accuracy of the reference - of the original)
    advantage      log-probability of correct over random values, see `option-advantage`
    others         accuracy on listed entities that no document of the split is about

    original       the corrupted model: the clean one after further training on the documents
    reference      the clean model, which never saw them

Reference: RESTOR: Knowledge Recovery in Machine Unlearning (2024).

Departs from the paper: answers are greedy (``samples`` and ``temperature=1`` draw them) and judged
by alias match. The ratio is ours; the accuracies it is made of stand beside it. The sets of values
for the logit view were not published: a file ``options.json`` in the shape the authors' script
reads is used where it is there; else they are read off the documents (INFERRED, `values`). A
corruption that cost no accuracy leaves nothing to recover: "not measurable".

The statements of the documents are false by design and about real people: never show them as facts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from expunge.benchmarks.restor.files import DOCUMENTS, Facts, read_documents, read_facts
from expunge.benchmarks.restor.values import Values, read_options, values_of
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, known_split
from expunge.data.upstream import record_id
from expunge.requests.rows import Row

CARD = {
    "id": "restor",
    "kind": "benchmark",
    "summary": "Forget documents of false facts; do the true facts come back?",
    "paper": "RESTOR: Knowledge Recovery in Machine Unlearning (2024)",
    "needs": ["forget", "retain", "original", "reference"],
    "access": "logits",
    "cost": "one generation and some ten forward passes a fact, on up to 1,051 facts",
    "maturity": "paper",
    "version": 1,
    "splits": ["k0", "k1", "k2", "k3", "k4", "k5", "squad"],
    "default_split": "k0",
    "licence": "MIT; passages of squad are from SQuAD, CC BY-SA 4.0; the files are not shipped",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How facts are asked."""

    examples: int = param(5, help="examples of the relation before a question", paper=5, low=0)
    samples: int = param(1, help="answers drawn for each fact", low=1)
    temperature: float = param(0.0, help="0 answers greedily", paper=1.0, low=0.0)
    new_tokens: int = param(32, help="longest answer, in tokens", low=1)
    margin: float = param(
        0.5,
        help="most by which a corrupted value that is gone may lead a random one, nats",
        low=0.0,
    )
    rows: int = param(2000, help="most facts of a set that are evaluated", low=20)


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The documents to forget, and the facts of people that the benchmark does not ask about.

    Args:
        data: Folder with ``facts.json``, ``entities.json`` and the documents of the split.
        split: ``k0`` to ``k5`` by unrelated facts in a document, or ``squad``.
        params: Not used here.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-014 for broken files.
    """
    facts = read_facts(data)
    documents = read_documents(data, _known(split), facts.listed)
    forget = [
        Row(id=record_id(text), role="forget", text=text, subject=entity)
        for text, entity in sorted(documents.items())
    ]
    strangers = [name for name in facts.known if name not in facts.listed]
    retain = distinct(row for name in strangers for row in _rows(facts, name, "retain", 0))
    return {"forget": forget, "retain": retain} if retain else {"forget": forget}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The facts on which models are compared.

    Returns:
        ``facts`` of the entities the documents are about, ``others`` of the other listed ones.

    Raises:
        ExpungeError: As `splits`.
    """
    facts = read_facts(data)
    documents = read_documents(data, _known(split), facts.listed)
    values = read_options(data) or values_of(facts, documents)
    corrupted = {entity for entity in documents.values() if entity is not None}
    found = {
        "facts": [name for name in facts.listed if name in corrupted],
        "others": [name for name in facts.listed if name not in corrupted],
    }
    return {
        name: distinct(
            (row for who in people for row in _rows(facts, who, "probe", params.examples, values)),
            most=params.rows,
        )
        for name, people in found.items()
        if people
    }


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    drawn = {
        "samples": params.samples,
        "temperature": params.temperature,
        "new_tokens": params.new_tokens,
    }
    rate, false = "value-rate", {**drawn, "values": "corrupted"}
    return {
        "accuracy": Measure(metric=rate, on="facts", params=drawn, better="high"),
        "corrupted": Measure(metric=rate, on="facts", params=false),
        "recovery": Measure(
            metric="restor-recovery",
            of={
                "unlearned": "accuracy",
                "corrupted": "original:accuracy",
                "clean": "reference:accuracy",
            },
        ),
        "advantage": Measure(
            metric="option-advantage", on="facts", params={"margin": params.margin}
        ),
        "others": Measure(metric=rate, on="others", params=drawn, better="high"),
    }


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    return (
        "The reference is the clean model, before it read any document; the original is the clean "
        f"model trained further on all tokens of {DOCUMENTS[_known(split)][0]}."
    )


def _known(split: str) -> str:
    return known_split("RESTOR", split, tuple(DOCUMENTS))


def _rows(
    facts: Facts, entity: str, role: str, examples: int, values: Values | None = None
) -> Iterable[Row]:
    """The facts of one entity, each after examples of its relation and other entities."""
    for relation, fact in facts.known[entity].items():
        before = facts.examples(relation, entity, examples)
        shown = "".join(f"{asked} {answer}\n" for asked, answer in before)
        options = (values or {}).get((entity, relation))
        yield Row(
            id=record_id(entity, relation, fact.question, *fact.answers),
            role=role,
            prompt=f"{shown}{fact.question}",
            completion=f" {fact.answers[0]}",
            answer=fact.answers[0],
            aliases=fact.answers[1:],
            subject=entity,
            names=(entity,),
            meta={} if options is None else {"values": options},
        )
