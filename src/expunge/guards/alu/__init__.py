"""Agentic unlearning: agents rewrite an answer until nothing of a protected subject is in it.

Definition (x what was asked, y0 the model's own answer, S at most 20 subjects of the store):
    vanilla    y0 = model(x)
    checker    audit(x, y0, S) -> a subject, or None;  None and no name of the store in x or y0
               -> y0 leaves as it is
    eraser     k = 5 rewrites of y0 without S; none where no sensible one exists -> refuse
    critic     a rating of 1..5 for each rewrite; 5 = no trace of S, direct or indirect
    composer   the j = 3 best rated; mean(ratings) < 4.0 -> refuse, else one text merged from them
    final      audit(x, merged, S), a name of the store or a fact of S in it -> refuse
    S          all subjects of the store up to 20; of a larger store those that the gate puts
               nearest to x and y0. Nothing near -> y0 leaves, nobody is asked
    typed      with a model for typed decisions (and not faithful): the checker is a choice over S
               and none, and fires where p(none) < `clear`; a rating is sum(level * p(level))

    Calls of language models, the first answer counted: 2 when nothing is found; 6 when something
    is (the critic is asked twice: for reasons, and for its ratings as a list of integers), and one
    more for the final audit. With typed decisions 1 and 3. Answers cannot be streamed: nothing
    leaves before the last audit. In a store of more than 20 subjects an indirect mention is found
    only as far as the shortlist holds the subject.

    This suppresses, it does not delete: the weights still hold all of it. It is as good as the
    models that play its parts: what they miss goes out. What stands in x, y0 and the rewrites
    is shown to them as data between marks, and what they answer is read by a strict rule; whatever
    breaks the rule refuses.

Reference: Agents Are All You Need for LLM Unlearning (2025).

Departs from the paper: the paper's code looks for "none" anywhere in the checker's answer, which
lets every subject with these letters through, and here only the one word counts; it asks the critic
about unchanged answers, and we do not; it merges without looking at the result, and we audit it;
keyed hashes of all names, and of the facts once a rewrite is due, are a second vote that no text
can talk to (``deny_list``); the store is shortlisted, since the paper's list grows with it in every
prompt; the critic answers at temperature 0 in a conversation of its own, since whoever wrote a
rewrite rates it too well. The wording of all messages is ours. INFERRED: the typed form (`clear`,
mean of levels).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.leaking import reveals
from expunge.engine.guarding.rungs.exact import Names
from expunge.engine.guarding.rungs.meaning import Meaning
from expunge.engine.guarding.rungs.wording import Spelling, Wording
from expunge.engine.guarding.targets import Target
from expunge.guards.alu.agents import Agents, Malformed, subject_of
from expunge.text.normalise import normalise

CARD = {
    "id": "alu",
    "kind": "guard",
    "summary": "Suppress (not delete): agents check, rewrite, rate and merge the answer.",
    "paper": "Agents Are All You Need for LLM Unlearning (2025)",
    "needs": ["forget"],
    "access": "text",
    "cost": "2 calls of a language model for a clean answer, 7 for another one",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "fails": "closed",
    "stages": ["text-out"],
    "place": "answer",
    "roles": ["checker", "eraser", "critic", "composer"],
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How many rewrites there are, and how good they must be."""

    rewrites: int = param(5, help="rewrites asked of the eraser (k)", paper=5, low=1, high=20)
    best: int = param(3, help="best rated rewrites that are merged (j)", paper=3, low=1, high=20)
    least: float = param(
        4.0, help="lowest mean rating of those that is merged", paper=4.0, low=1.0, high=5.0
    )
    shortlist: int = param(20, help="subjects shown to an agent at most", low=1, high=24)
    faithful: bool = param(
        False, help="generated answers even where a model for typed decisions is there", paper=True
    )
    clear: float = param(
        0.5, help="probability of none below which a typed check finds something", low=0.0, high=1.0
    )
    deny_list: bool = param(
        True, help="names and facts found by hash count, whatever the checker says", paper=False
    )
    final_audit: bool = param(True, help="look at the merged answer before it leaves", paper=False)
    new_tokens: int = param(1024, help="longest answer of an agent, in tokens", low=16, high=16384)
    reply: str = param("I'm sorry, but I can't help with that.", help="what is said instead")


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """The agents; checker and critic are typed decisions where somebody decides."""
    typed = decider is not None and not params.faithful
    return ("eraser", "composer") if typed else ("checker", "eraser", "critic", "composer")


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """Store how the subject is called; the agents must be told.

    Raises:
        ExpungeError: ``E-SERVE-005`` for a target without a name that an agent can look for,
            ``E-SERVE-002`` where nobody plays an agent: every answer would be refused.
    """
    for role in roles(params, means.decider):
        means.chat(role)
    names = [name for name in target.names if normalise(name)]
    if not names or any(normalise(name) == "none" for name in names):
        raise ExpungeError(
            "E-SERVE-005",
            "A target without a name, or one that is called 'none'.",
            "a name that an agent can look for in an answer.",
            "Name the subject in 'names' of its rows or in the target's aliases.",
        )
    return {"sealed": {"names": names}}


