"""PCH: forget personal, copyrighted and harmful documents, one request after another.

Definition (request k asks for document k; F_k the documents asked for so far, R_k all others):
    quality            Q of a set, see `fit-quality`: probability and ROUGE-L F1 of the answers to
                       one question a document, next-token accuracy on the document
    forget_degree      max(0, 1 - |Q(F_k) / Q*(F_k) - 1|)
    retain_utility     max(0, 1 - |Q(R_k) / Q*(R_k) - 1|)
    Q* of the reference itself, or a point on the line from the original to it, see ``requests``

A split is the number of requests made. The rows to forget of split k are the first k documents in
the order of the requests, each with its number as ``meta["request"]``: hand them to a method one
after another, or all at once.

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026).

Departs from the paper: the published driver swaps the accuracies on documents to forget and to keep
(``compat`` repeats that), lets the prompt count as answer, and shuffles documents, questions and
answers by three different permutations, after which they no longer belong together; here the three
move together. The data are not public. Files are read as its code reads them (INFERRED): ``PCH``
has the documents, ``PCH_QA`` one question and answer a document, and line i of one belongs to line
i of the other. That order says what is asked for, so it must not be changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from expunge.core.errors import ExpungeError
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.facts import first_file
from expunge.data.upstream import record_id, records
from expunge.requests.rows import Row

CARD = {
    "id": "pch",
    "kind": "benchmark",
    "summary": "Forget hundreds of documents, one request after another.",
    "paper": "FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026)",
    "needs": ["forget", "retain"],
    "access": "logits",
    "cost": "one generation and two forward passes a document, twice with an interpolated target",
    "maturity": "paper",
    "version": 1,
    "splits": ["60", "120", "180", "240", "300"],
    "default_split": "300",
    "licence": "not stated; the data were not found in public and are not shipped",
}

SUFFIXES = (".jsonl", ".json", ".csv")
STYLES = {"plain": ("{}", " {}"), "chat": ("{}", "{}")}
"""Style -> how the question and the answer are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How questions are put, in which order requests come, and what the target is."""

    style: str = param(
        "plain",
        help="plain: a space before the answer; chat: none, for chat templates",
        paper="plain",
        choices=("plain", "chat"),
    )
    total: int = param(300, help="documents that are asked for in all", paper=300, low=1)
    requests: int | None = param(
        None,
        help="the split's number, if the reference was retrained without all requests: the target "
        "then lies on a line from the original to it; none: the reference is the target",
        paper="60, 120, ... 300",
        low=1,
    )
    shuffle: int | None = param(
        None, help="seed of the order of requests; none: that of the file", paper="20, 30, 40, 50"
    )
    compat: bool = param(
        False, help="swap the accuracies of the two sets, as published numbers do", paper=True
    )
    rows: int | None = param(None, help="most documents of a set that are evaluated", low=20)
    new_tokens: int = param(
        128, help="longest answer, in tokens", paper="128 with the prompt", low=1
    )


def fitting(has_template: bool) -> dict[str, Any]:
    """Parameters that fit a model, by whether its tokenizer has a chat template."""
    return {"style": "chat" if has_template else "plain"}


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The documents asked for, in the order of the requests, and all others.

    Args:
        data: Folder with ``PCH`` and ``PCH_QA``, as JSON, JSON Lines or CSV.
        split: Number of requests, 1 to ``total``.
        params: In which order requests come.

    Raises:
        ExpungeError: E-USE-001 for a split that is no such number; E-DATA-001 to E-DATA-014 for
            broken files.
    """
    documents, count = _documents(data, params), _count(split, params)
    gone, kept = documents[:count], documents[count:]
    return {
        "forget": [one.text_row("forget", number) for number, one in enumerate(gone, 1)],
        "retain": [one.text_row("retain") for one in kept],
    }


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """What models are compared on.

    Returns:
        Questions ``forget`` and ``retain`` with their documents ``forget_text`` and
        ``retain_text``; for an interpolated target also those of all requests, ``all_forget`` and
        so on.

    Raises:
        ExpungeError: As `splits`; E-USE-006 where ``requests`` is not the split.
    """
    documents, count = _documents(data, params), _count(split, params)
    if params.requests not in (None, count):
        raise ExpungeError(
            "E-USE-006",
            f"requests={params.requests} with the split {split}.",
            "the split's own number, or none.",
            f"Give --set requests={count}.",
        )
    cuts = {"": count} if params.requests is None else {"": count, "all_": params.total}
    found: dict[str, list[Row]] = {}
    for prefix, cut in cuts.items():
        for role, of in (("forget", documents[:cut]), ("retain", documents[cut:])):
            asked = sorted(of, key=lambda one: one.name)[: params.rows]
            found[f"{prefix}{role}"] = [one.question_row(role, params.style) for one in asked]
            found[f"{prefix}{role}_text"] = [one.text_row(role) for one in asked]
    return found


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    found = {
        f"{prefix}{role}.quality": _quality(prefix, role, params)
        for prefix in ("",) + (() if params.requests is None else ("all_",))
        for role in ("forget", "retain")
    }
    for name, role in (("forget-degree", "forget"), ("retain-utility", "retain")):
        found[name.replace("-", "_")] = _parity(name, role, params)
    return found


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    return (
        f"Fine-tune the base model on the documents that are kept after {split} requests, with the "
        "recipe that taught the original all of them. The authors made one, for all 300 requests, "
        "and interpolated from there to the original: give that one with --set requests=SPLIT."
    )


