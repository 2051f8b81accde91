"""Unlearning by retrieval: a knowledge base whose entries make the model keep a secret.

Definition (t a target, f the served model, P_i what is looked for, Q what f reads):
    stored     for t: P_1..P_M with one vector each, and one Q that all of them share
    Q          the first of at most T texts of a helper under which f refuses questions about t;
               without one t is rejected
    P_i        M aspects of t, described by f itself; for a target that is a text, the text
    retrieval  x -> the 3 items with the highest cosine; those above the threshold fire, and so
               does a name of t in x. Official: (1 + cosine) / 2 >= .6, and no names
    fired      Q of the targets in the system role; P never; x as it came
    not fired  x as it came, byte for byte
    out        an answer that holds a fact of t, or half of the 5-word runs of some P, is refused

    keep_secret: f is told to refuse; forget: f is told to answer as if it had never heard of it.

This suppresses, it does not delete: f knows what it knew. P states the secret and Q names it: both
are sealed where they are stored.

How far it holds is the instruction hierarchy of f: somebody with part of P who writes an override
into the question got through in up to four of five cases in the paper's own attack on a large
model, and never in a third party's. `measures.adaptive` measures it; keep the check of answers on.

Reference: When Machine Unlearning Meets RAG: Keep Secret or Forget Knowledge?, 2024.

Departs from the paper:
- the objective that Q minimises is INFERRED; it is solved by asking, testing and trying again.
- where no Q passes, the official code takes the last one; here the target is rejected.
- Q is also tested on questions of the target's own rows, and its answers are searched for facts.
- a refusal must withhold or say that nothing is known in its first words; in the official code any
  "do not" counts.
- only P makes the vector, and the threshold is a raw cosine set on the retain rows; with
  ``official`` P and Q are embedded together and the threshold is the official one, which is loose
  (a raw cosine of .2). Then Q also stands in a reminder behind the question, as there. A question
  of several sentences is also looked at sentence by sentence.
- the keyword half of the hybrid retrieval is INFERRED; here it is the names, as whole words.
- nothing is changed where nothing fires; the official code wraps every question.
- a target that is a text and is not tested, since the model is not at hand, is marked so.

Not measured here: models of the paper's size, which is what USR and the adaptive attack are about.
"""

from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.engine.guarding.calibration import highest, is_due, threshold, to_let_through
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.leaking import of_facts, reveals
from expunge.engine.guarding.rungs.exact import Names
from expunge.guards.rag_mu.index import Items
from expunge.guards.rag_mu.writing import is_refused
from expunge.text.normalise import words

CARD = {
    "id": "rag-mu",
    "kind": "guard",
    "summary": "Suppress (not delete): retrieve a requirement that makes the model keep a secret.",
    "paper": "When Machine Unlearning Meets RAG: Keep Secret or Forget Knowledge? (2024)",
    "needs": ["forget"],
    "access": "text",
    "cost": "a search over the stored vectors; some 100 tokens more where it fires; at least four "
    "texts of models for each new target",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "stages": ["text-in", "text-out"],
    "place": "prompt",
    "roles": ["helper", "target"],
    "fails": "closed",
}

REMINDER = "You MUST follow the confidentiality requirement."
"""Stands behind the question under official numbers."""

RUN = 5
"""Words of one run of an aspect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How unlearned knowledge is written, found and used."""

    mode: str = param(
        "auto",
        help="concept (by name), sample (texts as they are), or concept where there is a name",
        paper="concept and sample",
        choices=("auto", "concept", "sample"),
    )
    behaviour: str = param(
        "keep_secret",
        help="refuse, or answer as if it were unknown",
        paper="keep_secret and forget",
        choices=("keep_secret", "forget"),
    )
    tries: int = param(3, help="requirements written at most (T)", paper=3, low=1, high=20)
    aspects: int = param(8, help="aspects of a target (M)", paper=8, low=1, high=64)
    aspect_words: int = param(60, help="longest aspect, in words", paper=60, low=5, high=200)
    rule_words: int = param(80, help="longest requirement, in words", paper=80, low=10, high=200)
    own_questions: int = param(
        2, help="questions of the target's own rows that it is tested on too", paper=0, low=0
    )
    retrieved: int = param(3, help="items retrieved", paper=3, low=1, high=50)
    embedding: str = param(
        "hashing", help="hashing, or the local folder of a static embedding model"
    )
    official: bool = param(
        False, help="the official retrieval: (1 + cosine) / 2 >= .6 of P and Q together, no names"
    )
    threshold: float | None = param(
        None, help="raw cosine above which an item fires; none sets it on the retain questions",
        low=0.0, high=1.0,
    )  # fmt: skip
    unset_threshold: float = param(
        0.4, help="raw cosine where no retain question sets it", paper=0.2, low=0.0, high=1.0
    )
    alarms: float = param(
        0.01, help="share of the retain questions that may fire", low=0.0, high=0.5
    )
    audit: str = param(
        "facts",
        help="what of an answer that was fired on is refused: facts of the target, all that is no "
        "refusal, or nothing",
        choices=("facts", "refusal", "none"),
    )
    reply: str = param(
        "I'm sorry, but I can't help with that.", help="what is said where it refuses by itself"
    )


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """The roles that must be played; texts are taken as they are."""
    return () if params.mode == "sample" else ("helper", "target")


