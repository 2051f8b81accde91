"""Sparse autoencoder: a state as a sum of a few of many directions.

Definition (h a state [d], s the scale of the states):
    z  = TopK( W_e (h - b) + b_e )         the k largest entries, negative ones cut to 0
    h^ = W_d z + b                         columns of W_d of unit length
    train  |h - h^|^2 / s^2 + 1/32 |e - W_d z_dead|^2 / |e|^2,     e = h - h^, held fixed

    z_dead is the code of e by features that have not fired for a while: without it many features
    would never be used, since what never fires gets no gradient.

Reference: Scaling and evaluating sparse autoencoders, 2024.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

PATIENCE = 50
"""Steps without firing after which a feature counts as dead."""

DEAD_WEIGHT = 1 / 32
"""Weight of what the dead features are asked to explain."""


@dataclass(frozen=True, slots=True, eq=False)
class Autoencoder:
    """A trained autoencoder of n features.

    Attributes:
        encoder: W_e, [n, d].
        bias: b_e, [n].
        decoder: The columns of W_d, [n, d].
        centre: b, [d].
        k: Features of a state, at most.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    centre: Tensor
    k: int

    def drive(self, states: Tensor) -> Tensor:
        """What each feature gets before the largest are chosen, [..., d] -> [..., n]."""
        return (states.to(self.centre) - self.centre) @ self.encoder.T + self.bias

    def code(self, drive: Tensor) -> Tensor:
        """The largest k, [..., n] -> [..., n]."""
        return largest(drive, self.k)

    def decode(self, code: Tensor) -> Tensor:
        """States, [..., n] -> [..., d]."""
        return code @ self.decoder + self.centre

    def error(self, states: Tensor) -> float:
        """Share of the variance of states [N, d] that the autoencoder does not give back."""
        states = states.to(self.centre)
        lost = (states - self.decode(self.code(self.drive(states)))).square().sum()
        spread = (states - states.mean(0)).square().sum()
        return float(lost / spread) if spread > 0 else 0.0


def largest(drive: Tensor, k: int) -> Tensor:
    """The k largest entries where they are positive, 0 elsewhere, [..., n] -> [..., n]."""
    values, places = drive.topk(min(k, drive.shape[-1]), dim=-1)
    return torch.zeros_like(drive).scatter(-1, places, values.relu())


def train(
    states: Tensor, *, features: int, k: int, steps: int, batch_size: int, lr: float, seed: int
) -> Autoencoder:
    """Train an autoencoder with Adam.

    Args:
        states: [N, d].
        features: n.
        k: Features of a state, at most.
        steps: Optimiser steps.
        batch_size: States a step, drawn with replacement.
        lr: Learning rate, for states of unit scale.
        seed: Of the first weights and of the draws.
    """
    draw = torch.Generator().manual_seed(seed)
    states = states.detach().float()
    centre = states.mean(0)
    spread = (states - centre).square().mean().sqrt()
    scale = torch.where(spread > 0, spread, 1.0)
    decoder = _unit(torch.randn(features, states.shape[1], generator=draw).to(states.device))
    encoder, bias, centre = decoder.clone(), decoder.new_zeros(features), centre / scale
    weights = [weight.requires_grad_() for weight in (encoder, bias, decoder, centre)]
    optimiser = torch.optim.Adam(weights, lr=lr)
    idle = torch.zeros(features, device=states.device)
    for _ in range(steps):
        drawn = torch.randint(len(states), (batch_size,), generator=draw)
        fired = _step(
            states[drawn.to(states.device)] / scale, weights, k, idle > PATIENCE, optimiser
        )
        idle = torch.where(fired, 0.0, idle + 1)
    with torch.no_grad():
        return Autoencoder(
            encoder.detach(), bias.detach() * scale, decoder.detach(), centre.detach() * scale, k
        )


@torch.enable_grad()
def _step(
    states: Tensor, weights: list[Tensor], k: int, dead: Tensor, optimiser: torch.optim.Optimizer
) -> Tensor:
    """One step; which features fired, [n]."""
    encoder, bias, decoder, centre = weights
    drive = (states - centre) @ encoder.T + bias
    code = largest(drive, k)
    missing = states - code @ decoder - centre
    loss = missing.square().mean()
    if dead.any():
        unused = largest(drive.masked_fill(~dead, 0.0), max(k, states.shape[1] // 2))
        rest = missing.detach()
        share = (rest - unused @ decoder).square().sum() / rest.square().sum().clamp(min=1e-12)
        loss = loss + DEAD_WEIGHT * share
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    decoder.data = _unit(decoder.data)
    return (code > 0).any(0)


def _unit(rows: Tensor) -> Tensor:
    return functional.normalize(rows, dim=1)
