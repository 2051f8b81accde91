"""AlphaEdit: MEMIT whose change lies where no key of other text points.

Objective:
    W_l <- W_l + X^T,    X solves  [ P (K K^T + M) + L2 I ] X = P K T^T

    P = U0 U0^T projects onto the null space of the keys of other text: U0 are the eigenvectors of
    their second moment C_l with the smallest eigenvalues. So whatever is added, outputs for those
    keys stay as they were. K are the keys of the prompts, T what is missing (see `memit` and
    `expunge.engine.editing.spreading`), M the sum of K K^T over the edits of earlier requests,
    which are protected as well.

    nullspace=energy     the smallest eigenvalues that together hold less than a share
                         ``threshold`` of the trace
    nullspace=absolute   those below ``threshold``

Reference: AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, 2025; as
unlearning in Editing as Unlearning: Are Knowledge Editing Methods Strong Baselines for LLM
Unlearning?, 2025.

Departs from the paper:
    Its threshold, 2e-2, is absolute, and means another thing in every model: where keys are short
    almost every direction is null. The default is a share of the trace (INFERRED); the dimension of
    the null space is in the record. C_l is taken over the retain rows, or over ``corpus``. In a
    stream, M goes from request to request as the keys of all edits so far, which are kept in the
    folder of each change.
"""

from dataclasses import dataclass

from transformers import PreTrainedModel

from expunge.core.families import NullSpaceParams
from expunge.engine.editing.null_space import in_null_space
from expunge.engine.editing.spreading import over_blocks
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "alphaedit",
    "kind": "edit",
    "summary": "Rewrites all associations at once and leaves every other key's output alone.",
    "paper": "AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "as memit; for each of 5 blocks the eigenvectors of a matrix of the MLP's width",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 8 / 32
"""Where the top one of the paper's blocks was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(NullSpaceParams):
    """The shared parameters of editing, the blocks, and what counts as the null space."""


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of the blocks' MLPs."""
    every = range(len(Slots(model)))
    return mlp_outputs_only(model, every if params.layers is None else params.layers)


def edit(change: Finishing, params: Params) -> None:
    """One batch of all associations, beside those of earlier requests."""
    plan, layers = over_blocks(change, params, depth=DEPTH)
    in_null_space(change, params, plan, layers)
