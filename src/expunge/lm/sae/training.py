"""Training a small autoencoder.

Definition (x = (h - mu) / s, the states with mean 0 and a mean length of sqrt(d)):
    L = mean |x - x^|^2 + 1/32 mean |e - z_dead W_d|^2          (topk),   e = x - x^, held fixed
    L = mean |x - x^|^2 + 1/32 mean |e - z_dead W_d|^2 + sparsity * mean |z|_1          (relu)

    z_dead are the drives of those latents that have not fired for 300 steps, the 32 largest (d / 2
    in wider models): what never fires gets no gradient otherwise. Rows of W_d have unit length,
    W_e starts as W_d. After training, mu and s are folded into the weights.

Reference: Scaling and evaluating sparse autoencoders, 2024.
"""

import torch
from torch import Tensor
from torch.nn import functional

from expunge.lm.sae.coder import Activation, Autoencoder

PATIENCE = 300
"""Steps without firing after which a latent counts as dead."""

DEAD_WEIGHT = 1 / 32
"""Weight of what the dead latents are asked to explain."""

REVIVED = 32
"""Dead latents that explain it, at least; half of the width where that is more."""


def train(
    states: Tensor,
    *,
    features: int,
    k: int = 8,
    steps: int = 1500,
    batch_size: int = 1024,
    lr: float = 1e-3,
    seed: int,
    activation: Activation = "topk",
    sparsity: float = 0.0,
    layer: int | None = None,
) -> Autoencoder:
    """Train an autoencoder with Adam.

    Args:
        states: [N, d], of any precision.
        features: Number of latents (n).
        k: Latents of a state, at most (topk).
        steps: Optimiser steps.
        batch_size: States a step, drawn with replacement; all of them where there are no more.
        lr: Learning rate, for states of unit scale.
        seed: Of the first weights and of the draws.
        activation: ``topk`` or ``relu``.
        sparsity: Weight of the length of the code, as a sum of its entries (relu).
        layer: The block they come from, for the record.

    Raises:
        ValueError: For another activation.
    """
    if activation not in ("topk", "relu"):
        raise ValueError(f"cannot train {activation!r}, only topk and relu")
    draw = torch.Generator().manual_seed(seed)
    states = states.detach().float()
    mean = states.mean(0)
    scale = torch.linalg.vector_norm(states - mean, dim=1).mean() / states.shape[1] ** 0.5
    scale = torch.where(scale > 0, scale, 1.0)
    decoder = unit(torch.randn(features, states.shape[1], generator=draw).to(states.device))
    coder = Autoencoder(
        decoder.clone(), decoder.new_zeros(features), decoder, torch.zeros_like(mean),
        k if activation == "topk" else 0, activation, layer=layer,
    )  # fmt: skip
    weights = [coder.encoder, coder.bias, coder.decoder, coder.centre]
    optimiser = torch.optim.Adam([w.requires_grad_() for w in weights], lr=lr)
    idle = torch.zeros(features, device=states.device)
    for _ in range(steps):
        drawn = states
        if len(states) > batch_size:
            chosen = torch.randint(len(states), (batch_size,), generator=draw)
            drawn = states[chosen.to(states.device)]
        fired = step((drawn - mean) / scale, coder, idle >= PATIENCE, optimiser, sparsity)
        idle = torch.where(fired, 0.0, idle + 1)
    return Autoencoder(
        coder.encoder.detach(), coder.bias.detach() * scale, coder.decoder.detach(),
        mean + coder.centre.detach() * scale, coder.k, activation, layer=layer,
    )  # fmt: skip


@torch.enable_grad()
def step(
    states: Tensor,
    coder: Autoencoder,
    dead: Tensor,
    optimiser: torch.optim.Optimizer,
    sparsity: float = 0.0,
) -> Tensor:
    """One step of training.

    Args:
        states: [B, d].
        coder: Its weights are moved.
        dead: [n] bool, which latents count as dead.
        optimiser: Of its weights.
        sparsity: See `train`.

    Returns:
        [n] bool, which latents fired.
    """
    drive = coder.drive(states)
    code = coder.code(drive)
    missing = states - coder.decode(code)
    loss = missing.square().sum(-1).mean()
    if sparsity:
        loss = loss + sparsity * code.sum(-1).mean()
    if bool(dead.any()):
        count = max(REVIVED, coder.width // 2)
        rest = missing.detach() - revived(drive, dead, count) @ coder.decoder
        loss = loss + DEAD_WEIGHT * rest.square().sum(-1).mean()
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    across(coder.decoder)
    optimiser.step()
    coder.decoder.data = unit(coder.decoder.data)
    return (code > 0).any(0)


def revived(drive: Tensor, dead: Tensor, count: int) -> Tensor:
    """The drives of the dead latents that get most, 0 elsewhere, [B, n] -> [B, n]."""
    count = min(count, int(dead.sum()))
    values, places = drive.masked_fill(~dead, -torch.inf).topk(count, dim=-1)
    return torch.zeros_like(drive).scatter(-1, places, values)


@torch.no_grad()
def across(rows: Tensor) -> None:
    """Take what points along each row of unit length out of its gradient."""
    if rows.grad is not None:
        rows.grad -= (rows.grad * rows).sum(1, keepdim=True) * rows


def unit(rows: Tensor) -> Tensor:
    """Rows of unit length."""
    return functional.normalize(rows, dim=1)
