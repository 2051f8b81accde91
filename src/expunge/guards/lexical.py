"""Lexical guard: refuse when a protected name is asked for or a protected answer would leave.

Definition (texts normalised to words: no case, punctuation, articles, invisible characters):
    names      in the prompt or in the draft, as whole words                           -> refuse
    questions  of rows that give no name, whole, in the prompt                         -> refuse
    answers    and their aliases in the draft, as whole words                          -> refuse
    passages   (answers longer than a name) half of their own 5-word runs in the draft -> refuse
    A text is also read in what it may say under a disguise (look-alike letters, digits for letters,
    letters one by one, marks, base64, rot13, backwards). The state holds keyed hashes of these runs
    of words and nothing in the clear. Looking one up costs the same for ten targets and for a
    hundred thousand. Any internal error refuses.

    near       (gate=full) a question whose spelling, wording or vector comes nearer to a target
               than what must be let through does, or that is decided to be about one of the
               nearest targets, where somebody decides                                 -> refuse

    This suppresses, it does not delete: the weights still hold all of it, and whoever reaches them
    gets it. Hashes keep a stolen state from being read, not from being tested with guesses, since
    the key lies beside them; keep the state as secret as the list it was made from.

Reference: Guardrail Baselines for Unlearning in LLMs, 2024 (filtering).

Departs from the paper: its filters ask a language model or look for fixed keywords; this one looks
for the rows' own names and answers, and hashes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from expunge.core.decision import Decision
from expunge.core.params import param
from expunge.engine.guarding import judging
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.ladder import Hit, Ladder
from expunge.engine.guarding.rungs import full, of_drafts, standard
from expunge.lm.gate import TextGate
from expunge.requests.rows import Row

CARD = {
    "id": "lexical",
    "kind": "guard",
    "summary": "Suppress (not delete): refuse protected names and answers, matched by words.",
    "paper": "Guardrail Baselines for Unlearning in LLMs (2024)",
    "needs": ["forget"],
    "access": "text",
    "cost": "some microseconds a word, at any number of targets",
    "maturity": "paper",
    "version": 2,
    "sees": ["prompt", "answer"],
    "stages": ["text-in", "text-out"],
    "place": "gate",
    "fails": "closed",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What counts as an answer, and what is said instead."""

    answer_words: int = param(
        2,
        help="shortest answer, in words, refused wherever it stands; shorter ones are refused only "
        "for rows that give no names, since otherwise the name must stand beside them",
        low=1,
        high=6,
    )
    gate: Literal["exact", "full"] = param(
        "exact",
        help="whole names and questions, or also what comes near them; give rows to be let through",
        choices=("exact", "full"),
    )
    embedding: str = param(
        "hashing", help="gate=full: hashing, or the local folder of a static embedding model"
    )
    reply: str = param("I'm sorry, but I can't help with that.", help="what is said instead")


def ladder(params: Params, means: Means) -> Ladder:
    """Whole matches, or every rung there is."""
    if params.gate == "exact":
        return standard(means.secret)
    return full(means.secret, params.embedding, means.decider)


def drafts(params: Params, means: Means) -> Ladder:
    """Names, answers and passages."""
    return of_drafts(means.secret, params.answer_words)


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Refuse a question that names a subject, or is one of the protected ones."""
    hits = desk.hits(exchange)
    return Reply(desk.params.reply, _rule(hits[0], "prompt")) if hits else exchange


def leave(exchange: Exchange, draft: str, desk: Desk) -> str | Reply:
    """Refuse an answer that names a subject or says what is protected."""
    hits = desk.hits(exchange, draft)
    return Reply(desk.params.reply, _rule(hits[0], "answer")) if hits else draft


def fit(rows: Sequence[Row], params: Params) -> dict[str, Any]:
    """Store what must not be asked and must not be said.

    Args:
        rows: What is to be forgotten.
        params: What counts as an answer.

    Returns:
        The state, a JSON value without any of the protected words.
    """
    return judging.fit("lexical", rows, params)


def check(text_in: str, text_out: str | None, state: Mapping[str, Any]) -> Decision:
    """Judge a prompt and, where there is one, the answer drafted for it.

    Args:
        text_in: The prompt.
        text_out: The draft, or None before the model has answered.
        state: What `fit` returned.

    Returns:
        The decision. What stands in the texts is data: nothing in them is followed, and nothing
        of them is logged.
    """
    return judging.check(text_in, text_out, state)


def gate(state: Mapping[str, Any]) -> TextGate:
    """The guard as a gate in front of a model."""
    return TextGate(check, state)


def _rule(hit: Hit, where: str) -> str:
    return f"name in {where}" if hit.gate == "name" else hit.gate
