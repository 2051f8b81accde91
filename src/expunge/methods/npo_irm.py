"""NPO with invariant risk minimisation: forgetting that later fine-tuning leaves in place.

Objective:
    L = gamma * mean_F( -(2 / beta) log sigmoid( -beta (logp_i - logp0_i) ) ) + alpha * RETAIN
        + lambda * g^2
    g = d/dw tokenmean_D( CE( w * z, y ) ) at w = 1 = tokenmean_D( sum_k p_k z_k - z_y )

    D is one auxiliary data set that has nothing to do with what is forgotten; z are the logits of
    its tokens. Where g is 0 no rescaling of the logits would help on D: to first order the model is
    at rest for whoever fine-tunes on it, so that fine-tuning has less reason to move what was
    unlearned. g is the mean over the whole step before it is squared.

Reference: Invariance Makes LLM Unlearning Resilient Even to Unanticipated Downstream Fine-Tuning,
2025.

Departs from the paper:
    INFERRED, since only notes on it were read: that w multiplies the logits, as a scalar in front
    of the classifier (the formula has w o theta); token means; that D is drawn with replacement.
    D is a file of rows, ``auxiliary``; without one the retain rows stand in, which is INFERRED as
    well: they keep what they are there for and are less unrelated. The rows of a file are copied to
    ``made/auxiliary.jsonl`` of the change. While the forget term rests at the stop level, so does
    the penalty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.data.jsonl import read_rows
from expunge.engine.apart import rows_apart, value_and_gradient
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import row_preference
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "npo-irm",
    "kind": "gradient",
    "summary": "NPO with a penalty on how much fine-tuning on other data would still change.",
    "paper": "Invariance Makes LLM Unlearning Resilient Even to Unanticipated Downstream "
    "Fine-Tuning (2025)",
    "needs": ["forget", "retain", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget, 1 over retain and 1 over auxiliary rows per step; "
    "3 gradients held; the anchor is cached",
    "maturity": "paper",
    "version": 1,
    "loss_of": "npo",
}

PENALTY = "npo-irm.penalty"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sharpness of the preference, and the penalty."""

    beta: float = param(
        0.1, help="sharpness of the preference", paper=[0.01, 0.1], low=1e-6, high=100.0
    )
    irm_weight: float = param(
        0.1, help="weight of the penalty (lambda); more hurts forgetting", paper=[0.05, 0.1], low=0
    )
    auxiliary: str | None = param(
        None, help="file of rows the penalty is taken on; none takes the retain rows", paper="GSM8K"
    )
    auxiliary_batch: int = param(48, help="auxiliary rows of a step", paper=48, low=1)

    def __post_init__(self) -> None:
        """Read the auxiliary rows once, so that a bad file is found before weights load.

        Raises:
            ExpungeError: ``E-DATA-001`` to ``E-DATA-012``, see `expunge.data.jsonl.read_rows`.
        """
        if self.auxiliary is not None:
            read_rows(self.auxiliary, "retain")


def prepare(task: Task, params: Params) -> None:
    """Put the auxiliary rows beside the retain rows, and see that they can be trained on."""
    turns = auxiliary_turns(task, params)
    for index, turn in enumerate(turns):
        task.encoder.encode(turn, row=index)
    _refuse_idle_processes(task, params)

    def auxiliary(row: Row, wording: int, candidate: int) -> Turn:
        return turns[candidate]

    task.paired["auxiliary"] = Paired(auxiliary, count=len(turns), beside="retain")
    task.state[PENALTY] = 0.0


def auxiliary_turns(task: Task, params: Params) -> Sequence[Turn]:
    """What is drawn from: the rows of the file, kept for restarts, or the retain rows."""
    path = params.auxiliary
    if path is None:
        return [row.training for row in task.retain]
    made = made_once(task, "auxiliary", lambda: [r.as_dict() for r in read_rows(path, "retain")])
    return [Row.parse(record).training for record in made]


def forget(step: Step, params: Params) -> Mean:
    """Mean over forget rows of the negated log-odds of staying below the anchor."""
    if PENALTY in step.state:  # of the step before
        told = torch.tensor([step.state[PENALTY]], dtype=torch.float64)
        step.report("penalty", mean_of(told))
    return row_preference(step.forget, params.beta)


def rescaled(view: View) -> Mean:
    """g: the slope of the token-mean cross-entropy in a factor on all logits, at 1."""
    logits = view.logits
    target = logits.gather(-1, view.labels[:, None])[:, 0]
    return mean_of((logits.softmax(-1) * logits).sum(-1) - target)


def combines(params: Params) -> bool:
    """Whether a step needs the gradients of its terms apart."""
    return params.irm_weight > 0


def effort(params: Params) -> float:
    """How many plain steps a step takes: its own, and the auxiliary rows beside its two sides."""
    rows = params.auxiliary_batch if params.irm_weight > 0 else 0
    return 1 + rows / (2 * params.batch_size * params.accumulation)


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """The weighted sum of both, and ``lambda * 2 g grad g``, the gradient of the penalty."""
    combined, again = weighted_sum(gradients, state, params), gradients.again
    assert again is not None  # noqa: S101
    rows = rows_apart(again, "auxiliary", params.auxiliary_batch, params)
    g, slope = value_and_gradient(again, rows, rescaled)
    state[PENALTY] = g**2
    return [d + 2 * params.irm_weight * g * s for d, s in zip(combined, slope, strict=True)]


def _refuse_idle_processes(task: Task, params: Params) -> None:
    processes = 1 if task.world is None else task.world.size
    if params.auxiliary_batch < processes:
        raise ExpungeError(
            "E-USE-006",
            f"auxiliary_batch={params.auxiliary_batch} with {processes} processes.",
            "at least one auxiliary row for each process.",
            f"Use --set auxiliary_batch={processes} or more.",
        )
