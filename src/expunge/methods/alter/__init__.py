"""ALTER: low-rank experts that stay attached, mixed token by token by how sure the model is.

Objective:
    W(t) = W_0 + s ( B_r + sum_d g_d(t) B_d ) A,   d = 1 .. N sub-domains of the forget rows
    L    = gamma * ( sum_d mean_{F_d, low tokens}( IHL ) + lambda * sum_{d != e} ||B_d^T B_e||^2 )
         + alpha * RETAIN
    IHL_t  = relu( 1 + p(y_t) - max_{v != y_t} p(v) ),   in [0, 2]
    S_q(t) = ( 1 - sum_k p0(k|t)^q ) / ( q - 1 ),   S_1 = -sum_k p0(k|t) log p0(k|t)
    g(t)   = softmax( w S_q(t) / tau ),   tau = .8 where S_q(t) > threshold (high), else .01 (low)

    p0 is the model without experts. Tokens it is unsure of carry structure, those it is sure of
    carry facts. Every weight learns in its own place: A from high tokens, at ``slow`` times the
    rate; B_d from rows of F_d; B_r from retain rows; w from retain rows as well, or it would learn
    to pass the experts of forget rows by. W_0 does not move. In use, a high token is served by the
    ``top`` largest gates, rescaled to sum 1, a low one by the largest alone.

    router=hidden:  g(t) = softmax( (W h(t) + b) / tau ),   h: output of the middle block under p0

    The gates depend on the token, so nothing can be merged into W_0: experts and router are a
    run-time part of the change, and `expunge.load` attaches them. In the weights of the change
    nothing is forgotten; an audit runs with the part and past it.

Reference: ALTER: Asymmetric LoRA for Token-Entropy-Guided Unlearning of LLMs, 2026 (read in a note
that quotes its formulas).

Departs from the paper:
    A gate that sees one number cannot tell sub-domains apart: all its logits are multiples of that
    number, so one expert serves all low tokens. ``router=scalar`` is the paper's; ours, and the
    default, is ``router=hidden``, a linear discriminant between the sub-domains, found before
    training, which does not move. Of a tiny model's facts the scalar gate with four sub-domains
    left a quarter, and lost an eighth of those to be kept; the hidden one left and lost none.
    A is held as its start plus ``slow`` times what the optimiser moves, at the one learning rate
    there is: for AdamW the same as a group with a rate of its own, but that weight decay draws A
    to its start instead of to 0. The rate itself is the paper's for models of any size.
    INFERRED, since the note does not say it: all B begin at 0, and clusters (k-means on hidden
    states, or subjects) only decide the split; ``init=centroid`` begins each at the mean output of
    its rows; the number of sub-domains; q = 1 for the threshold of 1.2, which S_2 < 1 never
    reaches; where the model is sure of no token of the forget rows, a threshold with a quarter of
    them above it; what lambda multiplies; alpha / r = 1; that one phase trains everything. The
    entropy of a token is that of the distribution it was drawn from: of p0 one position earlier, in
    training and in use. A row begins with the entropy of a guess among all tokens. Each sub-domain
    weighs the same, also in a step that holds few of its tokens.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean, mean_of
from expunge.engine.runtime import Attached, Part
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.methods.alter.board import NAME, Board, Seated, board_of
from expunge.methods.alter.making import made
from expunge.methods.alter.told import seats, told

CARD = {
    "id": "alter",
    "kind": "gradient",
    "summary": "Low-rank experts beside frozen weights, one for each part of what is forgotten, "
    "mixed by token entropy; they stay attached.",
    "paper": "ALTER: Asymmetric LoRA for Token-Entropy-Guided Unlearning of LLMs (2026)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and 1 over retain rows per step, each after 1 "
    "forward without experts; in use 2 forwards a token",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, and those of the experts and their router."""

    lr: float | Literal["auto"] = param(
        1e-3,
        help="learning rate of the B, of models of any size; auto raises it for small ones",
        paper=1e-3,
        low=0.0,
    )
    slow: float = param(
        0.01, help="rate of the shared A as a share of lr", paper=0.01, low=0.0, high=1.0
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=3, low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=4, low=1)
    lora_alpha: float = param(8.0, help="scale of the experts: alpha / r", low=0.0)
    router: Literal["scalar", "hidden"] = param(
        "hidden",
        help="what gates look at: the entropy of a token, or hidden states, which tell sub-domains "
        "apart",
        paper="scalar",
        choices=("scalar", "hidden"),
    )
    split: Literal["hidden", "subject"] = param(
        "hidden",
        help="what sub-domains go by: likeness of hidden states, or the rows' subjects",
        choices=("hidden", "subject"),
    )
    domains: int = param(
        4, help="sub-domains of split=hidden (N), each with an expert", low=1, high=256
    )
    q: float = param(1.0, help="index of the entropy; 1 is Shannon's", paper=[0.5, 2], low=0.01)
    threshold: float = param(
        1.2, help="entropy above which a token is high, nats for q=1", paper=1.2, low=0.0
    )
    tau_high: float = param(
        0.8, help="temperature of gates of high tokens", paper=0.8, low=1e-3, high=100.0
    )
    tau_low: float = param(
        0.01, help="temperature of gates of low tokens", paper=0.01, low=1e-3, high=100.0
    )
    top: int = param(3, help="experts that serve a high token", paper=3, low=1)
    structure_weight: float = param(
        0.01, help="weight of what forget experts have in common (lambda)", paper=0.01, low=0.0
    )
    init: Literal["zero", "centroid"] = param(
        "zero",
        help="where experts begin: nowhere, or at the mean output of their rows",
        paper="centroid",
        choices=("zero", "centroid"),
    )

    def __post_init__(self) -> None:
        """Refuse a threshold that no token can be above.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if self.q > 1 and self.threshold >= 1 / (self.q - 1):
            raise ExpungeError(
                "E-USE-003",
                f"alter: threshold = {self.threshold:g} with q = {self.q:g}.",
                f"a threshold below {1 / (self.q - 1):g}, which no entropy of this index exceeds.",
                "Lower --set threshold, or use --set q=1.",
            )


mask = "nothing"
"""What is trained stands beside the model."""


def prepare(task: Task, params: Params) -> None:
    """Split the forget rows, find their low tokens, and put the experts beside the linears."""
    board = made(task, params)
    board.put_in(task.model)
    task.model.add_module(NAME, board)


def forget(step: Step, params: Params) -> Mean:
    """Inverted hinge of the low tokens, a mean in each sub-domain, with what experts share."""
    view = step.forget
    known = told(view, step.state)
    seated = Seated(seats(view, known.domain))
    value = inverted_hinge(view.changed(seated).logits, view.labels)
    total = (known.weights.to(value.dtype) * value).sum()
    mean = known.domains * Mean(total, known.weights.sum())
    if seated.board is None or not params.structure_weight:
        return mean
    shared = seated.board.overlap()
    step.report("overlap", mean_of(shared.detach()[None]))
    return Mean(mean.num + params.structure_weight * shared * mean.den, mean.den)


def inverted_hinge(logits: Tensor, labels: Tensor) -> Tensor:
    """``relu(1 + p_y - max_{v != y} p_v)``: 0 where another token has all the mass, 2 where y has.

    Args:
        logits: [N, V], at least float32.
        labels: [N], y.

    Returns:
        [N].
    """
    p = logits.softmax(-1)
    own = p.gather(-1, labels[:, None])
    rival = p.scatter(-1, labels[:, None], -torch.inf).amax(-1)
    return torch.relu(1 + own[:, 0] - rival)


def finish(change: Finishing, params: Params) -> None:
    """Take the experts out of the model: they are the run-time part of the change."""
    board = board_of(change.model)
    assert board is not None  # noqa: S101
    change.runtime = board.part()
    board.take_out(change.model)


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put trained experts beside the linears of a model.

    Raises:
        ValueError: When they are not made for it.
    """
    return Attached(Board.of(model, part).put_in(model))
