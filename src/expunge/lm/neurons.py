"""The units of the MLPs: what each adds to an answer, and which weights are its own.

Definition (h_i: what unit i of a block hands to the output matrix of its MLP, at one position):
    attribution of unit i    sum over positions of h_i * dP / dh_i

    P is linear in the columns of the output matrix, so the same number is the sum of weight times
    gradient over the unit's column.

Reference: attribution as in FaithUn: Toward Faithful Forgetting in Language Models by Investigating
the Interconnectedness of Knowledge, 2025.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.lm.arch import Slots
from expunge.lm.scoring import Rows, packed_logp


def attributions(
    model: nn.Module, batch: Rows, *, product: bool = False, everywhere: bool = False
) -> list[Tensor]:
    """What each unit adds to the probability of each row's answer: one backward for all of them.

    Args:
        model: A causal language model; flags and modes are the caller's.
        batch: Padded rows.
        product: The probability of an answer is that of all its tokens; else their mean.
        everywhere: Sum over all positions; else over those that predict the answer.

    Returns:
        For each block [B, units].
    """
    with torch.enable_grad(), handed_on(model) as hidden:
        scored = packed_logp(model, batch)
        value = answer_probability(scored.logp, scored.row, len(batch.labels), product).sum()
    predicts = torch.zeros_like(batch.labels, dtype=torch.bool)
    predicts[:, :-1] = batch.labels[:, 1:] != -100
    where = torch.ones_like(predicts) if everywhere else predicts
    return activation_times_gradient(value, hidden, where)


def answer_probability(logp: Tensor, row: Tensor, rows: int, product: bool) -> Tensor:
    """[rows], product or mean of the probabilities of each row's tokens.

    Args:
        logp: [N], log-probability of each token, nats.
        row: [N], its row.
        rows: How many there are.
        product: Which of both.
    """
    zeros = logp.new_zeros(rows)
    if product:
        return zeros.index_add(0, row, logp).exp()
    counts = row.bincount(minlength=rows).clamp(min=1)
    return zeros.index_add(0, row, logp.exp()) / counts


def activation_times_gradient(
    value: Tensor, hidden: Sequence[Tensor], where: Tensor
) -> list[Tensor]:
    """``sum_t h * dvalue/dh`` over the positions that count.

    Args:
        value: A number made from ``hidden``.
        hidden: Activations [B, T, units], with their graph.
        where: [B, T] bool, which positions count.

    Returns:
        For each of ``hidden`` [B, units].
    """
    gradients = torch.autograd.grad(value, list(hidden))
    counted = where.to(hidden[0].device)[..., None]
    return [(h.detach() * g * counted).sum(1) for h, g in zip(hidden, gradients, strict=True)]


@contextmanager
def handed_on(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what the units of each block hand on in the forward pass made inside the context.

    Yields:
        For each block, bottom first, [B, T, units], with its graph even where no weight asks for a
        gradient.
    """
    slots, seen = Slots(model), []

    def store(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        first = given[0] if given[0].requires_grad else given[0].detach().requires_grad_()
        seen.append(first)
        return (first, *given[1:])

    outputs = [slots.module(layer, "mlp_out") for layer in range(len(slots))]
    handles = [module.register_forward_pre_hook(store) for module in outputs]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def units_of(model: nn.Module) -> list[int]:
    """Number of units of each block's MLP, bottom first."""
    slots = Slots(model)
    widths = []
    for layer in range(len(slots)):
        module: Any = slots.module(layer, "mlp_out")
        widths.append(int(module.weight.shape[0 if isinstance(module, Conv1D) else 1]))
    return widths


def weights_of_units(model: nn.Module, layer: int, units: Tensor) -> dict[str, Tensor]:
    """Which weights belong to some units of a block: their inputs' rows, their output columns.

    Biases belong to none. Where a family keeps gate and input in one matrix, unit i has two rows.

    Args:
        model: A causal language model, without adapters.
        layer: Block number, negative from the top.
        units: [units] bool.

    Returns:
        Name of each matrix of the MLP -> bool tensor of its shape, that takes no memory.
    """
    slots = Slots(model)
    found = {}
    for slot in ("mlp_in", "mlp_out"):
        for name in slots.names(layer, slot):
            module: Any = slots.model.get_submodule(name)
            weight = module.weight
            side = (slot == "mlp_out") != isinstance(module, Conv1D)  # 1: units are columns
            repeated = units.to(weight.device).repeat(weight.shape[side] // len(units))
            shaped = repeated[None] if side else repeated[:, None]
            found[f"{name}.weight"] = shaped.expand(weight.shape)
    return found
