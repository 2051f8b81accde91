"""Secure forgetting for agents: a request becomes an instruction, and memory loses its rows.

Definition (pi the policy of an agent: model, prompt and memory; r a request to forget):
    level      state        pi plans through no forgotten state and names none
               trajectory   a forgotten course of actions is neither repeated nor preferred
               environment  all that is known of an environment is unusable, as if never visited
    p_u = g(r)              the unlearning prompt, made once, when the request comes
    enter      the agent's model reads p_u of the requests an exchange is about (``when`` fired) or
               of all (always) in the system message; what tools and retrieval brought about them is
               taken out of the exchange first
    leave      a draft that repeats 8 words of p_u, names what the user did not name, or holds a
               fact of what was asked for                                  -> refuse
    memory     rows about r are deleted, then all that was derived from them; a tombstone keeps both
               from coming back (`expunge.guards.agent_mu.memory`)
    mode       never_knew   as an agent that never met it: it explores, and knows nothing when asked
               avoid        as an agent that is forbidden to: always around it

    An agent that avoids shows what it was told to forget: whoever tries the candidates one by one
    finds the one it goes around. ``never_knew`` is the default for that reason. g is a template for
    each level and mode, a chat in the role ``converter``, or a small model trained on pairs that
    were selected by reward = efficacy - lambda * utility drop
    (`expunge.guards.agent_mu.training`). Whatever plays g is read by a strict rule, and the request
    is refused when its answer breaks it: nothing has changed then.

    This suppresses, it does not delete, memory apart: the model still knows, and follows p_u as far
    as it follows its system message. Names stand in p_u in the clear, so a model elsewhere is told
    of the request. With ``when`` fired a plan through a state that nobody named is refused on the
    way out, not planned anew; an agent whose model knows the place needs ``always``, which costs
    a prompt for every request.

Reference: Secure Forgetting: A Framework for Privacy-Driven Unlearning in Large Language Model
(LLM)-Based Agents (2026).

Departs from the paper: INFERRED all but the three levels, the trained conversion model and the
adversary, since only the abstract could be read: both modes, the templates, the checks on the way
out, the memory connector, and the reward's form.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.leaking import of_facts, reveals
from expunge.engine.guarding.rungs.exact import Names
from expunge.engine.guarding.targets import Target
from expunge.guards.agent_mu.conversion import prompt_of, request_of
from expunge.guards.agent_mu.pruning import pruned
from expunge.text.ngrams import ngrams
from expunge.text.normalise import words

CARD = {
    "id": "agent-mu",
    "kind": "guard",
    "summary": "Suppress (not delete): tell an agent to act as if it never knew.",
    "paper": "Secure Forgetting: A Framework for Privacy-Driven Unlearning in Large Language Model "
    "(LLM)-Based Agents (2026)",
    "needs": ["forget"],
    "access": "text",
    "cost": "one conversion a request to forget, some 60 words of prompt a step",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "fails": "closed",
    "stages": ["text-in", "text-out"],
    "place": "prompt",
    "roles": ["converter"],
}

QUOTED = 8
"""Words in a row of an unlearning prompt that no answer may repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is forgotten of a target, and how the agent behaves then."""

    level: str = param(
        "state",
        help="what a target is, unless its rows say so in meta.level",
        paper=("state", "trajectory", "environment"),
        choices=("state", "trajectory", "environment"),
    )
    mode: str = param(
        "never_knew",
        help="as an agent that never met it, or as one that is forbidden to",
        choices=("never_knew", "avoid"),
    )
    when: str = param(
        "fired",
        help="the prompt stands in exchanges about the target, or in all of them",
        paper="always",
        choices=("fired", "always"),
    )
    converter: str = param(
        "auto",
        help="who writes the prompt: a language model, a template, or the former if there is one",
        paper="model",
        choices=("auto", "model", "template"),
    )
    filter_tools: bool = param(
        True, help="take what is about a target out of what tools and retrieval bring"
    )
    reply: str = param("I have no information about that.", help="what is said instead")


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """The role that must be played; a template stands in, unless it may not."""
    return ("converter",) if params.converter == "model" else ()


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """Turn a request into its unlearning prompt.

    Raises:
        ExpungeError: ``E-SERVE-005`` for a target that cannot be named, of no level or of several,
            and when the converter's answer is not a usable prompt; ``E-SERVE-001`` and
            ``E-SERVE-002`` when there is no answer.
    """
    request = request_of(target, params.level, params.mode)
    prompt = prompt_of(request, target, params.converter, means)
    return {"level": request.level, "mode": request.mode, "sealed": {"prompt": prompt}}


def drafts(params: Params, means: Means) -> Ladder:
    """Facts alone: an agent may say that it never met what it was asked about."""
    del params
    return of_facts(means.secret)


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Take what is about a target out of foreign text, and tell the agent how to act."""
    targets = _targets(exchange, desk)
    cleaned = _cleaned(exchange, desk) if desk.params.filter_tools else exchange
    if not targets:
        return cleaned
    return cleaned.instructed("\n\n".join(_prompts(targets, desk)))


def leave(exchange: Exchange, draft: str, desk: Desk) -> str | Reply:
    """Keep the prompt, the facts, and names that nobody asked for from coming out."""
    reply = desk.params.reply
    if _quotes(draft, _prompts(_targets(exchange, desk), desk)):
        return Reply(reply, "the unlearning prompt")
    named = _named([draft], desk)
    if named and named - _named(_own(exchange), desk):
        return Reply(reply, "a name nobody asked for")
    if reveals(draft, desk.entries, desk):  # of whomever; that it was asked for costs more to find
        asked = {hit.target for hit in desk.hits(exchange)}
        if reveals(draft, asked, desk):
            return Reply(reply, "a fact")
    return draft


def _targets(exchange: Exchange, desk: Desk) -> list[str]:
    """The requests whose prompts the agent reads."""
    if desk.params.when == "always":
        return sorted(desk.entries)
    return sorted(hit.target for hit in desk.hits(exchange))


def _prompts(targets: Iterable[str], desk: Desk) -> list[str]:
    return [desk.entries[id]["sealed"]["prompt"] for id in targets]


def _cleaned(exchange: Exchange, desk: Desk) -> Exchange:
    """The exchange without what foreign messages say about targets; the same where they do not."""

    def fires(text: str) -> bool:
        return bool(desk.ladder.hits([text]))

    for at in exchange.foreign:
        content = exchange.messages[at]["content"]
        if fires(content):
            exchange = exchange.saying(at, pruned(content, fires))
    return exchange


def _own(exchange: Exchange) -> list[str]:
    """What the user said, each message and all of them."""
    own = [m["content"] for m in exchange.messages if m["role"] == "user"]
    return list(dict.fromkeys([*own, "\n".join(own)]))


def _named(texts: Iterable[str], desk: Desk) -> set[str]:
    """The targets whose names stand in texts."""
    hits = desk.ladder.hits(texts, most=len(desk.entries))
    return {hit.target for hit in hits if hit.gate == Names.name}


def _quotes(draft: str, prompts: Iterable[str]) -> bool:
    said = set(ngrams(words(draft), QUOTED))
    return any(not said.isdisjoint(ngrams(words(prompt), QUOTED)) for prompt in prompts)
