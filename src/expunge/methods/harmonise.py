"""Harmonise: four aims as one, imitating what the model itself says when it is told what to do.

Objective:
    L = gamma * ( PULL_forget + w_attack PULL_attack + mu PUSH ) + alpha * ( PULL_general
        + w_neighbour PULL_neighbour )
    PULL = mean_rows mean_positions (1 / K) sum_{k in top} huber( z_k - zT_k ),  top = TopK(zT)
    PUSH = mean_rows mean_positions -log( 1 - sum_{k in U} p_k ),   U = TopK(z) without TopK(zT)
    attack: of 8 ways to begin the answer the one whose PULL + mu PUSH is largest now
    pull=kl-topk:  PULL = mean_rows mean_positions KL( softmax_top(zT) || softmax_top(z) )

    z are the model's logits, before softmax; zT those of the teacher, which is the anchor behind an
    instruction: to decline the topic (forget, attack) or to answer as always (neighbour, general).
    Both are given the teacher's own greedy answer, of which the first m tokens count; the model
    sees no instruction, neither in training nor later. Under attack the model finds its answer
    begun and is to go on as the teacher, who does not, begins. huber is a square up to 1 and then a
    line.
    PUSH runs over forget and attack rows: it takes away what the model finds likely and the
    teacher does not. No answer of any row is trained on.

Reference: Harmonizing Multi-Objective LLM Unlearning via Unified Domain Representation and
Bidirectional Logit Distillation, 2026.

Departs from the paper:
    INFERRED: all of the assembly. Of the paper only its abstract and digests were read; the pull is
    that of a sibling by the same group. The instructions, the weights, that every row counts once
    in a mean, the openings (how the row's own answer begins up to its value, then consent), and
    that the teacher never sees these (it yields to them itself, and would teach to) are ours. A
    language model there rewrites every text into one form of question and answer; here rows keep
    their prompts, unless ``template`` gives one form for all. What is left beside U is summed by
    itself, so no guard is needed where U takes nearly everything. ``retain_term`` may be a shared
    one instead, and neighbours are then left out.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, log_softmax

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.digressions import subjects_of
from expunge.engine.instructed import (
    ANSWER,
    DECLINE,
    QUESTION,
    TOPIC,
    begun_of,
    lessons_of,
    of_rows,
    opened,
    put_beside,
    row_means,
    tell_leaks,
)
from expunge.engine.keyed import noted
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "harmonise",
    "kind": "gradient",
    "summary": "Imitates the raw logits of the model itself behind an instruction, and unlearns "
    "what only the uninstructed model would say.",
    "paper": "Harmonizing Multi-Objective LLM Unlearning via Unified Domain Representation and "
    "Bidirectional Logit Distillation (2026)",
    "needs": [
        "forget",
        "retain",
        "neighbour",
        "reply",
        "reply_told",
        "attacked",
        "general",
        "general_told",
        "near",
        "near_told",
        "anchor-logits",
    ],
    "access": "weights",
    "cost": "1 forward and backward over forget, attack, neighbour and retain rows per step, and 1 "
    "forward over 8 openings of every forget row; the teacher is cached; before training the model "
    "writes m tokens for every row",
    "maturity": "paper",
    "version": 1,
}

VIEWS = {"forget": "reply", "retain": "general", "neighbour": "near"}
"""Role -> what the model is given beside its rows."""

OPENED = "harmonise.opened"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the teacher, and how far it is imitated."""

    retain_term: str = param(
        "pull",
        help="what keeps the rest; pull imitates the teacher on retain and neighbour rows",
        paper="pull",
        choices=("pull", "none", "nll", "kl", "mse"),
    )
    attack_weight: float = param(
        1.0, help="weight of forget rows whose answer is begun for the model", low=0.0
    )
    neighbour_weight: float = param(
        1.0, help="weight of neighbour rows, beside retain rows at 1", low=0.0
    )
    push_weight: float = param(
        0.5, help="weight of what takes the model's own likely tokens away (mu)", low=0.0
    )
    pull: Literal["huber", "kl-topk"] = param(
        "huber",
        help="huber compares raw logits, kl-topk distributions over the same tokens",
        paper="huber",
        choices=("huber", "kl-topk"),
    )
    top_k: int = param(50, help="tokens that are compared (K)", paper=[20, 50, 100], low=1)
    tokens: int = param(
        8,
        help="first tokens of the teacher's answer that count (m)",
        paper=[1, 16],
        low=1,
        high=256,
    )
    openings: int = param(
        8, help="ways to begin an answer, of which the worst is trained on", paper=8, low=1, high=64
    )
    context: str | None = param(
        None,
        help="what the teacher is told before forget questions, {topic} being what they are about; "
        "none takes ours, an empty text tells it nothing",
    )
    keep_context: str | None = param(
        None, help="what the teacher is told before all other questions; none takes ours"
    )
    concept: str | None = param(
        None, help="the topic in a few words; none takes the names of each row"
    )
    template: str = param(
        "{question}", help="the form in which every question is asked; {question} alone leaves it"
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=5, low=1
    )

    def __post_init__(self) -> None:
        """Refuse a form without a place for the question.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if QUESTION not in self.template:
            raise ExpungeError(
                "E-USE-003",
                f"harmonise: template = {self.template!r}, which asks nothing.",
                f"a text with {QUESTION} in it.",
                f"Write for instance --set template='Question: {QUESTION} Answer:'.",
            )


def prepare(task: Task, params: Params) -> None:
    """Let the teacher write, and put its answers beside the rows, plainly and instructed."""
    topics = subjects_of(task, params.concept)
    decline = DECLINE if params.context is None else params.context
    answer = ANSWER if params.keep_context is None else params.keep_context
    told = {"forget": {id: decline.replace(TOPIC, topic) for id, topic in topics.items()}}
    for role in ("retain", "neighbour"):
        told[role] = dict.fromkeys((row.id for row in task.roles.get(role, ())), answer)
    lessons = lessons_of(task, told, template=params.template, new_tokens=params.tokens)
    for role, view in VIEWS.items():
        put_beside(task, role, view, lessons[role])
    tell_leaks(task, lessons["forget"])
    if not params.attack_weight:
        return
    begun = begun_of(task, lessons["forget"], params.openings)
    task.state[OPENED] = opened(task, lessons["forget"], begun)

    def attack(row: Row, wording: int, opening: int) -> Turn:
        return begun[row.id, wording][opening]

    task.paired["attacked"] = Paired(attack, count=params.openings, take=params.openings)


def forget(step: Step, params: Params) -> Mean:
    """Imitation on forget rows, answers begun or not, and what the model would say otherwise."""
    told = taught(step.reply_told, params)
    pulls = [(1.0, pull(step.reply, told, step, params))]
    pushes = [push(step.reply, told, step, params)]
    if "attacked" in step:
        begun = hardest(step.attacked, told, step, params)
        pulls.append((params.attack_weight, pull(begun, told, step, params)))
        pushes.append(push(begun, told, step, params))
        step.report("attack", mean_of(pulls[1][1]))
    step.report("push", mean_of(torch.cat(pushes)))
    return _added(*pulls, *((params.push_weight / len(pushes), one) for one in pushes))


def retain(step: Step, params: Params) -> Mean | None:
    """Imitation on retain and neighbour rows, or a shared term."""
    if params.retain_term != "pull":
        return shared.by_term(step, params)
    kept = [(1.0, step.general, step.general_told)]
    if "near" in step:
        kept.append((params.neighbour_weight, step.near, step.near_told))
    return _added(*((w, pull(v, taught(told, params), step, params)) for w, v, told in kept))


class Taught(NamedTuple):
    """What the teacher says of the first tokens of its answers.

    Attributes:
        logits: [M, V].
        labels: [M], the tokens themselves.
        lengths: [B], how many there are of each row.
    """

    logits: Tensor
    labels: Tensor
    lengths: Tensor

    def repeated(self, times: int) -> "Taught":
        """Each row so many times, one after the other."""
        rows = torch.arange(len(self.lengths)).repeat_interleave(times)
        logits, labels = (of_rows(one, self.lengths, rows) for one in (self.logits, self.labels))
        return Taught(logits, labels, self.lengths.repeat_interleave(times))


def taught(view: View, params: Params) -> Taught:
    """What the anchor says of a view behind an instruction."""
    at = view.position < params.tokens
    return Taught(view.anchor.logits[at], view.labels[at], view.lengths.clamp(max=params.tokens))


def pull(view: View, told: Taught, step: Step, params: Params) -> Tensor:
    """[B]: how far the model is from the teacher on the teacher's likeliest tokens."""
    logits, rows = _said(view, told, step, params)
    theirs, tokens = told.logits.topk(min(params.top_k, logits.shape[-1]))
    own = logits.gather(-1, tokens)
    if params.pull == "huber":
        values = huber_loss(own, theirs, reduction="none").mean(-1)
    else:
        logq, logp = log_softmax(theirs, -1), log_softmax(own, -1)
        values = (logq.exp() * (logq - logp)).sum(-1)
    return row_means(values, rows, len(view.row))