def ladder(params: Params, means: Means) -> Ladder:
    """Names, and what is near them: it shortlists, and of its rungs only names have a vote."""
    del params
    return Ladder(
        [Names(means.secret), Spelling(means.secret), Wording(means.secret), Meaning(means.secret)]
    )


def leave(exchange: Exchange, draft: str, desk: Desk) -> str | Reply:
    """Let an answer go, rewrite it, or refuse."""
    listed = _shortlist(exchange, draft, desk)
    if not listed:
        return draft
    names = [desk.entries[id]["sealed"]["names"] for id in listed]
    agents = Agents(exchange, desk, [subject_of(one) for one in names])
    try:
        if agents.found(draft) is None and not _named((*exchange.texts, draft), desk):
            return draft
        merged = _merged(agents, draft, desk)
        if isinstance(merged, str) and desk.params.final_audit:
            return _audited(agents, merged, listed, desk)
    except Malformed as reason:
        return Reply(desk.params.reply, str(reason))
    return merged


def _merged(agents: Agents, draft: str, desk: Desk) -> str | Reply:
    params: Params = desk.params
    rewrites = agents.rewrites(draft)
    if not rewrites:
        return Reply(params.reply, "no sensible rewrite")
    ratings = agents.ratings(rewrites)
    order = sorted(range(len(rewrites)), key=lambda at: -ratings[at])[: params.best]
    if sum(ratings[at] for at in order) / len(order) < params.least:
        return Reply(params.reply, "rewrites rated too low")
    return agents.merged([rewrites[at] for at in order])


def _audited(agents: Agents, merged: str, listed: Sequence[str], desk: Desk) -> str | Reply:
    """The merged answer, where the checker, the names and the facts find nothing in it."""
    is_told = desk.params.deny_list and reveals(merged, listed, desk)
    if is_told or _named((merged,), desk) or agents.found(merged) is not None:
        return Reply(desk.params.reply, "found again in the merged answer")
    return merged


def _shortlist(exchange: Exchange, draft: str, desk: Desk) -> list[str]:
    """The targets whose subjects the agents are told of."""
    params: Params = desk.params
    if len(desk.entries) <= params.shortlist:
        return list(desk.entries)
    near = desk.ladder.shortlist((*exchange.texts, draft), most=params.shortlist)
    return [hit.target for hit in near]


def _named(texts: Sequence[str], desk: Desk) -> bool:
    """The second vote: a name of the store stands in one of the texts."""
    hits = desk.ladder.hits(texts) if desk.params.deny_list else []
    return any(hit.gate == Names.name for hit in hits)
