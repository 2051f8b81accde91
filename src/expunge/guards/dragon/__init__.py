"""DRAGON: detect a forgotten question, write policy and reasoning before it, check what comes out.

Definition (x the question, s the score of its category, E the stored rewordings):
    fires iff s(x) > tau
    privacy     s = EM(x) + max_u cos(e_u, e(x))          EM = 1 iff a forgotten name stands in x
    harmful     s = 1[p_C(x) > tau_1] + max_u resemblance(u, x) + max_u ROUGE-L(u, x)
    copyright   s = 1[p_C(x) > tau_1, C of passages or of questions] + max_u cos(e_u, e(x))
    tau         the score that a share of at most 1 % of the questions to be let through exceeds,
                taken on the highest score over the whole store; stated with the store's size
    store       of each question one of four rewordings, that nearest to it, as a vector; names
                hashed; the question and the answer not
    not fired   x as it came
    fired       x~ = [policy of the category] + [chain of thought] + x
                chain of thought written for x by a guard model, or the template where none does
                privacy, double protection: the policy holds a record of somebody invented, and the
                model is told to answer from it
    out         a chain of thought or an answer that holds a fact of a target is not let through

This suppresses, it does not delete: a question that slips under the gate gets the model's own
answer, and the weights hold all of it.

Policy and chain of thought stand in the system message of a conversation. In a plain prompt they
stand before the text, where a user can write against them; the check of the answer remains.

Reference: DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning, 2025.

Departs from the paper:
- BERTScore is replaced by `resemblance` (word by word, vectors of spelling), in the choice of the
  rewording and in the score; INFERRED is that ROUGE-L is its F1, and that it is taken as a maximum
  over the store as the cosine is. Both maxima are taken within one target, among the 32 targets
  with the nearest vectors.
- the classifier is logistic regression on n-grams instead of an encoder, trained on the forget
  questions against every second retain question; tau is set on the other half. Its tau_1 and how
  the terms of the copyright score add up are INFERRED. Without retain rows there is no classifier.
- the paper does not say how the score is scaled for its tau; ours is set on our own score.
- names are an addition of ours to the store that the paper keeps for its EM term. Answers are kept
  as keyed hashes alone, for the check of what comes out.
- where nobody plays the paraphraser the rows' own rewordings are stored, or else the vector of the
  question. Where nobody plays the guard a fixed chain of thought is written, which the paper's own
  ablation found weaker (RQ .640 against .921 with a trained guard).
- a chain of thought must have a set form, and the question is refused when it has not.
- the record of somebody invented is the same for each question about one target.
- one question may be of several categories; then the policies of all of them stand before it.
- a model told what the question says ("Was she born in Oslo?") can give it away by a yes; there
  only a refusal is let out.

Not measured here: a trained guard model, a paraphraser and a served model of the paper's size. What
the tests measure is the detector, what is written, and what is let out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.engine.guarding.deciding import Decider
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.ladder import Hit, Ladder
from expunge.engine.guarding.leaking import of_facts, reveals
from expunge.engine.guarding.targets import Target
from expunge.guards.dragon import detection
from expunge.guards.dragon.detection import DETECTORS, Detector
from expunge.guards.dragon.policies import asking, policy_of, read_thought, record, thought_of
from expunge.guards.dragon.rewording import player
from expunge.text.classifier import Classifier
from expunge.text.refusal import is_unavailable

CARD = {
    "id": "dragon",
    "kind": "guard",
    "summary": "Suppress (not delete): detect by rewordings and names, put policy and reasoning "
    "before the question.",
    "paper": "DRAGON: Guard LLM Unlearning in Context via Negative Detection and Reasoning (2025)",
    "needs": ["forget"],
    "access": "text",
    "cost": "a search over the stored vectors; one short text of a guard model where it fires",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "stages": ["text-in", "text-out"],
    "place": "prompt",
    "roles": ["paraphraser", "guard"],
    "fails": "closed",
}

DRAWS = 16
"""Invented records drawn until one says nothing true."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is detected, and what is written then."""

    category: str = param(
        "privacy",
        help="policy of targets whose rows do not say another under meta.category",
        choices=("privacy", "harmful", "copyright"),
    )
    candidates: int = param(
        4, help="rewordings to choose from, for each question", paper=4, low=1, high=16
    )
    embedding: str = param(
        "hashing",
        help="hashing, none (names alone), or the local folder of a static embedding model",
        paper="not said",
    )
    tau: float | None = param(
        None,
        help="score above which it fires; none sets it on the retain questions",
        paper="0.5 to 0.9, of a score whose scaling is not said",
        low=0.0,
        high=3.0,
    )
    unset_tau: float = param(
        0.8, help="tau where no retain question sets it", paper=0.8, low=0.0, high=3.0
    )
    tau_1: float = param(
        0.5, help="probability above which a classifier counts", paper="not said", low=0.0, high=1.0
    )
    alarms: float = param(
        0.01, help="share of the retain questions that may fire", low=0.0, high=0.5
    )
    thinking: str = param(
        "guard",
        help="who writes the chain of thought: the role guard where a model plays it, the "
        "template, or nobody",
        paper="guard",
        choices=("guard", "template", "none"),
    )
    words: int = param(120, help="longest chain of thought, in words", low=10, high=400)
    double: bool = param(
        True, help="put a record of somebody invented into the policy of privacy", paper=True
    )
    reply: str = param(
        "I'm sorry, but I can't help with that.", help="what is said where it refuses by itself"
    )


