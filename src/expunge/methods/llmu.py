"""Three-term ascent: away from the answers, towards random ones, and as before on the rest.

Objective:
    L = w_b * -tokenmean_F( nll ) + w_r * tokenmean( nll of a_k after forget prompt i )
        + w_n * RETAIN,   RETAIN = KL(anchor || model)

    a_1 ... a_K are replies of K different retain rows, drawn anew for every forget row and epoch.
    The cross-entropy to the anchor that the paper writes for RETAIN has the gradient of this KL:
    they differ by the anchor's own entropy.

Reference: Large Language Model Unlearning, 2023.

Departs from the paper:
    Means run over tokens. The run ends when the forget NLL exceeds ``max_forget_nll``, as intended
    there; the first code compares the negated loss with the bound, so that rule never fires. Of the
    random answers every token is trained on and no token of the prompt is, where the first code
    starts at the third token of the prompt and leaves out the first of the answer. Padding is
    told by lengths, not by an id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import GradientParams, param
from expunge.engine.datasets import reply_with
from expunge.engine.mean import Mean
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "llmu",
    "kind": "gradient",
    "summary": "Ascent on the answers, descent on random ones, and the anchor on retain rows.",
    "paper": "Large Language Model Unlearning (2023)",
    "needs": ["forget", "retain", "random"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows, K random answers to each and retain rows per "
    "step; the anchor is cached",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the random answers, and the bound that ends the ascent."""

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


def prepare(task: Task, params: Params) -> None:
    """Put answers of retain rows beside the forget prompts."""
    replies = answers_that_fit(task)
    if not replies:
        raise ExpungeError(
            "E-USE-007",
            "No retain row has an answer that fits behind the forget prompts.",
            "retain rows with answers of their own.",
            "Give retain rows with shorter answers.",
        )

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        return reply_with(row.turns[wording], replies[candidate])

    take = min(params.random_answers, len(replies))
    task.paired["random"] = Paired(beside, count=len(replies), take=take)


def answers_that_fit(task: Task) -> list[str]:
    """Different replies of retain rows, without those too long for the longest forget prompt."""
    encoder, tokenize = task.encoder, task.encoder.tokenizer.tokenize
    turns = [turn for row in task.forget for turn in row.turns]
    room = encoder.max_length - max(len(encoder.prompt(t.prompt, t.running)) for t in turns)
    replies = dict.fromkeys(row.reply.strip() for row in task.retain)
    # Four tokens are left for what a template or the tokenizer puts around an answer.
    return [reply for reply in replies if reply and len(tokenize(reply)) + 4 < room]


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the forget answers."""
    return -step.forget.nll


def elsewhere(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of random answers to the forget prompts, weighted."""
    return params.random_weight * step.random.nll


BESIDE = {"random": elsewhere}


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether the forget answers are already less likely than anyone asked for."""
    return history[-1].forget_nll > params.max_forget_nll
