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
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import EditParams
from expunge.core.params import param
from expunge.engine.editing.keys import moment
from expunge.engine.editing.locating import texts_of
from expunge.engine.editing.spreading import over_blocks, spread
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

KEYS = "keys.safetensors"
"""File with the keys of all edits so far, inside what a change's method made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EditParams):
    """The shared parameters of editing, the blocks, and what counts as the null space."""

    nullspace: Literal["energy", "absolute"] = param(
        "energy",
        help="which directions are null: those that hold a share of all energy, or those whose "
        "energy is below a number",
        paper="absolute",
        choices=("energy", "absolute"),
    )
    threshold: float = param(
        1e-3, help="that share, or that number (nullspace_threshold)", paper=2e-2, low=0.0
    )
    l2: float = param(10.0, help="weight of the length of the change (L2)", paper=10, low=0.0)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of the blocks' MLPs."""
    every = range(len(Slots(model)))
    return mlp_outputs_only(model, every if params.layers is None else params.layers)


def edit(change: Finishing, params: Params) -> None:
    """One batch of all associations, beside those of earlier requests."""
    task, model = change.task, change.task.model
    plan, layers = over_blocks(change, params, depth=DEPTH)
    texts, earlier = texts_of(task, params), keys_before(task)
    null = {
        layer: null_space(moment(model, plan.datasets, texts, layer), params) for layer in layers
    }
    held = dict(earlier)

    def solve(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
        name = f"block {layer}"
        old = earlier.get(name, keys[:0].float()).to(keys)
        held[name] = torch.cat([old, keys]).float().cpu()
        return constrained(null[layer].to(keys), keys, missing, old.T @ old, params.l2)

    spread(model, plan, layers, solve)
    keep(task, held)
    change.steps = len(plan.asked)
    change.record |= {"null": {str(at): p.shape[1] for at, p in null.items()}}


def null_space(moment: Tensor, params: Params) -> Tensor:
    """U0 [d_in, k]: the eigenvectors of a second moment that hardly any key has a part in.

    Raises:
        ExpungeError: ``E-USE-003`` when there are none.
    """
    energy, vectors = torch.linalg.eigh(moment)
    energy = energy.clamp(min=0)  # from the smallest up
    if params.nullspace == "absolute":
        inside = energy < params.threshold
    else:
        inside = energy.cumsum(0) < params.threshold * energy.sum()
    if not inside.any():
        raise ExpungeError(
            "E-USE-003",
            f"No direction of {len(energy)} is null at threshold={params.threshold:g}.",
            "a threshold that leaves some direction to write into.",
            "Raise it (--set threshold=...).",
        )
    found: Tensor = vectors[:, inside]
    return found


def constrained(null: Tensor, keys: Tensor, missing: Tensor, held: Tensor, l2: float) -> Tensor:
    """The change that lies in the null space.

    The system is solved inside the null space, where it is symmetric: with ``X = U0 Y``,
    ``[ U0^T (K K^T + M) U0 + L2 I ] Y = U0^T K T^T``.

    Args:
        null: U0 [d_in, k], orthonormal.
        keys: [n, d_in].
        missing: [n, d_out].
        held: M [d_in, d_in].
        l2: L2.

    Returns:
        [d_out, d_in].
    """
    inside = keys @ null
    system = inside.T @ inside + null.T @ held @ null
    system += l2 * torch.eye(len(system), dtype=system.dtype, device=system.device)
    solved: Tensor = null @ torch.linalg.solve(system, inside.T @ missing)
    return solved.T


def keys_before(task: Task) -> dict[str, Tensor]:
    """``block l`` -> keys [n, d_in] of the edits of the changes this one stands on."""
    file = None if task.earlier is None else task.earlier / KEYS
    return {} if file is None or not file.is_file() else load_file(file)


def keep(task: Task, held: dict[str, Tensor]) -> None:
    """Leave the keys of all edits so far to whoever goes on from here."""
    if task.folder is not None:
        task.folder.mkdir(parents=True, exist_ok=True)
        save_file({name: keys.contiguous() for name, keys in held.items()}, task.folder / KEYS)
