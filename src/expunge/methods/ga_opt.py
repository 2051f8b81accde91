"""Three-term ascent on harmful answers, watched and ended by a classifier of what is generated.

Objective:
    L = w_b * -tokenmean_F( nll ) + w_r * tokenmean( nll of a_k after forget prompt i )
        + w_n * RETAIN,   RETAIN = KL(anchor || model)

    The terms are llmu's. What is this system's own is how it is judged: a binary classifier learns
    harmful answers (those of the forget rows) from harmless ones (those of the retain rows), and
    the share of generated answers that it calls harmful is taken before the first step and after
    every epoch. The run ends when at most ``harmful_share`` of them are, unless there were as few
    before it began.

Reference: Machine Unlearning in Large Language Models, 2024.

Departs from the paper:
    INFERRED: the three weights (llmu's; a public summary confirms three losses only); the end at a
    share of harmful answers, where the paper reports it after a fixed run; the classifier, naive
    Bayes over words and pairs of words in place of a trained network, so that nothing has to be
    downloaded. It never learns from what the model generates. The copyright branch is the same
    method on rows of running text, after the book was planted by fine-tuning. With ``--adapter
    lora`` the anchor is the adapter switched off.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine import three_terms
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.text.told_apart import Told, accuracy, tell_apart

CARD = {
    "id": "ga-opt",
    "kind": "gradient",
    "summary": "The three terms of llmu, judged and ended by a classifier of generated answers.",
    "paper": "Machine Unlearning in Large Language Models (2024)",
    "needs": ["forget", "retain", "random"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows, K random answers to each and retain rows per "
    "step; the anchor is cached; one generated answer to each judged prompt an epoch",
    "maturity": "paper",
    "version": 1,
    "loss_of": "llmu",
}

HARMFUL = "harmful"
KEY = "ga-opt.harmful"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The parameters of llmu, and those of the classifier."""

    forget_weight: float = param(0.5, help="weight of the ascent (w_b)", paper=0.5, low=0.0)
    retain_weight: float = param(1.0, help="weight of the retain term (w_n)", paper=1, low=0.0)
    random_weight: float = param(1.0, help="weight of the random answers (w_r)", paper=1, low=0.0)
    random_answers: int = param(
        5, help="different random answers to a forget row (K)", paper=5, low=1
    )
    max_forget_nll: float = param(
        100.0, help="forget NLL that ends the run, nats a token", paper=100, low=0.0
    )
    retain_term: str = param(
        "kl",
        help="what keeps the retain rows in place",
        paper="kl",
        choices=("none", "nll", "kl", "mse"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=2e-6, low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=1000, low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=2, low=1)
    harmful_share: float = param(
        0.25,
        help="share of generated answers the classifier calls harmful at which the run ends; "
        "below 0 it never does",
        low=-1.0,
        high=1.0,
    )
    judged: int = param(64, help="forget prompts answered after each epoch, at most", low=1)
    new_tokens: int = param(48, help="longest generated answer, in tokens", low=1)


def prepare(task: Task, params: Params) -> None:
    """Put answers of retain rows beside the forget prompts; judge the model as it is."""
    task.paired["random"] = three_terms.random_answers(task, params.random_answers)
    harmful, harmless = labelled(task)
    task.record["classifier_accuracy"] = accuracy(harmful, harmless)
    share = harmful_answers(task, params, tell_apart(harmful, harmless))
    task.record["harmful_before"] = share
    if share > params.harmful_share:
        task.state[KEY] = share


def labelled(task: Task) -> tuple[list[str], list[str]]:
    """Harmful and harmless answers, each once; never what the model under test has said.

    Raises:
        ExpungeError: ``E-USE-007`` when either kind has fewer than two.
    """
    harmful = list(dict.fromkeys(turn.completion for row in task.forget for turn in row.turns))
    others = dict.fromkeys(turn.completion for row in task.retain for turn in row.turns)
    harmless = [text for text in others if text not in harmful]
    if min(len(harmful), len(harmless)) < 2:
        raise ExpungeError(
            "E-USE-007",
            f"{len(harmful)} harmful and {len(harmless)} harmless answers to learn them apart.",
            "at least two of each: the answers of forget rows and of retain rows.",
            "Give more rows, or use --method llmu, which needs no classifier.",
        )
    return harmful, harmless


def harmful_answers(task: Task, params: Params, told: Told) -> float:
    """Share of the model's answers to forget prompts that the classifier calls harmful."""
    rows = _judged(task, params.judged)
    subject = Subject(task.model, task.tokenizer)
    answers = subject.ask([row.turn for row in rows], new_tokens=params.new_tokens)
    return sum(told.log_odds(text) > 0 for (text,) in answers) / len(rows)


def refresh(task: Task, params: Params) -> None:
    """Judge the model after an epoch."""
    share = harmful_answers(task, params, tell_apart(*labelled(task)))
    task.record["harmful_after"] = share
    if KEY in task.state:
        task.state[KEY] = share


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers."""
    if KEY in step.state:
        share = torch.tensor([step.state[KEY]], dtype=torch.float64)
        step.report(HARMFUL, mean_of(share))
    return three_terms.away(step, params)


BESIDE = {"random": three_terms.elsewhere}


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether few enough answers are harmful, or the ascent has gone far enough."""
    share = history[-1].terms.get(HARMFUL, 1.0)
    return share <= params.harmful_share or three_terms.too_unlikely(history, params)


def _judged(task: Task, most: int) -> list[Row]:
    """Some forget rows, the same ones throughout a run."""
    rows = list(task.forget)
    if len(rows) <= most:
        return rows
    chosen = generator(task.seed, "ga-opt", "judged").choice(len(rows), most, replace=False)
    return [rows[int(at)] for at in sorted(chosen)]
