"""Representation misdirection: push the activations of forget text onto one random vector.

Objective:
    L = gamma * mean_F( ||h_l - c u||^2 / d ) + alpha * mean_R( ||h_l - h0_l||^2 / d )

    h_l is the output of block l at one position (d channels), h0_l the same under the anchor. u is
    a random vector of unit length with no negative component, drawn once for each topic
    (``meta["topic"]`` of the rows). Only the output matrices of the MLPs of blocks l-2, l-1 and l
    move. c must exceed the length that activations have at block l, or nothing is forgotten; the
    run says so when it does not.

Reference: The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning, 2024.

Departs from the paper:
    Padding is never pushed, as the original code does; nor is the first position, where most models
    keep an activation far larger than all others (``include_bos`` brings it back). Rows of several
    topics share a step, each with the vector of its own; the original takes the topics in turn.
    The weight of the retain term is that of a later benchmark; at 1200, the paper's, small models
    forget nothing.
"""

from dataclasses import dataclass

from expunge.core.events import note
from expunge.core.families import SteeringParams
from expunge.core.params import param
from expunge.engine.mean import Mean
from expunge.engine.misdirection import layer_of, lengths, mask, retain, steered
from expunge.engine.steering import directions, distance, remember_topics
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "rmu",
    "kind": "gradient",
    "summary": "Pushes the activations of forget text at one block onto a fixed random vector.",
    "paper": "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning (2024)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, not above the steered "
    "block; the anchor's outputs of that block are cached",
    "maturity": "paper",
    "version": 1,
}

__all__ = ["CARD", "Params", "forget", "mask", "prepare", "retain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(SteeringParams):
    """The shared parameters, the block, and how far its activations are pushed."""

    retain_weight: float = param(
        1.0, help="weight of the retain term (alpha)", paper=[1200, 100, 1], low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=[150, 80], low=1
    )
    steering: float = param(
        6.5, help="length of the vector activations are pushed onto (c)", paper=[6.5, 20], low=0.0
    )


def prepare(task: Task, params: Params) -> None:
    """Note the topics; say so when the vector is shorter than what it should outgrow."""
    remember_topics(task)
    natural = max(lengths(task, params).values())
    if params.steering < natural:
        layer = layer_of(params, len(Slots(task.model)))
        note(
            f"rmu: activations of block {layer} have length {natural:.1f}, steering is "
            f"{params.steering:g}: too short to forget with. Raise it (--set steering=...), or "
            "use arm, which measures it.",
            natural=natural,
        )


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of forget activations to the control vector, per channel."""
    hidden, positions = steered(step.forget, params)
    target = params.steering * directions(step.forget, step.state, hidden.shape[-1])
    return distance(hidden, target, positions)
