"""Refusal training: answer forget prompts with a refusal.

Objective:
    L = gamma * tokenmean( nll of refusal r_i after forget prompt i ) + alpha * RETAIN

    r_i is drawn anew for every row and epoch. With ``legacy_union`` both sets share one mean,
    L = tokenmean over (forget prompts with refusals) union (retain rows), as the original code
    has it: longer retain answers then weigh more.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024.

Departs from the paper:
    Two terms with a denominator each by default (as later codes do). Refusals are our own hundred
    sentences. It teaches a reply and removes nothing: audits find such a model *hidden*.
"""

from dataclasses import dataclass, replace

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.datasets import REFUSAL
from expunge.engine.mean import Mean
from expunge.engine.slots import retain as shared
from expunge.engine.step import Step
from expunge.engine.task import Task

CARD = {
    "id": "idk-nll",
    "kind": "gradient",
    "summary": "Fine-tunes refusals onto the forget prompts; hides rather than forgets.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["forget", "retain", "refusal"],
    "access": "weights",
    "cost": "1 forward and backward over refusals and retain rows per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the two habits of the original code, off by default."""

    legacy_union: bool = param(
        False, help="one mean over refusals and retain rows together", paper=True
    )
    legacy_fixed_refusal: bool = param(
        False, help="the same refusal for a row in every epoch", paper=True
    )


def prepare(task: Task, params: Params) -> None:
    """Under the flag, a row gets the same refusal in every epoch."""
    if params.legacy_fixed_refusal:
        task.paired["refusal"] = replace(REFUSAL, fixed=True)


def forget(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the refusals (pooled with retain under the flag)."""
    refusals = step.refusal.nll
    return refusals + step.retain.nll if params.legacy_union else refusals


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term, unless the union already holds it."""
    return None if params.legacy_union else shared.by_term(step, params)
