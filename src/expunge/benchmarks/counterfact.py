"""CounterFact: forget facts that a model completes, and see what else they take along.

Definition (each fact a prompt about a subject, its true value and a rival value):
    efficacy       the rival is likelier than the truth after the fact's own prompt
    generality     the same after paraphrased prompts
    specificity    the truth stays likelier on prompts about other subjects with the same true value
    attribute      and on prompts about subjects whose true value is the rival
    generation     how often free text about the subject contains the true value
    score          harmonic mean of efficacy, generality and specificity
    retain         the truth stays likelier on facts of the file that were not to be forgotten

Reference: Locating and Editing Factual Associations in GPT (2022).

Departs from the paper: editing as unlearning. The value to be forgotten is the true one, and the
rival is only a yardstick: nothing has to be written in its place, so a model that knows neither
has an efficacy of about .5 and not of 1. The free text is judged by the true value it contains,
not by its likeness to encyclopaedia articles. A prompt that occurs twice counts once, and a
neighbour prompt that speaks of a subject whose fact is to be forgotten is left out: forgetting
well would be counted as damage. Methods that train on neighbour rows are measured on rows they
have seen, as on retain rows everywhere.

The prompts are beginnings of sentences and made for base models. Any file of the format will do;
rows are known by prompt and value, case numbers are not looked at.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.measuring import Measure
from expunge.core.params import param
from expunge.data.facts import distinct, incomplete, known_split, only_file
from expunge.data.upstream import Record, record_id, records
from expunge.requests.rows import Row
from expunge.text.match import contains

CARD = {
    "id": "counterfact",
    "kind": "benchmark",
    "summary": "Forget facts that a model completes; paraphrases, neighbours, free text.",
    "paper": "Locating and Editing Factual Associations in GPT (2022)",
    "needs": ["forget", "retain", "neighbour"],
    "access": "logits",
    "cost": "two forward passes for each of some 33 prompts a fact; up to ten generations a fact",
    "maturity": "beta",
    "version": 1,
    "splits": ["facts"],
    "default_split": "facts",
    "licence": "MIT, as its makers state; the file is not shipped",
}

SPLITS = ("facts",)
COLUMNS = {
    "requested_rewrite": dict,
    "paraphrase_prompts": list,
    "neighborhood_prompts": list,
    "attribute_prompts": list,
    "generation_prompts": list,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much is forgotten and evaluated."""

    facts: int = param(50, help="facts to forget; at most half of those in the file", low=1)
    rows: int = param(1000, help="most rows of a set that are evaluated", low=20)
    new_tokens: int = param(50, help="longest free text, in tokens", paper=100, low=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """One fact.

    Attributes:
        subject: What it is about.
        prompt: The beginning of the sentence.
        true: The value to be forgotten.
        rival: The value it is compared with.
        record: Everything else the file says.
    """

    subject: str
    prompt: str
    true: str
    rival: str
    record: Record

    @property
    def id(self) -> str:
        """Names the fact by what is asked and answered."""
        return record_id(self.prompt, self.true)

    def row(self, prompt: str, role: str, kind: str = "") -> Row:
        """The true value after a prompt, with the rival as the wrong answer."""
        return self._row(prompt, role, kind, self.true, self.rival)

    def turned(self, prompt: str, role: str, kind: str) -> Row:
        """The rival after a prompt for which it is the truth."""
        return self._row(prompt, role, kind, self.rival, self.true)

    def _row(self, prompt: str, role: str, kind: str, true: str, rival: str) -> Row:
        parts = (prompt, true) if not kind else (prompt, true, rival, kind)
        return Row(
            id=record_id(*parts),
            role=role,
            prompt=prompt,
            completion=f" {true}",
            answer=true,
            wrong=(f" {rival}",),
            subject=self.subject,
            names=(self.subject,) if self.subject in prompt else (),
        )


def splits(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The facts to forget and to keep, without rivals.

    Args:
        data: Folder with one file ``*counterfact*.json``.
        split: ``facts``.
        params: How many facts.

    Raises:
        ExpungeError: E-USE-001 for an unknown split; E-DATA-001 to E-DATA-014 for a broken file.
    """
    gone, kept = _divided(data, split, params)
    forget = [_bare(fact.row(fact.prompt, "forget")) for fact in gone]
    neighbour = distinct((_bare(row) for row in _neighbours(gone)), without=forget)
    retain = [_bare(fact.row(fact.prompt, "retain")) for fact in kept]
    roles = {
        "forget": distinct(forget),
        "retain": distinct(retain, without=neighbour),
        "neighbour": neighbour,
    }
    return {role: rows for role, rows in roles.items() if rows}


def sets(data: Path, split: str, params: Params) -> dict[str, list[Row]]:
    """The rows on which models are compared, each with the rival value.

    Returns:
        ``forget``, ``paraphrase``, ``neighbour``, ``attribute``, ``generation`` and ``retain``.

    Raises:
        ExpungeError: As `splits`.
    """
    gone, kept = _divided(data, split, params)
    forget = [fact.row(fact.prompt, "forget") for fact in gone]
    paraphrase = _each(gone, "paraphrase_prompts", "probe", "paraphrase")
    attribute = (
        fact.turned(prompt, "probe", "attribute")
        for fact in gone
        for prompt in fact.record["attribute_prompts"]
    )
    generation = (
        row
        for row in _each(gone, "generation_prompts", "probe", "generation")
        # A value that the prompt gives away already (BMW, of the BMW IIIa) is no knowledge.
        if not contains(row.prompt or "", row.forms)
    )
    found = {
        "forget": distinct(forget, most=params.rows),
        "paraphrase": distinct(paraphrase, most=params.rows),
        "neighbour": distinct(_neighbours(gone), without=forget, most=params.rows),
        "attribute": distinct(attribute, without=forget, most=params.rows),
        "generation": distinct(generation, most=params.rows),
        "retain": distinct((f.row(f.prompt, "retain") for f in kept), most=params.rows),
    }
    return {name: rows for name, rows in found.items() if rows}


def measures(params: Params) -> dict[str, Measure]:
    """The numbers."""
    keep = {"rows": "keep"}
    return {
        "efficacy": Measure(metric="edit-success"),
        "generality": Measure(metric="edit-success", on="paraphrase"),
        "specificity": Measure(metric="edit-success", on="neighbour", params=keep),
        "attribute": Measure(metric="edit-success", on="attribute", params=keep),
        "retain": Measure(metric="edit-success", on="retain", params=keep),
        "generation": Measure(metric="answer-containment", on="generation"),
        # The harmonic mean; what it is made of is what a deletion wants, not utility alone.
        "score": Measure(
            metric="model-utility",
            of={name: name for name in ("efficacy", "generality", "specificity")},
        ),
    }


def references(split: str) -> str:
    """How the reference of a split is made, in words."""
    known_split("CounterFact", split, SPLITS)
    return (
        "The facts are part of what a pre-trained model knows, so no model can be retrained "
        "without them. A reference exists only where the original was itself fine-tuned on these "
        "facts: fine-tune its base in the same way on the retain rows alone."
    )


def _divided(data: Path, split: str, params: Params) -> tuple[list[Fact], list[Fact]]:
    """The facts to forget, and those to keep; chosen by name, whatever the order of the file."""
    known_split("CounterFact", split, SPLITS)
    facts = sorted(_facts(only_file(data, "*counterfact*.json")), key=lambda fact: fact.id)
    gone = facts[: min(params.facts, max(len(facts) // 2, 1))]
    told = {(fact.subject, fact.true) for fact in gone}
    # The same value of the same subject under another relation gives the fact away.
    kept = [fact for fact in facts[len(gone) :] if (fact.subject, fact.true) not in told]
    return gone, kept


def _facts(path: Path) -> list[Fact]:
    problems: list[ExpungeError] = []
    facts: dict[str, Fact] = {}
    for number, record in enumerate(records(path, COLUMNS), 1):
        where = f"{path.name}, record {number}"
        if (fact := _fact(record)) is None:
            problems.append(
                incomplete(
                    where,
                    "no whole 'requested_rewrite'",
                    "a prompt with one {}, a subject, target_true.str and target_new.str.",
                )
            )
        elif fact.id in facts:
            problems.append(
                ExpungeError(
                    "E-DATA-007",
                    f"{where}: {fact.prompt!r} with the value {fact.true!r} occurs twice.",
                    "every fact once.",
                    "Take its second record out.",
                )
            )
        else:
            facts[fact.id] = fact
    raise_all(problems)
    return list(facts.values())


def _fact(record: Record) -> Fact | None:
    """A fact, or None where the record lacks a part of it."""
    rewrite: dict[str, Any] = record["requested_rewrite"]
    values = [rewrite.get(name) for name in ("target_true", "target_new")]
    true, rival = (each.get("str") if isinstance(each, dict) else None for each in values)
    prompt, subject = rewrite.get("prompt"), rewrite.get("subject")
    prompts = [each for name in COLUMNS if name.endswith("_prompts") for each in record[name]]
    texts = (prompt, subject, true, rival, *prompts)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return None
    if str(prompt).count("{}") != 1:
        return None
    return Fact(
        subject=str(subject),
        prompt=str(prompt).replace("{}", str(subject)),
        true=str(true).strip(),
        rival=str(rival).strip(),
        record=record,
    )


def _each(facts: Iterable[Fact], column: str, role: str, kind: str) -> Iterable[Row]:
    for fact in facts:
        for prompt in fact.record[column]:
            yield fact.row(prompt, role, kind)


def _neighbours(gone: Sequence[Fact]) -> Iterable[Row]:
    """Prompts about other subjects with the same value, those to be forgotten left out."""
    hidden: dict[str, set[str]] = {}
    for fact in gone:
        hidden.setdefault(fact.true, set()).add(fact.subject)
    for row in _each(gone, "neighborhood_prompts", "neighbour", "neighbour"):
        if not any(subject in (row.prompt or "") for subject in hidden[row.value]):
            yield row


def _bare(row: Row) -> Row:
    """A row as a method may see it."""
    return replace(row, wrong=())
