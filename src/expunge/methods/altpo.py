"""Alternate preference optimisation: prefer invented answers of the right kind to the true one.

Objective:
    L = -gamma * (2 / beta) * mean_i log sigmoid( beta * m_i ) + alpha * RETAIN
    m_i = (logp(alternate_i) - logp0(alternate_i)) - (logp(answer_i) - logp0(answer_i))

    i runs over the pairs of a forget row and one of its k alternates, and logp sums over the tokens
    of a reply. Alternates are other answers to the same question: the model itself invents them
    before training, at temperature 1, and what repeats the truth is thrown away and drawn again.
    An epoch passes every pair once, so it counts k times the steps of an epoch over the rows.

Reference: Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language
Models, 2024.

Departs from the paper:
    A model without a chat template is asked the bare question; one that gives too few answers of
    its own gets those of other rows that ask for the same attribute, or of any other row
    (``source``). What every row got stands in ``made/alternates.jsonl`` of the change. An invented
    answer is as long as the true one allows, at most 200 tokens; it follows all wordings of the
    question. The retain term is the shared one, over one retain row for each pair.
"""

from dataclasses import dataclass
from typing import Literal

from torch.nn.functional import logsigmoid

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.alternates import alternates_of, said_instead
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "altpo",
    "kind": "gradient",
    "summary": "Preference of answers that the model invents itself over the true one.",
    "paper": "Alternate Preference Optimization for Unlearning Factual Knowledge in Large "
    "Language Models (2024)",
    "needs": ["forget", "retain", "alternate", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget, alternate and retain rows per step; the anchor is "
    "cached; before training the model writes k answers to every forget row",
    "passes": "pairs",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sharpness of the preference, and where alternates come from."""

    beta: float = param(0.1, help="sharpness", paper=[0.05, 0.1, 0.5], low=1e-6, high=100.0)
    retain_weight: float = param(
        1.0, help="weight of the retain term (alpha)", paper=[1, 2, 5], low=0.0
    )
    epochs: int | None = param(
        None,
        help="passes over all pairs; none takes the paper's, and more steps for small models",
        paper=2,
        low=1,
    )
    alternates: int = param(5, help="other answers to each forget row (k)", paper=5, low=1, high=50)
    source: Literal["auto", "model", "permute"] = param(
        "auto",
        help="who gives them: the model itself, other rows, or other rows where the model gives "
        "too few",
        paper="model",
        choices=("auto", "model", "permute"),
    )


sample = "pairs"


def prepare(task: Task, params: Params) -> None:
    """Put the alternates beside the forget rows; a resumed run takes those it had."""

    def alternates() -> list[dict[str, object]]:
        return alternates_of(task, params.alternates, params.source)

    made = {found["id"]: found["alternates"] for found in made_once(task, "alternates", alternates)}
    origins = [one["origin"] for found in made.values() for one in found]
    task.record["alternates_invented"] = origins.count("model")
    task.record["alternates_permuted"] = origins.count("permute")

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        return said_instead(row, wording, made[row.id][candidate]["reply"])

    task.paired["alternate"] = Paired(beside, count=params.alternates)


def forget(step: Step, params: Params) -> Mean:
    """Mean over pairs of the negated log-odds of preferring the alternate, nats / beta."""
    won = step.alternate.logp - step.alternate.anchor.logp
    lost = step.forget.logp - step.forget.anchor.logp
    return mean_of(-2 / params.beta * logsigmoid(params.beta * (won - lost)))
