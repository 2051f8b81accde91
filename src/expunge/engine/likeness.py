"""How like the prompts of a request a prompt is: scores of its hidden states, and a weight.

Definition (e_i: token mean of hidden state i; j over the known prompts; see `expunge.lm.ood`):
    s_i = z( max_j cos( e_i(x), e_i(x_j) ) ) - z( distance_i(x) / 2 )         kind=monotone
        = -1000 max_j cos( e_i(x), e_i(x_j) ) - distance_i(x) / 2             kind=official
    g   = one-class SVM (linear, nu) of ( s_1 .. s_L )
    w   = sigmoid( 10 q(g) - 2 ),    q of the mixture of the scores of known prompts and of prompts
          that are held out

What is fitted are arrays of numbers, and nothing else is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from expunge.core.rng import generator
from expunge.lm.ood import Array, Known, Mixture, clamped, hardened, separated

ORIGIN = 6.0
"""kind=monotone: how far below a text like the known ones the origin lies, in each layer, that the
separator parts the texts from: three deviations of the cosine and three of the distance
(INFERRED)."""

COSINE = 1000.0
"""kind=official: what a cosine is multiplied by."""

FOLDS = 5
"""Parts of the rows, each of which is scored by the others (INFERRED)."""

LEAST_COSINE, LEAST_SCORE = 1e-3, 0.1
"""Smallest deviations of a cosine and, in deviations of the layers, of a score; that of a half
distance is what normal vectors have. So the only text of a request is known again where the last
bits differ (INFERRED)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What texts like the known ones score, layer by layer; kind=monotone counts from there.

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
class Likeness:
    """All that is kept of some prompts to know their like by.

    ``known`` holds a vector of every prompt in every layer: who has it can tell whether a guess was
    among them.

    Attributes:
        known: The vectors.
        scale: See `layer_scores`.
        weight: [L], w of the separator.
        offset: Its rho.
        gate: Makes weights of scores.
    """

    known: Known
    scale: Scale | None
    weight: Tensor
    offset: float
    gate: Gate

    def __call__(self, vectors: Tensor) -> Tensor:
        """[B], the weights of prompts with the vectors [B, L, d]."""
        return self.gate(self.scores(vectors))

    def scores(self, vectors: Tensor) -> Tensor:
        """g, [B], of vectors [B, L, d]."""
        return layer_scores(self.known, vectors, self.scale) @ self.weight - self.offset

    @property
    def settings(self) -> dict[str, Any]:
        """What of it is no tensor."""
        gate = self.gate
        return {
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
        if self.scale is not None:
            found |= {"scale.mean": self.scale.mean, "scale.deviation": self.scale.deviation}
        return found | {"weight": self.weight}

    @classmethod
    def read(
        cls, told: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device
    ) -> Self:
        """What `settings` and `tensors` gave, on a device.

        Raises:
            LookupError: When something is missing.
        """
        known = {name[6:]: one for name, one in tensors.items() if name.startswith("known.")}
        scale = None
        if "scale.mean" in tensors:
            scale = Scale(*(tensors[f"scale.{one}"].to(device) for one in ("mean", "deviation")))
        low, high = map(float, told["clamp"])
        floor = None if told["floor"] is None else float(told["floor"])
        mixture = Mixture(*map(float, told["mixture"]))
        gate = Gate(told["gate"], mixture, bool(told["both"]), low, high, floor)
        weight = tensors["weight"].to(device)
        return cls(Known.read(known, device), scale, weight, float(told["offset"]), gate)


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How a likeness is fitted.

    Attributes:
        score: ``monotone`` or ``official``.
        nu: Share of the prompts that the separator leaves behind.
        gate: ``soft`` or ``official_hard``.
        low: gate=soft: weights up to this are 0.
        high: gate=soft: weights above are 1.
    """

    score: str
    nu: float
    gate: str
    low: float
    high: float


def fitted(
    vectors: Tensor,
    rows: Sequence[int],
    how: How,
    seed: int,
    strangers: Tensor | None = None,
) -> Likeness:
    """The likeness to some prompts.

    Args:
        vectors: [n, L, d], of the prompts.
        rows: The row of each prompt: wordings of one row are held out together.
        how: How it is fitted.
        seed: Of the run.
        strangers: [m, L, d], of prompts about others in the same words, which must not be taken for
            the known ones: they set a floor. Not with score=official, which does not grow with
            likeness.
    """
    known, folds = Known.of(vectors), held_out(rows, seed)
    official = how.score == "official"
    scale = None if official else scale_of(vectors, folds)
    outside = from_outside(vectors, folds, scale)
    inside = layer_scores(known, vectors, scale)
    found = separated((inside if official else outside).double().cpu().numpy(), how.nu)
    weight = torch.from_numpy(found.weight).float().to(vectors.device)
    mine, others = (_scored(scores, weight, found.offset) for scores in (inside, outside))
    least = LEAST_SCORE * max(float(weight.norm()), 1.0)
    mixture = Mixture(float(mine.mean()), float(others.mean()), max(float(others.std()), least))
    floor = None
    if strangers is not None and not official:
        theirs = _scored(layer_scores(known, strangers, scale), weight, found.offset)
        floor = floor_of(mine, theirs)
    gate = Gate(how.gate, mixture, official, how.low, how.high, floor)
    return Likeness(known, scale, weight, found.offset, gate)


def floor_of(mine: Array, theirs: Array) -> float | None:
    """Halfway between the lowest of some scores and the highest of others; None where they mix."""
    least, most = float(mine.min()), float(theirs.max())
    return (least + most) / 2 if most < least else None


def _scored(scores: Tensor, weight: Tensor, offset: float) -> Array:
    """The score of each row of layer scores [n, L]."""
    return (scores @ weight - offset).double().cpu().numpy()


def held_out(rows: Sequence[int], seed: int) -> list[list[int]]:
    """Places of the texts in folds; texts of one row stand together, unless there is only one.

    Args:
        rows: The row of each text.
        seed: Of the run.
    """
    names = list(rows) if len(set(rows)) > 1 else list(range(len(rows)))
    distinct = list(dict.fromkeys(names))
    order = generator(seed, "o3", "folds").permutation(len(distinct))
    fold = {distinct[int(at)]: place % FOLDS for place, at in enumerate(order)}
    return [
        found for k in range(FOLDS) if (found := [i for i, n in enumerate(names) if fold[n] == k])
    ]


def _outside(vectors: Tensor, folds: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Known]]:
    """Each fold, and what is known of the texts that are not in it; of all where nothing is."""
    for fold in folds:
        others = [at for at in range(len(vectors)) if at not in set(fold)]
        yield list(fold), Known.of(vectors[others] if others else vectors)


def scale_of(vectors: Tensor, folds: Sequence[Sequence[int]]) -> Scale:
    """What texts score that are like the known ones and none of them."""
    found = vectors.new_zeros(2, len(vectors), vectors.shape[1])
    for fold, known in _outside(vectors, folds):
        mine = vectors[fold]
        found[:, fold] = torch.stack([known.cosines(mine), known.distances(mine) / 2])
    least = found.new_tensor([LEAST_COSINE, (vectors.shape[-1] / 2) ** 0.5])
    deviation = torch.maximum(found.std(1, correction=0), least[:, None])
    return Scale(found.mean(1), deviation)


def from_outside(vectors: Tensor, folds: Sequence[Sequence[int]], scale: Scale | None) -> Tensor:
    """[n, L], layer scores of each text by those of the other folds."""
    found = vectors.new_zeros(vectors.shape[:2])
    for fold, known in _outside(vectors, folds):
        found[fold] = layer_scores(known, vectors[fold], scale)
    return found
