"""MEOW: forget by learning inverted facts, chosen by how much of them the model already says.

Objective:
    L = gamma * tokenmean( nll of inverted answer a'_i,k after forget prompt i ) + alpha * RETAIN
        + w * KL(anchor || model) on the inverted rows

    Each forget row gets some wrong answers, a score MEMO for each (how much of its rest the model
    goes on with, wherever it is broken off), and trains on ``top_k`` of them: those with the
    largest MEMO, the smallest, or any. They fill ``alternates`` slots by turns; an epoch passes
    every slot once. There is no ascent, and no retain row is needed: what is learnt instead is
    close to what was known.

    choice=paper takes the largest where the scores of a row lie within ``consistent`` of one
    another, that is, where the model tends to none of its answers more; else the smallest.

    The paper's variants: forget_weight=0.9 retain_weight=0.1 retain_term=nll, and
    retain_term=kl kl_weight=1.

Reference: MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts, 2024.

Departs from the paper:
    Wrong answers are the row's own ``wrong``, else the model's, at temperature 1, or those of other
    rows (``source``); the paper has a larger model write them at temperature 0.9. INFERRED: the
    rule of choice=paper, and that the KL is over the positions of ``kl_scope``; it compares the
    answers as well, so it works against what is learnt. What was made and what was chosen stands in
    ``made/inverted.jsonl`` of the change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy
from torch.nn.functional import kl_div, log_softmax

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine.alternates import Origin, alternates_of, said_instead
from expunge.engine.datasets import reply_with
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.lm.breaks import memo
from expunge.lm.subject import Subject
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.text.match import contains
from expunge.text.normalise import normalise

CARD = {
    "id": "meow",
    "kind": "gradient",
    "summary": "Learns inverted facts, those closest to what the model says anyway.",
    "paper": "MEOW: MEMOry Supervised LLM Unlearning Via Inverted Facts (2024)",
    "needs": ["forget", "alternate"],
    "access": "weights",
    "cost": "1 forward and backward over inverted rows per step; before training the model writes "
    "wrong answers to every forget row, and goes on with each from every fifth character",
    "passes": "pairs",
    "maturity": "paper",
    "version": 1,
}

Candidate = dict[str, Any]
"""``reply``, ``origin`` (``given``, ``model`` or ``permute``) and ``memo`` (None: not asked)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, where inverted facts come from, and which are taken."""

    retain_term: str = param(
        "none",
        help="what keeps the rest in place",
        paper=["none", "nll", "kl"],
        choices=("none", "nll", "kl", "mse"),
    )
    epochs: int | None = param(
        None, help="passes over all slots; none leaves it to max_steps", paper=5, low=1
    )
    batch_size: int = param(16, help="slots of each part of a step", paper=4, low=1)
    alternates: int = param(
        8, help="slots of each forget row, filled by its chosen answers in turn", paper=8, low=1
    )
    candidates: int = param(4, help="wrong answers made for each forget row", paper=4, low=1)
    top_k: int = param(3, help="how many of them are trained on", paper=3, low=1)
    choice: Literal["largest", "smallest", "random", "paper"] = param(
        "largest",
        help="which of them, by MEMO",
        paper=["largest", "paper"],
        choices=("largest", "smallest", "random", "paper"),
    )
    consistent: float = param(
        0.1, help="choice=paper: widest spread of MEMO that counts as none", low=0.0, high=1.0
    )
    source: Literal["auto", "given", "model", "permute"] = param(
        "auto",
        help="who gives wrong answers: the rows (``wrong``), the model, other rows, or the first "
        "of these that has enough",
        paper="a larger model",
        choices=("auto", "given", "model", "permute"),
    )
    mode: Literal["suffix", "prefix"] = param(
        "suffix",
        help="what MEMO breaks off: the answer or the question",
        paper="suffix",
        choices=("suffix", "prefix"),
    )
    break_every: int = param(5, help="characters between two breaks", paper=5, low=1)
    memo_tokens: int = param(200, help="tokens the model goes on for", paper=200, low=1)
    kl_weight: float = param(
        0.0, help="weight of the KL on the inverted rows (w); goes with retain_term=kl", low=0.0
    )

    def __post_init__(self) -> None:
        """Refuse a weight for what nothing is compared with.

        Raises:
            ExpungeError: ``E-USE-006``.
        """
        if self.kl_weight and self.retain_term != "kl":
            raise ExpungeError(
                "E-USE-006",
                f"meow: kl_weight={self.kl_weight:g} with retain_term={self.retain_term}.",
                "retain_term=kl, for which the original's distributions are kept.",
                "Add --set retain_term=kl (and retain_weight=0 for no KL on retain rows).",
            )


sample = "pairs"


def prepare(task: Task, params: Params) -> None:
    """Put the inverted answers beside the forget rows; a resumed run takes those it had."""

    def inverted() -> list[dict[str, Any]]:
        return inverted_of(task, params)

    made = made_once(task, "inverted", inverted)
    replies = {one["id"]: [one["candidates"][at]["reply"] for at in one["chosen"]] for one in made}
    task.record["inverted_answers"] = sum(map(len, replies.values()))

    def beside(row: Row, wording: int, slot: int) -> Turn:
        return said_instead(row, wording, replies[row.id][slot % len(replies[row.id])])

    task.paired["alternate"] = Paired(beside, count=params.alternates)


def forget(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the inverted answers."""
    return step.alternate.nll


