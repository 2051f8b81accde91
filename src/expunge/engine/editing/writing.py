"""Matrices that turn keys into values, and putting them into the weights."""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.lm.arch import Slots

RIDGE = 1e-4
"""Share of the mean eigenvalue that is added to a second moment before it is inverted."""


def ridged(moment: Tensor) -> Tensor:
    """A second moment [d, d] that can be inverted, also where few texts were read."""
    mean = moment.diagonal().mean()
    return moment + RIDGE * mean * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)


def rank_one(moment: Tensor, key: Tensor, bare: Tensor, missing: Tensor) -> Tensor:
    """The change by which one key gets one value and other keys the least.

    Args:
        moment: C [d_in, d_in], float64.
        key: [d_in], averaged over prompts; it gives the direction.
        bare: [d_in], the key that gets the value exactly.
        missing: [d_out], what the output lacks there.

    Returns:
        [d_out, d_in]: ``missing u^T / (u . bare)`` with ``u = C^-1 key``, float64.
    """
    u = torch.linalg.solve(moment, key.double())
    u = u / u.norm()
    change: Tensor = torch.outer(missing.double(), u) / (u @ bare.double())
    return change


def least_squares(kept: Tensor, keys: Tensor, missing: Tensor) -> Tensor:
    """``T K^T (kept + K K^T)^-1``.

    Args:
        kept: [d_in, d_in], lambda C.
        keys: [n, d_in].
        missing: [n, d_out].

    Returns:
        [d_out, d_in].
    """
    solved: Tensor = torch.linalg.solve(kept + keys.T @ keys, keys.T @ missing)
    return solved.T


@torch.no_grad()
def write(model: nn.Module, layer: int, change: Tensor) -> None:
    """Add a change [d_out, d_in] to the output matrix of an MLP, rounded once.

    Args:
        model: The model.
        layer: The block.
        change: In the layout of ``torch.nn.Linear``; a transposed matrix gets it transposed.
    """
    module = Slots(model).module(layer, "mlp_out")
    weight = module.weight
    assert isinstance(weight, Tensor)  # noqa: S101
    delta = change.to(weight.device, torch.float64)
    laid = delta.T if isinstance(module, Conv1D) else delta
    weight.copy_((weight.double() + laid).to(weight.dtype))
