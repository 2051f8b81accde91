"""Many associations at once, over several blocks: each block closes its share of what is missing.

    for the i-th of R blocks, from below:   T  = Z - H        what the top one lacks, as it now is
                                            D_l = solve(K_l, T / (R - i))
                                            W_l <- W_l + D_l

Z are the values wanted at the output of the top block, H those that are there, K_l the keys of
block l under the blocks below it as they were changed. How keys and what is missing give a matrix
is the method's own.

Where a family normalises what an MLP puts out, a change of the residual stream is asked back to the
other side of that norm: of an output v the change that leads there is ``rms(v) * (norm(v) + t) / g
- v`` (g the norm's gains), exact in direction; what length it misses the next block sees in H.
INFERRED for such families.

Reference: Mass-Editing Memory in a Transformer, 2022.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor, nn

from expunge.core.events import note, progress
from expunge.core.families import EditParams
from expunge.engine.editing.keys import clashing, keys_of
from expunge.engine.editing.locating import Build, Plan, planned, rewriting
from expunge.engine.editing.values import ENOUGH, Goal, unlikely, values_at, wanted
from expunge.engine.editing.wording import STARTERS, contexts_of
from expunge.engine.editing.writing import write
from expunge.engine.finish import Finishing
from expunge.engine.task import Task
from expunge.lm.arch import Slots

BLOCKS = 5
"""Blocks that are edited, where none are named."""

LENGTH = 10
"""Tokens of the texts in front of prompts."""

Solve = Callable[[int, Tensor, Tensor], Tensor]
"""(block, keys [n, d_in], what their outputs lack [n, d_out]), float64 -> change [d_out, d_in]."""

SMALLEST_GAIN = 1e-6
"""Gains of a norm that are smaller count as this."""


def over_blocks(
    change: Finishing,
    params: EditParams,
    *,
    depth: float,
    build: Build | None = None,
    goal: Goal = unlikely,
    enough: float | None = ENOUGH,
    blocks: int = BLOCKS,
) -> tuple[Plan, list[int]]:
    """What is edited, and over which blocks: those of ``layers``, or some up to where it is easy.

    Args:
        change: What is edited.
        params: What is to be said, and how values are looked for.
        depth: Share of the blocks below the paper's top one.
        build: Place -> associations; None rewrites the forget rows.
        goal: What a value is to make small.
        enough: Objective at which a value is good enough, or None.
        blocks: How many, where none are named.

    Returns:
        The plan, at the top one of the blocks, and the blocks from the bottom.
    """
    task, slots = change.task, Slots(change.task.model)
    named = sorted(slots.index(layer) for layer in params.layers or ())
    if build is None:
        build = rewriting(task, params, begun(task, params.contexts))
    plan = planned(
        change, params, slot="block", layer=named[-1] if named else None, depth=depth,
        build=build, goal=goal, enough=enough,
    )  # fmt: skip
    layers = named or list(range(max(0, plan.layer - blocks + 1), plan.layer + 1))
    change.record["layers"] = layers
    return plan, layers


def begun(task: Task, count: int) -> list[str]:
    """So many texts in front of prompts, begun in turn as the paper's are."""
    return contexts_of(task, list(islice(cycle(STARTERS), count)), LENGTH)


def spread(model: nn.Module, plan: Plan, layers: Sequence[int], solve: Solve) -> None:
    """Edit all associations of a plan.

    Args:
        model: The model; its weights are changed.
        plan: What is edited; its block is the top one.
        layers: The blocks, from the bottom, the plan's own last.
        solve: Gives each block's change.
    """
    values = wanted(model, plan.datasets, plan.asked, plan.search).values
    bare = [one.bare for one in plan.asked]
    with progress("blocks", len(layers)) as bar:
        for place, layer in enumerate(layers):
            keys = keys_of(model, plan.datasets, plan.asked, layer, by_group=True)
            if place == 0:
                _warn(clashing(keys))
            now = values_at(model, plan.datasets, bare, plan.layer, plan.search.slot)
            share = (values - now) / (len(layers) - place)
            out = values_at(model, plan.datasets, bare, layer, "mlp_out")
            missing = behind_norm(model, layer, out, share)
            write(model, layer, solve(layer, keys.double(), missing.double()))
            bar.advance(1)


@torch.no_grad()
def behind_norm(model: nn.Module, layer: int, out: Tensor, change: Tensor) -> Tensor:
    """[n, d]: by how much MLP outputs must change for the residual stream to change so.

    Args:
        model: The model.
        layer: The block.
        out: [n, d], what its MLP puts out.
        change: [n, d], what is wanted in the residual stream.
    """
    norm = Slots(model).mlp_norm(layer)
    if norm is None:
        return change
    width = out.new_ones(out.shape[-1])
    gain = norm(width)
    gain = torch.where(gain.abs() < SMALLEST_GAIN, SMALLEST_GAIN, gain)
    size = out.square().mean(-1, keepdim=True).sqrt()
    moved: Tensor = size * (norm(out) + change) / gain - out
    return moved


def _warn(clashes: int) -> None:
    if clashes:
        note(
            f"{clashes} pairs of prompts look the same to the blocks that are edited: they cannot "
            "be led to different things. Another place may tell them apart (--set fact_token=...).",
            clashes=clashes,
        )