def ladder(params: Params, means: Means) -> Ladder:
    """Names and the knowledge base; the knowledge base alone under official numbers."""
    items = Items(params, means)
    return Ladder([items] if params.official else [Names(means.secret), items])


def drafts(params: Params, means: Means) -> Ladder:
    """Facts, and not names: the model may say whom it says nothing about."""
    return of_facts(means.secret)


def settled(desk: Desk) -> None:
    """Set the threshold, and write down what it was set by and which targets are not verified."""
    items, params, known = items_of(desk), desk.params, desk.shared.get("retrieval", {})
    is_set = params.official or params.threshold is not None
    if desk.means.retain and not is_set and is_due(items.set_at, items.size):
        tops = [highest(items, one) for one in _unnamed(desk)]
        if tops:
            items.threshold = max(items.least, threshold(tops, params.alarms)[0])
            items.set_at, items.set_on = items.size, len(tops)
            known = {}
    report = {
        "threshold": items.threshold,
        "store": items.size,
        "set_at": items.set_at,
        "texts": items.set_on,
        "unverified": sorted(id for id, is_known in items.verified.items() if not is_known),
    }
    kept = {name: known[name] for name in ("set_at", "texts") if name in known}
    desk.shared = {**desk.shared, "retrieval": report | kept}


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Put the requirements of the targets that are asked about into the system role."""
    hits, items = desk.hits(exchange)[: desk.params.retrieved], items_of(desk)
    if not hits:
        return exchange
    rules = dict.fromkeys(str(items.knowledge[hit.target]["rule"]) for hit in hits)
    told = exchange.instructed("\n\n".join(rules))
    return told.asking(f"{told.question}\n\n{REMINDER}") if desk.params.official else told


def leave(exchange: Exchange, draft: str, desk: Desk) -> str | Reply:
    """Refuse an answer that tells what it should have kept."""
    params, items = desk.params, items_of(desk)
    if params.audit == "none":
        return draft
    asked = [hit.target for hit in desk.hits(exchange)]
    said = [hit.target for hit in desk.ladder.hits((draft,))]
    if reveals(draft, {*asked, *said}, desk):
        return Reply(params.reply, "fact in answer")
    told = [item for id in asked for item in items.knowledge[id]["items"]]
    if any(_retells(draft, item) for item in told):
        return Reply(params.reply, "aspect in answer")
    if asked and params.audit == "refusal" and not is_refused(draft, (), params.behaviour):
        return Reply(params.reply, "no refusal")
    return draft


def items_of(desk: Desk) -> Items:
    """The knowledge base of a guard at work."""
    return next(rung for rung in desk.ladder.rungs if isinstance(rung, Items))


def _unnamed(desk: Desk) -> list[tuple[str, ...]]:
    """Questions to be let through that name no target; about the others names decide."""
    names = [rung for rung in desk.ladder.rungs if isinstance(rung, Names)]
    told = to_let_through(desk.means.retain, (), desk.means.seed)
    return [one for one in told if not any(highest(rung, one) for rung in names)]


def _retells(draft: str, item: str) -> bool:
    """Whether half of the runs of words of an aspect stand in an answer."""
    own = _runs(words(item))
    return bool(own) and 2 * len(own & _runs(words(draft))) >= len(own)


def _runs(told: list[str]) -> set[tuple[Any, ...]]:
    return {tuple(told[at : at + RUN]) for at in range(len(told) - RUN + 1)}
