"""What tells known entities from unknown ones in the latents of a block, and in its states."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor

from expunge.data.encode import by_length
from expunge.engine.datasets import Datasets
from expunge.engine.features import BATCH
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import evaluating
from expunge.lm.sae import Autoencoder
from expunge.requests.rows import Turn

FloatArray = npt.NDArray[np.float64]

PREFIX = "sae-unknown."

SMALLEST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Recognition:
    """The latents that tell known entities from unknown ones.

    Attributes:
        coder: The autoencoder of these latents alone.
        known: [n], their mean at known entities.
        unknown: [n], their mean at unknown ones.
    """

    coder: Autoencoder
    known: Tensor
    unknown: Tensor

    @classmethod
    def plain(cls, width: int, like: Tensor) -> "Recognition":
        """Where nothing was prepared: the channels stand for latents."""
        one, zero = torch.eye(width), torch.zeros(width)
        return cls(Autoencoder(one, zero, one, zero, activation="relu"), zero + 1, zero).to(like)

    def to(self, like: Tensor) -> "Recognition":
        """On the device and in the precision of another tensor."""
        known, unknown = (tensor.to(like) for tensor in (self.known, self.unknown))
        return Recognition(self.coder.to(like), known, unknown)

    def loss(self, states: Tensor, margin: float, eta: float) -> Tensor:
        """[B]: pull towards the unknown and push away from the known, of states [B, d]."""
        code = self.coder.graded(self.coder.drive(states))
        apart = (self.known - self.unknown).square().sum().clamp(min=SMALLEST)
        near, far = ((code - mean).square().sum(-1) / apart for mean in (self.unknown, self.known))
        return near + eta * (margin - (far - near)).relu()

    def kept(self) -> dict[str, Tensor]:
        """As tensors of a method's state."""
        coder = self.coder
        found = {
            "encoder": coder.encoder, "bias": coder.bias, "decoder": coder.decoder,
            "centre": coder.centre, "known": self.known, "unknown": self.unknown,
        }  # fmt: skip
        if coder.threshold is not None:
            found["threshold"] = coder.threshold
        return {PREFIX + name: tensor.contiguous() for name, tensor in found.items()}

    @classmethod
    def of(cls, tensors: Any) -> "Recognition | None":
        """From the tensors of a method's state; None where it has none."""
        found = {n.removeprefix(PREFIX): t for n, t in tensors.items() if n.startswith(PREFIX)}
        if "known" not in found:
            return None
        threshold = found.get("threshold")
        coder = Autoencoder(
            found["encoder"], found["bias"], found["decoder"], found["centre"],
            activation="relu" if threshold is None else "jumprelu", threshold=threshold,
        )  # fmt: skip
        return cls(coder, found["known"], found["unknown"])


def told_apart(coder: Autoencoder, known: Tensor, unknown: Tensor, count: int) -> Recognition:
    """Choose the latents whose mean differs most, in standard deviations within both kinds.

    What of a top-k code a loss can move is the drive before the largest are chosen, so that is what
    is compared here as well.

    Args:
        coder: The autoencoder.
        known: [N, d], states at known entities.
        unknown: [M, d], states at unknown ones.
        count: How many latents, at most.
    """
    first, second = (coder.graded(coder.drive(states)).double() for states in (known, unknown))
    apart = first.mean(0) - second.mean(0)
    spread = ((first.var(0, correction=0) + second.var(0, correction=0)) / 2).sqrt()
    scores = apart.abs() / (spread + spread.mean().clamp(min=SMALLEST) * 1e-3)
    ranked = scores.topk(min(count, len(scores)))
    chosen = ranked.indices[ranked.values > 0]
    some = coder.only(chosen)
    if coder.activation == "topk":
        some = replace(some, activation="relu", k=0)
    means = (each.mean(0)[chosen].to(coder.bias) for each in (first, second))
    return Recognition(some, *means)


def entity_places(view: View) -> Tensor:
    """[B, T] bool: the last token of each row's name, from which the first supervised is told."""
    return view.mask & (view.mask.cumsum(1) == 1)


@torch.no_grad()
def entity_states(task: Task, turns: Sequence[Turn], layer: int) -> Tensor:
    """[n, d]: a block's output at the last token of the name, in the order of the turns."""
    datasets = Datasets(task, device=str(task.model.device))
    items = [task.encoder.encode(turn) for turn in turns]
    found: dict[int, Tensor] = {}
    with evaluating(task.model):
        for chosen in by_length([len(item.ids) for item in items], BATCH):
            view = View(datasets.batch([items[at] for at in chosen]), Live(task.model))
            states = view.hidden(layer)[entity_places(view)]
            found.update(zip(chosen, states, strict=True))
    return torch.stack([found[at] for at in range(len(items))])


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A linear probe: how likely a state is that of a known entity.

    Attributes:
        weights: [d + 1], the constant last.
        mean: [d].
        spread: [d].
    """

    weights: FloatArray
    mean: FloatArray
    spread: FloatArray

    def __call__(self, states: Tensor) -> FloatArray:
        """[n], probabilities for states [n, d]."""
        inputs = (states.double().cpu().numpy() - self.mean) / self.spread
        found: FloatArray = 1 / (1 + np.exp(-(inputs @ self.weights[:-1] + self.weights[-1])))
        return found

    def kept(self) -> Tensor:
        """[3, d + 1], as a tensor of a method's state."""
        rows = self.weights, np.append(self.mean, 0.0), np.append(self.spread, 1.0)
        return torch.from_numpy(np.stack(rows))

    @classmethod
    def of(cls, kept: Tensor) -> "Probe":
        """From that tensor."""
        weights, mean, spread = kept.cpu().numpy()
        return cls(weights, mean[:-1], spread[:-1])


def probe(known: Tensor, unknown: Tensor, penalty: float = 1.0) -> Probe:
    """Fit a logistic regression on standardised states, both kinds weighing the same.

    Args:
        known: [N, d].
        unknown: [M, d].
        penalty: Weight of the squared length of the weights.
    """
    both = torch.cat([known, unknown]).double().cpu().numpy()
    spread = both.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    inputs = np.hstack([(both - both.mean(0)) / spread, np.ones((len(both), 1))])
    signs = np.repeat([1.0, -1.0], [len(known), len(unknown)])
    shares = np.repeat([0.5 / len(known), 0.5 / len(unknown)], [len(known), len(unknown)])
    shares *= len(both)
    held = np.append(np.ones(both.shape[1]), 0.0)

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        scores = signs * (inputs @ weights)
        value = float((shares * np.logaddexp(0, -scores)).sum())
        slope = -(shares * signs / (1 + np.exp(np.clip(scores, -500, 500)))) @ inputs
        length = penalty / 2 * float((held * weights**2).sum())
        return value + length, slope + penalty * held * weights

    found = minimize(objective, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B")
    return Probe(np.asarray(found.x, dtype=np.float64), both.mean(0), spread)
