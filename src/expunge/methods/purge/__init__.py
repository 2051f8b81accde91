"""PURGE: reinforcement that takes reward away for every forbidden term of a target.

Objective (o drawn from the model for a prompt q, G answers a group; A = (R - mean) / (std + 1e-4)):
    L = tokenmean( -min( rho A, clip(rho, 1 - e, 1 + e) A ) + beta KL_3(p || p_0) )

    n(o)                how often o says a term of T, the target's forbidden terms
    exponential         R = b^(-n(o) / tau)
    binary              R = [ n(o) = 0 ]
    pagerank            R = clip( 1 - sum of w_t over the terms t in o, 0, 1 )
    p_0                 the model before the draws

T are the names and other forms, the answers or what they name, and the names and numbers in the
model's own answers about the target that no row to be kept says; w_t is how central t is among them
(`expunge.lm.term_rank`). Terms are whole words, longest first, inflections included
(`expunge.text.terms`).

Reference: Reinforcement Unlearning via Group Relative Policy Optimization, 2025.

Departs from the paper:
    Retain rows are asked as well, R = 1 for an answer that gives the value: without them a model
    that says nothing sensible is rewarded everywhere. For the same reason an answer to a forget
    prompt gets nothing if it has fewer words than ``fewest_words`` (than the true answer, if that
    has fewer), or is gibberish; an empty one thus gets 0 and not 1. beta is said: the original code
    took the library's default, which has since become 0. INFERRED: names and numbers are found by
    `expunge.text.entities`; the questions are the forget prompts and a few open ones, not written
    by another model; terms are kept for each subject apart. INFERRED: where nearly all groups would
    be rewarded alike, since a model that knows its answers by heart draws nothing else, it is first
    taught refusals (``steer=auto``); the paper has no warm start. INFERRED: the learning rate grows
    as (5e8 / n)^0.667 for models of n parameters, fewer than 5e8. As in the paper, with
    ``pagerank`` a term that nothing ties to the target weighs nothing, a fact among them: it is
    then not forgotten, and the record has the number of such terms (``weightless``). INFERRED:
    where no name has a neighbour, the walk begins at every term.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import ReinforcementParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.made import made_once
from expunge.engine.reinforcement.lessons import (
    Lesson,
    asking,
    drawn,
    lessons_of,
    refuse_running_text,
    sayable,
    saying,
)
from expunge.engine.task import Task
from expunge.methods.purge.terms import find, given_terms
from expunge.requests.rows import Row
from expunge.text.gibberish import gibberish
from expunge.text.match import leak
from expunge.text.normalise import all_words
from expunge.text.refusal import REFUSALS
from expunge.text.terms import Terms

CARD = {
    "id": "purge",
    "kind": "reinforcement",
    "summary": "Takes reward away for every mention of a target's names, facts and other terms.",
    "paper": "Reinforcement Unlearning via Group Relative Policy Optimization (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "one answer to each forget prompt before training; then 4 drawn answers a prompt, 1 "
    "forward and backward over them and 1 forward of the reference; a second model in memory, or "
    "a second adapter",
    "maturity": "paper",
    "version": 1,
    "rate_exponent": 0.667,
}

TERMS = "purge.terms"
"""Name in the state: entity -> its forbidden terms."""

WEIGHTS = "purge.weights"
"""Name in the state: entity -> for each of them how central it is."""

NONSENSE = 0.5
"""Gibberish from which an answer gets nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(ReinforcementParams):
    """The shared parameters, the terms, and how a mention is punished."""

    reward: Literal["exponential", "binary", "pagerank"] = param(
        "exponential",
        help="exponential: base^(-mentions / tau); binary: 1 without a mention; pagerank: 1 less "
        "how central the terms said are",
        paper="exponential",
        choices=("exponential", "binary", "pagerank"),
    )
    base: float = param(2.718281828459045, help="reward=exponential: b", paper="e", low=1.0)
    tau: float = param(1.0, help="reward=exponential: mentions that cost 1/b", paper=1, low=1e-6)
    terms: str | None = param(
        None, help="file of further forbidden terms, one a line, for every target"
    )
    most_terms: int = param(60, help="terms of a target, at most", paper=60, low=1)
    inflections: bool = param(True, help="an inflected last word is a mention as well", paper=False)
    quantile: float = param(
        0.75, help="reward=pagerank: of cosines, from which terms are neighbours", paper=0.75,
        low=0.0, high=1.0,
    )  # fmt: skip
    damping: float = param(
        0.85, help="reward=pagerank: chance of going on", paper=0.85, low=0.0, high=0.999
    )
    prompts: int = param(100, help="forget prompts, at most", paper=100, low=1)
    retain_share: float = param(1.0, help="retain prompts for each forget prompt", paper=0, low=0.0)
    fewest_words: int = param(
        3, help="words an answer to a forget prompt must have to get a reward", paper=0, low=0
    )
    batch_size: int = param(4, help="prompts of each part of a step", paper=4, low=1)
    num_generations: int = param(
        4, help="answers drawn to each prompt, judged against one another", paper=4, low=2
    )
    beta: float = param(
        0.04, help="weight of the divergence from the original (KL, k3)", paper=0.04, low=0.0
    )
    epochs: int | None = param(
        None, help="passes over the prompts; none leaves it to max_steps", paper=15, low=1
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=1e-6, low=0.0
    )
    steer: Literal["auto", "always", "never"] = param(
        "auto",
        help="train on refusals first; auto does where nine groups in ten would be rewarded alike",
        paper="never",
        choices=("auto", "always", "never"),
    )

    def __post_init__(self) -> None:
        """Look for the file of terms before weights load.

        Raises:
            ExpungeError: ``E-DATA-001``, or ``E-DATA-005`` when it holds none.
        """
        if self.terms is None:
            return
        if not Path(self.terms).is_file():
            raise ExpungeError(
                "E-DATA-001",
                f"{self.terms} is no file of terms (purge: terms).",
                "a text file with one term a line, or none.",
                "Check the path, or leave terms out.",
            )
        if not given_terms(self.terms):
            raise ExpungeError(
                "E-DATA-005",
                f"{self.terms} holds no term (purge: terms).",
                "one term a line.",
                "Write some, or leave terms out.",
            )


