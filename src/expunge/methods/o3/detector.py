"""One detector: how much of the adapter a prompt gets, for the rows of one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from expunge.lm.encoders import Ids, Parts, TextEncoder
from expunge.lm.low_rank import LowRank
from expunge.lm.ood import Known, Mixture, clamped, hardened

ORIGIN = 6.0
"""score=monotone: how far below a text like the known ones the origin lies, in each layer, that the
separator parts the texts from: three deviations of the cosine and three of the distance
(INFERRED)."""

COSINE = 1000.0
"""score=official: what a cosine is multiplied by."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What texts like the known ones score, layer by layer; score=monotone counts from there.

    Attributes:
        mean: [2, L], of cosines and of half distances.
        deviation: [2, L].
    """

    mean: Tensor
    deviation: Tensor


def layer_scores(known: Known, vectors: Tensor, scale: Scale | None) -> Tensor:
    """s(x), [B, L].

    Args:
        known: The texts of the request.
        vectors: [B, L, d].
        scale: Makes the score one that grows with both likenesses; None is the code's own, in
            which they work against each other.
    """
    cosine, distance = known.cosines(vectors), known.distances(vectors) / 2
    if scale is None:
        return -COSINE * cosine - distance
    near = (cosine - scale.mean[0]) / scale.deviation[0]
    far = (distance - scale.mean[1]) / scale.deviation[1]
    return near - far + ORIGIN


@dataclass(frozen=True, slots=True)
class Gate:
    """From a score to a weight.

    Attributes:
        kind: ``soft`` or ``official_hard``.
        mixture: Of the scores of known texts and of texts like them.
        both: Whether scores above the middle are as strange as those below. A score that grows
            with likeness has no such side: what lies above counts as the middle.
        low: kind=soft: weights up to this are 0.
        high: kind=soft: weights above are 1.
        floor: Scores below have the weight 0, whatever the mixture says; None: there is no floor.
    """

    kind: str
    mixture: Mixture
    both: bool
    low: float
    high: float
    floor: float | None = None

    def __call__(self, score: Tensor) -> Tensor:
        """The weight of each score."""
        counted = score if self.both else score.clamp(max=self.mixture.centre)
        weight = self.mixture.weight(counted)
        if self.kind == "official_hard":
            weight = hardened(weight)
        else:
            weight = clamped(weight, self.low, self.high)
        return weight if self.floor is None else torch.where(score < self.floor, 0.0, weight)


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """All that is kept of a request to know its prompts by.

    ``known`` holds a vector of every forgotten prompt in every layer: who has the change can tell
    whether a guess was among them.

    Attributes:
        encoder: Reads the prompts.
        beside: The low-rank matrices it was trained with.
        known: The vectors.
        scale: See `layer_scores`.
        weight: [L], w of the separator.
        offset: Its rho.
        gate: Makes weights of scores.
    """

    encoder: TextEncoder
    beside: Parts
    known: Known
    scale: Scale | None
    weight: Tensor
    offset: float
    gate: Gate

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Ids]) -> Tensor:
        """[n], how much of the adapter each prompt gets."""
        return self.gate(self.scores(self.encoder.vectors(prompts, self.beside)))

    def scores(self, vectors: Tensor) -> Tensor:
        """g, [B], of vectors [B, L, d]."""
        return layer_scores(self.known, vectors, self.scale) @ self.weight - self.offset

    @property
    def settings(self) -> dict[str, Any]:
        """What of it is no tensor."""
        gate = self.gate
        return {
            "linears": list(self.beside),
            "scale": next((part.scale for part in self.beside.values()), 1.0),
            "offset": self.offset,
            "gate": gate.kind,
            "mixture": [gate.mixture.mu1, gate.mixture.mu2, gate.mixture.sd],
            "both": gate.both,
            "clamp": [gate.low, gate.high],
            "floor": gate.floor,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What of it is."""
        found = {f"known.{name}": tensor for name, tensor in self.known.tensors().items()}
        for place, part in enumerate(self.beside.values()):
            found |= {f"beside.{place}.a": part.a, f"beside.{place}.b": part.b}
        if self.scale is not None:
            found |= {"scale.mean": self.scale.mean, "scale.deviation": self.scale.deviation}
        return found | {"weight": self.weight}

    @classmethod
    def read(
        cls, encoder: TextEncoder, told: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Self:
        """What `settings` and `tensors` gave.

        Raises:
            LookupError: When something is missing.
            ValueError: When it is made for another encoder.
        """
        here = {name: tensor.to(encoder.device) for name, tensor in tensors.items()}
        beside = {}
        for place, name in enumerate(told["linears"]):
            a, b = here[f"beside.{place}.a"], here[f"beside.{place}.b"]
            beside[name] = LowRank(a, b, float(told["scale"])).requires_grad_(False)
            beside[name].check_fits(encoder.linear(name))
        known = {name[6:]: tensor for name, tensor in here.items() if name.startswith("known.")}
        scale = None
        if "scale.mean" in here:
            scale = Scale(here["scale.mean"], here["scale.deviation"])
        mixture = Mixture(*map(float, told["mixture"]))
        low, high = map(float, told["clamp"])
        floor = None if told["floor"] is None else float(told["floor"])
        gate = Gate(told["gate"], mixture, bool(told["both"]), low, high, floor)
        return cls(
            encoder, beside, Known.read(known, encoder.device), scale, here["weight"],
            float(told["offset"]), gate,
        )  # fmt: skip
