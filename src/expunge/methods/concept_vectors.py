"""Concept vectors: disturb the one column of one MLP that holds a concept.

Objective:
    W_l[:, j] <- W_l[:, j] + N(0, deviation^2 I)      mode=noise
    W_l[:, j] <- 0                                    mode=zero

    W_l is the output matrix of a block's MLP; its column j, a value vector, writes the words of one
    concept into the residual stream. Nothing is trained and nothing else is touched.

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces, 2024.

Departs from the paper:
    Which vector it is the rows say (``meta`` with ``layer`` and ``dim``), or ``vectors``; otherwise
    the column that shares most of its strongest tokens with the rows is taken (INFERRED: the paper
    has a language model and people look at candidates). ``deviation=auto`` is five standard
    deviations of the matrix, which is the paper's 0.1 in a 7B model; an absolute number means
    another thing in every model. ``mode=zero`` is INFERRED.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.editing.concepts import TOP, disturb, traces_of
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.traces import top_tokens, value_vector

CARD = {
    "id": "concept-vectors",
    "kind": "edit",
    "summary": "Disturbs the value vector that holds a concept, and nothing else.",
    "paper": "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "no pass; where a vector is looked for, one product of all value vectors and the head",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}


TOLD = ("cosine", "distance", "jaccard")
"""What the record says of each vector before and after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """Which vectors, and what becomes of them."""

    retain_term: str = param("none", help="nothing is trained", paper="none", choices=("none",))
    max_steps: int | None = param(None, help="most vectors; none takes all", low=1)
    vectors: tuple[str, ...] | None = param(
        None, help="layer:dim of each; none takes those of the rows, or looks for them"
    )
    mode: Literal["noise", "zero"] = param(
        "noise",
        help="what becomes of a vector: noise is added, or it is emptied",
        paper="noise",
        choices=("noise", "zero"),
    )
    deviation: float | Literal["auto"] = param(
        "auto",
        help="standard deviation of the noise; auto: five times that of the matrix",
        paper=0.1,
        low=0.0,
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of MLPs; of them only the vectors are touched."""
    return mlp_outputs_only(model, range(len(Slots(model))))


def edit(change: Finishing, params: Params) -> None:
    """Disturb every vector once."""
    task, model = change.task, change.task.model
    traces = traces_of(task, params.vectors)[: params.max_steps]
    before = {trace: value_vector(model, trace).detach().clone() for trace in traces}
    known = {trace: set(top_tokens(model, before[trace], TOP)) for trace in traces}
    told: dict[str, dict[str, float]] = {}
    for trace in traces:
        if params.mode == "zero":
            with torch.no_grad():
                value_vector(model, trace).zero_()
        else:
            disturb(model, trace, deviation=params.deviation, seed=task.seed)
        now = value_vector(model, trace).detach()
        tokens = set(top_tokens(model, now, TOP))
        told[f"{trace.layer}:{trace.dim}"] = {
            "cosine": float(functional.cosine_similarity(before[trace], now, dim=0)),
            "distance": float((now - before[trace]).norm()),
            "jaccard": len(tokens & known[trace]) / len(tokens | known[trace]),
        }
    change.steps = len(traces)
    means = {name: fmean(one[name] for one in told.values()) for name in TOLD}
    change.record |= {"vectors": told, **means}