def push(view: View, told: Taught, step: Step, params: Params) -> Tensor:
    """[B]: what is left, as -log, beside the model's likely tokens that are not the teacher's."""
    logits, rows = _said(view, told, step, params)
    most = min(params.top_k, logits.shape[-1])
    unwanted = torch.zeros_like(logits, dtype=torch.bool)
    unwanted = unwanted.scatter(-1, logits.topk(most).indices, True)
    unwanted = unwanted.scatter(-1, told.logits.topk(most).indices, False)
    left = logits.masked_fill(unwanted, -torch.inf).logsumexp(-1)
    return row_means(logits.logsumexp(-1) - left, rows, len(view.row))


def hardest(view: View, told: Taught, step: Step, params: Params) -> View:
    """Of each forget row the opening with the largest loss as the model is now, without gradient.

    Args:
        view: ``openings`` rows for each row of the teacher's.
        told: What the teacher says, which sees no opening.
        step: Of the view.
        params: Of the method.
    """
    worst = torch.arange(0, len(view.row), params.openings, device=view.row.device)
    if view.is_counted:
        return view.only(worst)
    with torch.no_grad():
        tried, each = view.changed(lambda _: nullcontext()), told.repeated(params.openings)
        losses = params.attack_weight * pull(tried, each, step, params)
        losses += params.push_weight / 2 * push(tried, each, step, params)
    worst += torch.stack([part.argmax() for part in torch.split(losses, params.openings)])
    return view.only(worst)


def _said(view: View, told: Taught, step: Step, params: Params) -> tuple[Tensor, Tensor]:
    """[M, V] and [M]: logits of the tokens the teacher speaks of, and the row of each.

    Raises:
        ExpungeError: ``E-MODEL-011`` when these are other tokens.
    """
    given = noted(view, step.state.get(OPENED, {}), 0)
    place = view.position - torch.tensor(given, device=view.labels.device)[view.inputs.batch_row]
    at = (place >= 0) & (place < params.tokens)
    if not torch.equal(view.labels[at], told.labels):
        raise ExpungeError(
            "E-MODEL-011",
            f"{len(told.labels)} tokens of the teacher's answers become {int(at.sum())} tokens, or "
            "others, without its instruction.",
            "the same answer tokens, whatever stands in front of the question.",
            "Use a model whose chat template leaves answers alone, or another method.",
        )
    return view.logits[at], view.inputs.batch_row[at]


def _added(*parts: tuple[float, Tensor]) -> Mean:
    """The sum of the means of several values, which all have one for each row of a step."""
    rows = len(parts[0][1])
    total = torch.stack([weight * values.mean() for weight, values in parts]).sum()
    return Mean(rows * total, total.new_tensor(float(rows)))
