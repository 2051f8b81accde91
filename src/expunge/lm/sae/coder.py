"""An autoencoder as such: from states to codes and back."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor

Activation = Literal["topk", "relu", "jumprelu"]

ACTIVATIONS: tuple[str, ...] = get_args(Activation)


@dataclass(frozen=True, slots=True, eq=False)
class Autoencoder:
    """A trained autoencoder of n latents.

    Attributes:
        encoder: W_e, [n, d].
        bias: b_e, [n].
        decoder: W_d, [n, d].
        centre: b, [d].
        k: Latents of a state, at most (topk).
        activation: What becomes of the drive.
        threshold: [n], what the drive must exceed (jumprelu).
        layer: The block whose output it was trained on, where that is known.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    centre: Tensor
    k: int = 0
    activation: Activation = "topk"
    threshold: Tensor | None = None
    layer: int | None = None

    @property
    def width(self) -> int:
        """Channels of a state (d)."""
        return len(self.centre)

    @property
    def latents(self) -> int:
        """Number of latents (n)."""
        return len(self.bias)

    def drive(self, states: Tensor) -> Tensor:
        """What each latent gets before the activation, [..., d] -> [..., n]."""
        return (states.to(self.centre) - self.centre) @ self.encoder.T + self.bias

    def code(self, drive: Tensor) -> Tensor:
        """The activations, [..., n] -> [..., n]."""
        if self.activation == "topk":
            return largest(drive, self.k)
        return drive.relu() if self.threshold is None else _above(drive, self.threshold)

    def graded(self, drive: Tensor) -> Tensor:
        """Activations that have a slope wherever the drive is positive, [..., n] -> [..., n].

        For losses: what is not among the k largest would get no gradient, so here nothing is left
        out; below a threshold the value is 0 and the slope is that of the drive (straight through).
        """
        positive = drive.relu()
        if self.activation != "jumprelu" or self.threshold is None:
            return positive
        return positive + (_above(drive, self.threshold) - positive).detach()

    def encode(self, states: Tensor) -> Tensor:
        """Activations of states, [..., d] -> [..., n]."""
        return self.code(self.drive(states))

    def decode(self, code: Tensor) -> Tensor:
        """States, [..., n] -> [..., d]."""
        return code @ self.decoder + self.centre

    def error(self, states: Tensor) -> float:
        """Share of the variance of states [N, d] that the autoencoder does not give back."""
        states = states.to(self.centre)
        lost = (states - self.decode(self.encode(states))).square().sum()
        spread = (states - states.mean(0)).square().sum()
        return float(lost / spread) if spread > 0 else 0.0

    def only(self, latents: Tensor) -> Self:
        """The autoencoder of some latents alone; what they get stays as it is.

        Args:
            latents: [m], numbers of latents.
        """
        return replace(
            self,
            encoder=self.encoder[latents],
            bias=self.bias[latents],
            decoder=self.decoder[latents],
            threshold=None if self.threshold is None else self.threshold[latents],
        )

    def to(self, *where: Any) -> Self:
        """On another device, or of another precision, as `torch.Tensor.to`."""
        threshold = None if self.threshold is None else self.threshold.to(*where)
        tensors = (self.encoder, self.bias, self.decoder, self.centre)
        encoder, bias, decoder, centre = (tensor.to(*where) for tensor in tensors)
        return replace(
            self, encoder=encoder, bias=bias, decoder=decoder, centre=centre, threshold=threshold
        )


def largest(drive: Tensor, k: int) -> Tensor:
    """The k largest entries where they are positive, 0 elsewhere, [..., n] -> [..., n]."""
    values, places = drive.topk(min(k, drive.shape[-1]), dim=-1)
    return torch.zeros_like(drive).scatter(-1, places, values.relu())


def _above(drive: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(drive > threshold, drive, 0.0).relu()