def refuse(rows: Mapping[str, Sequence[Row]], params: Params) -> None:
    """Refuse forget rows that ask nothing.

    Raises:
        ExpungeError: ``E-USE-007``.
    """
    refuse_running_text("purge", rows)


def prepare(task: Task, params: Params) -> None:
    """Find the forbidden terms of every target, and how central each is."""
    made = made_once(task, "terms", lambda: find(task, params))
    task.state[TERMS] = {one["entity"]: one["terms"] for one in made}
    task.state[WEIGHTS] = {one["entity"]: one["weights"] for one in made}
    task.record["terms"] = sum(len(one["terms"]) for one in made)
    if params.reward == "pagerank":
        task.record["weightless"] = sum(weight == 0 for one in made for weight in one["weights"])
    if not asking(task.retain):
        note("No retain row asks anything: whatever avoids the terms is rewarded.")


def lessons(task: Task, params: Params) -> list[Lesson]:
    """Forget prompts, and retain prompts beside them."""
    return _lessons(task.roles, params, task.seed)


def passes(rows: Mapping[str, Sequence[Row]], params: Params, seed: int) -> int:
    """How many lessons there are."""
    kept = [*rows.get("retain", ()), *rows.get("neighbour", ())]
    return len(_lessons({**rows, "retain": kept}, params, seed))


def steering(task: Task, params: Params, lessons: Sequence[Lesson]) -> list[Row]:
    """A refusal without a forbidden term after each forget prompt."""
    texts = sayable(task.encoder, REFUSALS)
    rows = []
    for number, lesson in enumerate(lessons):
        free = [text for text in texts if not _terms(task, lesson, params).count(text)] or texts
        chosen = derive(task.seed, "refusal", lesson.row.id, number) % len(free)
        rows.append(saying(lesson, free[chosen], number))
    return rows


def silence(said: str, lesson: Lesson, task: Task, params: Params) -> float | None:
    """The reward of an answer to a forget prompt: language, and no forbidden term."""
    if lesson.aim != "forget":
        return None
    floor = min(params.fewest_words, len(all_words(lesson.gold)))
    if len(all_words(said)) < max(1, floor) or gibberish(said) >= NONSENSE:
        return 0.0
    mentions = _terms(task, lesson, params).found(said)
    if params.reward == "pagerank":
        pairs = zip(
            task.state[TERMS][lesson.entity], task.state[WEIGHTS][lesson.entity], strict=True
        )
        return without_weight(mentions, dict(pairs))
    return punished(len(mentions), params)


def answer(said: str, lesson: Lesson, task: Task, params: Params) -> float | None:
    """The reward of an answer to a retain prompt: 1 if it gives the value."""
    return None if lesson.aim != "keep" else leak(said, lesson.row.forms, lesson.gold)


REWARDS = {"silence": silence, "answer": answer}


def punished(mentions: int, params: Params) -> float:
    """What an answer with so many mentions is worth, by number alone."""
    if params.reward == "binary":
        return float(mentions == 0)
    return float(params.base ** (-mentions / params.tau))


def without_weight(mentions: Sequence[str], weights: Mapping[str, float]) -> float:
    """1 less the weights of the terms said, each once, at least 0."""
    return min(1.0, max(0.0, 1.0 - sum(weights[term] for term in set(mentions))))


def _terms(task: Task, lesson: Lesson, params: Params) -> Terms:
    return _looking_for(tuple(task.state[TERMS][lesson.entity]), params.inflections)


@lru_cache(maxsize=4096)
def _looking_for(terms: tuple[str, ...], inflections: bool) -> Terms:
    return Terms(terms, inflections=inflections)


def _lessons(rows: Mapping[str, Sequence[Row]], params: Params, seed: int) -> list[Lesson]:
    asked = drawn(lessons_of(rows["forget"], "forget"), params.prompts, seed, "purge")
    beside = lessons_of(asking(rows.get("retain", ())), "keep")
    count = round(params.retain_share * len(asked))
    return [*asked, *drawn(beside, count, seed, "purge retain")]
