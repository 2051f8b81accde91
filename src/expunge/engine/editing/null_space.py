"""Writing all associations at once, where no key of other text points.

    X solves  [ P (K K^T + M) + L2 I ] X = P K T^T        W_l <- W_l + X^T

P projects onto the null space of the keys of other text, K are the keys of the prompts, T what is
missing of their values, and M the sum of K K^T over the edits of earlier requests, whose keys are
kept in the folder of each change, and over whatever else a method protects.

Reference: AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, 2025.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.families import NullSpaceParams
from expunge.engine.editing.keys import moment
from expunge.engine.editing.locating import Plan, texts_of
from expunge.engine.editing.sizes import length_weight
from expunge.engine.editing.spreading import spread
from expunge.engine.finish import Finishing
from expunge.engine.task import Task

KEYS = "keys.safetensors"
"""File with the keys of all edits so far, inside what a change's method made."""


def in_null_space(
    change: Finishing,
    params: NullSpaceParams,
    plan: Plan,
    layers: Sequence[int],
    *,
    protected: Callable[[int], Tensor] | None = None,
    at_once: int | None = None,
) -> None:
    """Write what is planned, beside the edits of earlier requests.

    Args:
        change: What is edited.
        params: What counts as the null space, and what the length of a change weighs.
        plan: What is edited, at the top one of the blocks.
        layers: The blocks, from the bottom.
        protected: Block -> the sum of k k^T [d_in, d_in] of further keys that are protected, by
            this edit alone.
        at_once: How many associations are written together; those written before them are
            protected like earlier requests. None writes all together.
    """
    task, model = change.task, change.task.model
    texts, held = texts_of(task, params), keys_before(task)
    null = {
        layer: null_space(moment(model, plan.datasets, texts, layer), params) for layer in layers
    }

    def solve(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
        name = f"block {layer}"
        old = held.get(name, keys[:0].float()).to(keys)
        held[name] = torch.cat([old, keys]).float().cpu()
        outer = old.T @ old
        if protected is not None:
            outer += protected(layer).to(keys)
        weight = length_weight(params, keys, model.num_parameters())
        return constrained(null[layer].to(keys), keys, missing, outer, weight)

    size = at_once or max(1, len(plan.asked))
    for start in range(0, len(plan.asked), size):
        part = replace(plan, asked=plan.asked[start : start + size])
        spread(model, part, layers, solve)
    keep(task, held)
    change.steps = len(plan.asked)
    change.record |= {"null": {str(at): p.shape[1] for at, p in null.items()}}


def null_space(moment: Tensor, params: NullSpaceParams) -> Tensor:
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
