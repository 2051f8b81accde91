"""Which latents are of the topic and which are not, what their directions span, and what leaves it.

Everything is computed in float64 on the processor: there are few directions, and bases of nearly
parallel ones would not stay at right angles in less.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.engine.features import codes
from expunge.engine.steering import wide
from expunge.lm.arch import Slots
from expunge.lm.sae import Autoencoder

Score = Literal["difference", "ratio"]

FLOOR = 1e-8
"""What is added below a ratio."""

RANK = 1e-6
"""A direction that adds less than this, of a unit length, to those before it adds nothing."""


@dataclass(frozen=True, slots=True)
class Latents:
    """The latents of a block by what they fire for.

    Attributes:
        topic: Numbers of those of the topic, the first the most so (J+).
        other: Numbers of those that retain rows use and forget rows do not, likewise (J-).
        total: Sum of the topic's scores, in mean lengths of a state.
    """

    topic: Tensor
    other: Tensor
    total: float


def latents_of(
    coder: Autoencoder, forget: Tensor, retain: Tensor, count: int, score: Score
) -> Latents:
    """Choose latents by their activations.

    Args:
        coder: The autoencoder.
        forget: [N, d], states of forget rows.
        retain: [M, d], states of retain rows.
        count: How many of each, at most.
        score: What ranks them, see the method.
    """
    power = 2 if score == "ratio" else 1
    first, second = (_moment(coder, states, power) for states in (forget, retain))
    scores = first / (second + FLOOR) if score == "ratio" else first - second
    topic = _best(scores, (first > 0) & (scores > 0), count)
    is_other = second > 0
    is_other[topic] = False
    other = _best(-scores, is_other, count)
    size = 1.0
    if score == "difference":  # activations grow from block to block, so they are not compared
        size = float(torch.linalg.vector_norm(torch.cat([forget, retain]), dim=1).mean())
    return Latents(topic, other, float(scores[topic].sum()) / max(size, FLOOR))


def bases(coder: Autoencoder, chosen: Latents) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of what the latents of the topic add to a state, and of what others do.

    Returns:
        U+ [d, r] and U- [d, s], every column of one at right angles to all of the other.
    """
    rows = nn.functional.normalize(coder.decoder.double().cpu(), dim=1)
    topic = basis(rows[chosen.topic.cpu()])
    other = rows[chosen.other.cpu()]
    return topic, basis(other - other @ topic @ topic.T)


def basis(rows: Tensor) -> Tensor:
    """[d, r]: an orthonormal basis of what some rows [m, d] span, of as many as add something."""
    if not len(rows):
        return rows.new_zeros(rows.shape[1], 0)
    found, triangle, _ = qr(rows.numpy().T, mode="economic", pivoting=True)
    kept = np.abs(np.diag(triangle)) >= RANK
    return torch.from_numpy(np.ascontiguousarray(found[:, kept]))


def within(vectors: Tensor, away: Tensor) -> Tensor:
    """Unit vectors [..., d]: what of each lies in a subspace [d, r], made as long as before."""
    inside = vectors.to(away) @ away @ away.T
    return nn.functional.normalize(inside, dim=-1).to(vectors)


def outside(move: Tensor, topic: Tensor) -> Tensor:
    """What of the move of a matrix [out, in] lies outside the subspace of its outputs."""
    basis_of = topic.to(move)
    return move - basis_of @ (basis_of.T @ move)


class Matrices:
    """The MLP output matrices that move, of the model or of its adapter.

    Args:
        model: The model.
        layers: Blocks.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        slots = Slots(model)
        self._modules: dict[int, Any] = {at: slots.module(at, "mlp_out") for at in layers}

    def weights(self) -> dict[int, Tensor]:
        """Block -> a copy of its matrix [out, in], that of the model itself."""
        return {at: _matrix(module).detach().clone() for at, module in self._modules.items()}

    def move(self, layer: int, before: Tensor) -> Tensor:
        """How far a matrix has moved, [out, in] in float32 at least, with its gradient graph.

        Args:
            layer: The block.
            before: Its matrix, see `weights`; only an adapter is looked at where there is one.
        """
        module = self._modules[layer]
        if hasattr(module, "lora_A"):
            factors = zip(module.lora_A.items(), module.lora_B.values(), strict=True)
            parts = [module.scaling[n] * wide(b.weight) @ wide(a.weight) for (n, a), b in factors]
            return torch.stack(parts).sum(0)
        now = _matrix(module)
        return wide(now) - wide(before.to(now))

    def penalty(self, before: dict[int, Tensor], topic: Tensor) -> Tensor:
        """The squared length of what of all moves lies outside, relative to each matrix."""
        found = [
            outside(self.move(at, matrix), topic).square().sum() / wide(matrix).square().sum()
            for at, matrix in before.items()
        ]
        return torch.stack(found).sum()

    @torch.no_grad()
    def share_outside(self, before: dict[int, Tensor], topic: Tensor) -> float:
        """Length of what of all moves lies outside, in lengths of all moves; 0 without any."""
        moves = [self.move(at, matrix) for at, matrix in before.items()]
        whole = torch.stack([move.square().sum() for move in moves]).sum()
        left = torch.stack([outside(move, topic).square().sum() for move in moves]).sum()
        return float((left / whole).sqrt()) if whole > 0 else 0.0


def _matrix(module: Any) -> Tensor:
    """The weight [out, in] of a linear, a ``Conv1D``, or what an adapter is wrapped around."""
    below = getattr(module, "base_layer", module)
    weight: Tensor = below.weight
    return weight.T if isinstance(below, Conv1D) else weight


def _moment(coder: Autoencoder, states: Tensor, power: int) -> Tensor:
    """[n], mean of a power of each latent's activation over states, float64."""
    total = torch.zeros(coder.latents, dtype=torch.float64, device=coder.bias.device)
    for part in codes(coder, states):
        total += part.double().pow(power).sum(0)
    return total / max(1, len(states))


def _best(scores: Tensor, may: Tensor, count: int) -> Tensor:
    """Numbers of the largest scores among those that may be chosen."""
    ranked = scores.masked_fill(~may, -torch.inf).topk(min(count, int(may.sum()))).indices
    return ranked