class _Document(NamedTuple):
    """One document with its question."""

    text: str
    question: str
    answer: str

    @property
    def name(self) -> str:
        return record_id(self.text)

    def text_row(self, role: str, number: int | None = None) -> Row:
        """The document itself."""
        meta = {} if number is None else {"request": number}
        name = record_id("text", self.text)
        return Row(id=name, role=role, text=self.text, subject=self.name, meta=meta)

    def question_row(self, role: str, style: str) -> Row:
        """Its question."""
        question, answer = (part.format for part in STYLES[style])
        return Row(
            id=record_id(self.question, self.answer),
            role=role,
            prompt=question(self.question),
            completion=answer(self.answer),
            answer=self.answer,
            subject=self.name,
        )


def _quality(prefix: str, role: str, params: Params) -> Measure:
    other = {"forget": "retain", "retain": "forget"}[role]
    texts = f"{prefix}{other if params.compat else role}_text"
    better = "high" if role == "retain" else None
    how = {"texts": texts}
    return Measure(metric="fit-quality", on=f"{prefix}{role}", params=how, better=better)


def _parity(metric: str, role: str, params: Params) -> Measure:
    own = f"{role}.quality"
    if params.requests is None:
        return Measure(metric=metric, of={"model": own, "reference": f"reference:{own}"})
    ends = {who: f"{who}:all_{own}" for who in ("reference", "original")}
    share = {"requests": params.requests, "total": params.total}
    return Measure(metric=metric, of={"model": own, **ends}, params=share)


def _count(split: str, params: Params) -> int:
    if split.isdecimal() and 1 <= int(split) <= params.total:
        return int(split)
    raise ExpungeError(
        "E-USE-001",
        f"PCH has no split {split!r}.",
        f"the number of requests made, 1 to {params.total}.",
        "Give a number.",
    )


def _documents(data: Path, params: Params) -> list[_Document]:
    """All documents, those asked for first and in the order of the requests."""
    texts = _read(data, "PCH", ("text",))
    pairs = _read(data, "PCH_QA", ("question", "answer"))
    if len(texts) != len(pairs) or len(texts) <= params.total:
        raise ExpungeError(
            "E-DATA-014",
            f"{data} has {len(texts)} documents and {len(pairs)} questions.",
            f"one question a document, and more documents than the {params.total} asked for.",
            "Fetch both files again, or give --set total=NUMBER.",
        )
    documents = [
        _Document(text["text"], pair["question"], pair["answer"])
        for text, pair in zip(texts, pairs, strict=True)
    ]
    if params.shuffle is None:
        return documents
    order = generator(params.shuffle, "pch", "requests").permutation(params.total)
    return [*(documents[place] for place in order), *documents[params.total :]]


def _read(data: Path, name: str, columns: Sequence[str]) -> Sequence[Mapping[str, Any]]:
    names = [f"{stem}{suffix}" for stem in (name, name.lower()) for suffix in SUFFIXES]
    path = first_file(data, names)
    found = records(path, columns, unique=columns)
    empty = [
        f"record {at}"
        for at, one in enumerate(found, 1)
        if not all(one[c].strip() for c in columns)
    ]
    if empty:
        raise ExpungeError(
            "E-DATA-003",
            f"{path.name}: an empty {' or '.join(columns)} in {', '.join(empty[:5])}.",
            "text in every column.",
            "Fetch the file again.",
        )
    return found