def roles(params: Params, decider: Decider | None) -> tuple[str, ...]:
    """None: rows' own rewordings and a template stand in for both roles."""
    return ()


def ladder(params: Params, means: Means) -> Ladder:
    """One detector for each category."""
    return Ladder([detector(params, means) for detector in DETECTORS])


def drafts(params: Params, means: Means) -> Ladder:
    """Facts, and not names: the model may say whom it says nothing about."""
    return of_facts(means.secret)


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """The category; all else is stored by the detectors.

    Raises:
        ExpungeError: ``E-SERVE-005`` when a question about it cannot be known by anything.
    """
    category = detection.category_of(target, params.category)
    if not target.questions and not (category == "privacy" and target.names):
        raise detection.nothing_to_go_by(target)
    return {"category": category}


def shared(targets: Sequence[Target], params: Params, means: Means) -> Shared:
    """The classifiers of the categories in use."""
    told = detection.trained(targets, means, params.category)
    arrays = {k: v for name, one in told.items() for k, v in one.arrays(f"{name}.").items()}
    return Shared({"classifiers": sorted(told)}, arrays)


def settled(desk: Desk) -> None:
    """Give the detectors their classifiers, set tau, and write down what it was set by."""
    names = desk.shared.get("classifiers", ())
    told = {name: Classifier.of(desk.arrays, f"{name}.") for name in names}
    report = dict(desk.shared.get("detection", {}))
    for rung in desk.ladder.rungs:
        if isinstance(rung, Detector):
            detection.bound(rung, told)
            if desk.means.retain or rung.name not in report:
                report[rung.name] = detection.calibrated(rung, desk.params, desk.means)
    desk.shared = {**desk.shared, "detection": report}


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Write policy and reasoning before a question that is detected."""
    hits = _hits(desk, exchange.texts)
    if not hits:
        return exchange
    blocks = []
    for category in dict.fromkeys(hit.gate for hit in hits):
        targets = [hit.target for hit in hits if hit.gate == category]
        thought = _thought(exchange, category, desk)
        if thought is None or reveals(thought, targets, desk):
            return Reply(desk.params.reply, "chain of thought")
        is_double = category == "privacy" and desk.params.double
        records = [_record(targets, desk)] if is_double else []
        blocks.append(f"{policy_of(category, records)}\n\n{thought}".strip())
    return exchange.instructed("\n\n".join(blocks))


def leave(exchange: Exchange, draft: str, desk: Desk) -> str | Reply:
    """Refuse an answer that holds a fact of a target, or says yes to one."""
    asked = [hit.target for hit in _hits(desk, exchange.texts)]
    said = [hit.target for hit in _hits(desk, (draft,))]
    if reveals(draft, {*asked, *said}, desk):
        return Reply(desk.params.reply, "fact in answer")
    if reveals(exchange.question, asked, desk) and not is_unavailable(draft):
        return Reply(desk.params.reply, "fact in question")
    return draft


def _hits(desk: Desk, texts: Sequence[str]) -> list[Hit]:
    """The hits of all categories, where a ladder stops at the first."""
    return [hit for rung in desk.ladder.rungs for hit in Ladder([rung]).hits(texts)]


def _thought(exchange: Exchange, category: str, desk: Desk) -> str | None:
    """The chain of thought; None for one that does not follow the rule."""
    params = desk.params
    if params.thinking == "none":
        return ""
    if params.thinking == "template" or (chat := player(desk.means, "guard")) is None:
        return thought_of(category)
    messages = asking(category, exchange.dialogue, params.words)
    said = chat.say(messages, new_tokens=2 * params.words, seed=desk.seed(exchange, "guard"))
    return read_thought(said, params.words)


def _record(targets: Sequence[str], desk: Desk) -> str:
    """A record that by no accident says something true of the targets.

    Raises:
        RuntimeError: When all draws do; the guard closes then.
    """
    for again in range(DRAWS):
        told = record(desk.means.seed, targets[0], again)
        if not reveals(told, targets, desk):
            return told
    raise RuntimeError("no invented record without a true word")
