"""Refusals with answer preservation: refuse on forget prompts, and rather answer on the others.

Objective:
    L = gamma * tokenmean( nll of refusal r_i after forget prompt i ) + alpha * L_AP
    L_AP = -(1 / beta) * mean_j log sigmoid( beta * ( S(r_j | q_j) - S(a_j | q_j) ) )

    S is the sum of the negative log-likelihood over a reply; j runs over retain rows, each with its
    own answer a_j and a refusal r_j drawn anew in every step. Nothing is compared with the anchor.

    Refusals alone spread to every prompt. L_AP holds them back where they are not wanted: it
    raises the answer and lowers the refusal to the same retain prompt, in equal parts, and fades
    once the answer is well ahead: the weight of a pair is sigmoid(-beta * lead).

    retain_term=nll puts the mean NLL of the retain answers in its place, which is idk-nll.

Reference: A Closer Look at Machine Unlearning for Large Language Models, 2024 (IDK+AP).

Departs from the paper:
    Refusals are our own hundred sentences. The factor of L_AP is 1 / beta, as in the code, while
    preferences there have 2 / beta. A later study warm-starts it by some epochs of DPO with
    refusals, which keeps more utility: run idk-dpo first and this on its change folder. It
    teaches a reply and removes nothing: audits find such a model *hidden*.
"""

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.alternates import said_instead
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import REFUSALS

CARD = {
    "id": "idk-ap",
    "kind": "gradient",
    "summary": "Refusals on forget prompts; on retain prompts the answer is preferred to one.",
    "paper": "A Closer Look at Machine Unlearning for Large Language Models (2024)",
    "needs": ["forget", "refusal", "retain", "declined"],
    "access": "weights",
    "cost": "1 forward and backward over refusals, retain rows and refusals to them per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the sharpness of the preservation."""

    beta: float = param(0.1, help="sharpness", paper=0.1, low=1e-6, high=100.0)
    retain_term: str = param(
        "preservation",
        help="what keeps the rest: the answer before a refusal, or its NLL alone",
        paper="preservation",
        choices=("preservation", "nll", "none"),
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=5, low=1
    )


def prepare(task: Task, params: Params) -> None:
    """Put a refusal beside every retain row as well."""
    task.paired["declined"] = Paired(declined, count=len(REFUSALS), beside="retain")


def declined(row: Row, wording: int, phrase: int) -> Turn:
    """A refusal in the place of a retain answer; of running text, of its second half."""
    return said_instead(row, wording, REFUSALS[phrase])


def forget(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the refusals."""
    return step.refusal.nll


def retain(step: Step, params: Params) -> Mean | None:
    """Mean over retain rows of the negated log-odds of answering, nats / beta."""
    if params.retain_term != "preservation":
        return shared.by_term(step, params)
    lead = step.retain.logp - step.declined.logp
    return mean_of(-1 / params.beta * logsigmoid(params.beta * lead))