def kept(step: Step, params: Params) -> Mean | None:
    """Mean over positions of the inverted rows of ``KL(anchor || model)``, nats, weighted."""
    if not params.kl_weight:
        return None
    view = step.alternate.over(params.kl_scope)
    model, anchor = log_softmax(view.logits, -1), log_softmax(view.anchor.logits, -1)
    return params.kl_weight * mean_of(
        kl_div(model, anchor, reduction="none", log_target=True).sum(-1)
    )


BESIDE = {"inverted_kl": kept}


def inverted_of(task: Task, params: Params) -> list[dict[str, Any]]:
    """For every forget row ``id``, ``candidates`` and ``chosen``, the places of those taken."""
    found = wrong_answers(task, params)
    if params.choice != "random":
        _score(task, params, found)
    return [
        {
            "id": id,
            "candidates": own,
            "chosen": chosen(own, params, generator(task.seed, "meow", id)),
        }
        for id, own in found.items()
    ]


def chosen(
    candidates: Sequence[Candidate], params: Params, draw: numpy.random.Generator
) -> list[int]:
    """Places of the ``top_k`` candidates that are trained on, the best one first."""
    if params.choice == "random":
        return [int(place) for place in draw.permutation(len(candidates))[: params.top_k]]
    scores = [one["memo"] or 0.0 for one in candidates]
    is_even = params.choice == "paper" and max(scores) - min(scores) <= params.consistent
    sign = -1 if params.choice == "largest" or is_even else 1
    return sorted(range(len(scores)), key=lambda at: (sign * scores[at], at))[: params.top_k]


def wrong_answers(task: Task, params: Params) -> dict[str, list[Candidate]]:
    """Row id -> its candidates, all different and none of them the truth.

    Raises:
        ExpungeError: ``E-USE-007`` for source=given where rows have none, ``E-RUN-007`` where
            nobody has any.
    """
    uses_given = params.source in ("auto", "given")
    given = {row.id: _given(row) if uses_given else [] for row in task.forget}
    bare = [row for row in task.forget if not given[row.id]]
    if bare and params.source == "given":
        raise ExpungeError(
            "E-USE-007",
            f"{len(bare)} of {len(task.forget)} forget rows have no wrong answer (the first is "
            f"{bare[0].id!r}).",
            "'wrong' in every forget row: completions with the fact swapped.",
            "Give them, or use --set source=auto.",
        )
    made: dict[str, list[dict[str, str]]] = {}
    if bare:
        others = [row for row in task.forget if given[row.id]]
        roles = {**task.roles, "forget": bare, "retain": [*others, *task.retain]}
        origin: Origin = "auto" if params.source == "given" else params.source
        asked = alternates_of(replace(task, roles=roles), params.candidates, origin)
        made = {one["id"]: one["alternates"] for one in asked}
    found: dict[str, list[Candidate]] = {}
    for row in task.forget:
        different: dict[str, Candidate] = {}
        for one in (*given[row.id], *made.get(row.id, ())):
            different.setdefault(normalise(one["reply"]), {**one, "memo": None})
        found[row.id] = [*different.values()][: params.candidates]
    return found


def _given(row: Row) -> list[dict[str, str]]:
    """The row's own wrong answers, without those that tell the truth."""
    asked, truths = " ".join(prompts_of(row)), {normalise(turn.completion) for turn in row.turns}
    telling = [form for form in row.forms if not contains(asked, [form])]
    return [
        {"reply": text.strip(), "origin": "given"}
        for text in row.wrong
        if normalise(text) not in {"", *truths} and not contains(text, telling)
    ]


def _score(task: Task, params: Params, found: dict[str, list[Candidate]]) -> None:
    """Put MEMO into the candidates of all rows, all asked for at once."""
    pairs = [
        (reply_with(row.turn, one["reply"]), one) for row in task.forget for one in found[row.id]
    ]
    scores = memo(
        Subject(task.model, task.tokenizer),
        [turn for turn, _ in pairs],
        mode=params.mode,
        step=params.break_every,
        new_tokens=params.memo_tokens,
    )
    for (_, one), score in zip(pairs, scores, strict=True):
        one["memo"] = score
