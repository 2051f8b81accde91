"""Retraining: the original's recipe from the base model, on everything but the forget rows.

Objective:
    L = tokenmean_{D without F}( nll ),   from the base model, which never saw F

    What others are measured against: the model that would have been, had the forget rows never
    been there. It is exact for what was trained from ``base`` on; what the base itself knows, it
    knows still. With several stages of training the result depends on their order, so the stages
    are recorded.

    The retain and neighbour rows are D without F. The order of a pass comes from a hash of seed,
    pass and content of each row, so a row that was never in D changes nothing. ``steps=full``
    makes as many steps as the rows left ask for; ``steps=matched`` as many as training on all of
    D, forget rows included, would have made. The schedule spans the steps of this run.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024; on the order of stages: On the
Impossibility of Retrain Equivalence in Machine Unlearning, 2025.

Departs from the paper:
    The order is a function of the rows, where the usual one is a shuffle of their places.
"""

from dataclasses import dataclass, replace
from typing import Literal

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.slots.sample import KeyedPasses, over_retain
from expunge.engine.step import Step
from expunge.engine.task import Task

CARD = {
    "id": "retrain",
    "kind": "exact",
    "summary": "Training anew from the base model without the forget rows; the gold reference.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["retain"],
    "access": "weights of the base model",
    "cost": "the training of the model, less the forget rows",
    "maturity": "paper",
    "version": 1,
    "passes": "retain",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The recipe the original was trained by."""

    base: str | None = param(None, help="folder of the model before it saw any of the rows")
    retain_term: str = param("nll", help="what is trained on", paper="nll", choices=("nll",))
    steps: Literal["full", "matched"] = param(
        "full",
        help="as many steps as the rows left ask for, or as all of them would have made",
        paper="full",
        choices=("full", "matched"),
    )
    epochs: int | None = param(5, help="passes over the rows", paper=5, low=1)
    weight_decay: float = param(0.01, help="decoupled weight decay", paper=0.01, low=0.0)


def forget(step: Step, params: Params) -> None:
    """The forget rows are never looked at."""


def sample(task: Task, params: Params) -> KeyedPasses:
    """Passes over the retain rows; as many steps as the flavour asks for."""
    passes = over_retain(task, params)
    if params.steps == "full":
        return passes
    whole = len(task.retain) + len(task.forget)
    return replace(passes, steps_per_epoch=-(-whole // passes.size))
