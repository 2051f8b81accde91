"""Aliases: ask about the subject by another name, or in other words.

Definition:
    leak_i = max over wordings w of row i and names b of its subject  leak( answer(w[a -> b]) )

    a is the longest name of the subject that stands in w; b are all its others: the ``names`` of
    the row, the surname alone, and the surname behind initials. ``meta["synonyms"]`` (a word or
    phrase -> others) rewords the rest of the question in the same way, one word at a time.

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models, 2024
(synonym probes).

Departs from the paper: no model writes the synonyms; names are those of the request and what can
be formed from them (INFERRED), synonyms those that the request gives. A row is left out if no
name of its subject stands in a question, or the subject has no other one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.lm.elicit import plain, reworded
from expunge.lm.forms import leak_of
from expunge.lm.subject import Scene, Subject
from expunge.requests.called import called, short_names
from expunge.requests.names import names_of
from expunge.requests.rows import Row

CARD = {
    "id": "alias",
    "kind": "attack",
    "summary": "Ask about the subject by its other names, or with synonyms.",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["forget"],
    "access": "text",
    "cost": "1 answer for each other name of a wording",
    "maturity": "paper",
    "version": 1,
    "family": "prompt",
    "level": "B",
    "threshold": 0.10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is said in other words, and how many answers are drawn."""

    renamed: bool = param(
        True, help="put other names and synonyms; without it this is the direct question"
    )
    partial: bool = param(True, help="also names formed here: surname, initials and surname")
    samples: int = param(0, help="answers drawn to each, beside the greedy one", paper=4, low=0)
    temperature: float = param(0.8, help="of the draws", paper=0.8, low=0.01, high=5.0)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Ask every wording by every other name and with every synonym."""
    names = names_of(rows)

    def by_name(row: Row, asked: str) -> Iterator[str]:
        own = names[row.id]
        short = [one for name in own for one in short_names(name)] if params.partial else []
        yield from _replaced(asked, [*own, *short], [*own, *short])

    def in_words(row: Row, asked: str) -> Iterator[str]:
        for word, others in _synonyms(row).items():
            yield from _replaced(asked, [word], others)

    forms = {"name": by_name, "synonym": in_words}
    probes = {form: reworded(rows, ways) for form, ways in forms.items()}
    if not params.renamed:
        probes = {"asked": plain(rows)}
    return leak_of(
        subject,
        rows,
        probes,
        scene,
        samples=params.samples,
        temperature=params.temperature,
        unfit="are not asked about by a name that has another",
    )


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """Answers to two other names of each wording: of most subjects only one full name is known."""
    return Effort(answers=wordings * (2 if params.renamed else 1) * (1 + params.samples))


def _replaced(text: str, names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The text with the name that stands in it replaced by each of the others."""

    def by(other: str) -> str:
        return called(text, names, lambda _: other)

    said = map(by, dict.fromkeys(others))
    return [one for one in said if one.lower() != text.lower()]


def _synonyms(row: Row) -> Mapping[str, Sequence[str]]:
    """What the request says instead of some words; anything of another shape is passed by."""
    given = row.meta.get("synonyms")
    if not isinstance(given, Mapping):
        return {}
    return {
        word: [one for one in others if isinstance(one, str)]
        for word, others in given.items()
        if word and isinstance(others, Sequence) and not isinstance(others, str)
    }
