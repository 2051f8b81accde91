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

from dataclasses import dataclass
from typing import Literal

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.task import Task
from expunge.engine.three_terms import away, elsewhere, random_answers, too_unlikely

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
    task.paired["random"] = random_answers(task, params.random_answers)


forget = away
BESIDE = {"random": elsewhere}
stop = too_unlikely
