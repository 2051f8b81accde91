"""The value that makes a prompt lead to what is to be said.

Objective (d: what is added to the output of one part of one block, at the prompt's place):
    d* = argmin  mean_prompts -logp_mean( target )  +  kl_factor * KL( p || p0 ) at the drift prompt
                 + weight_decay * ||d|| / ||v0||^2          with ||d|| <= clamp * ||v0||
    v* = v0 + d*

    v0 is the value at the place of the bare prompt, p0 what the model says behind the drift prompt
    while d is 0. Adam from d = 0; after each step d is cut to its longest. An association whose
    objective is below `ENOUGH` stays where it is.

Every association is searched for by itself, many of them in one batch: objectives are summed, and
Adam goes by single numbers.

Reference: Locating and Editing Factual Associations in GPT, 2022; Mass-Editing Memory in a
Transformer, 2022.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association, Prompt
from expunge.engine.sources import Live
from expunge.engine.view import Editing, View
from expunge.lm.hooks import forward_within, intervene
from expunge.lm.scoring import at_least_float32

ENOUGH = 0.05
"""Nats at which a value is good enough."""

BATCH = 64
"""Prompts of one forward pass."""

Goal = Callable[[View, Tensor, int], Tensor]
"""(prompts with the value added, the association [B] of each, how many) -> [n], made small."""


def unlikely(view: View, owner: Tensor, count: int) -> Tensor:
    """[n]: mean over an association's prompts of the token mean of its target's NLL, nats."""
    return mean_over(-view.logp_mean, owner, count)


def mean_over(numbers: Tensor, owner: Tensor, count: int) -> Tensor:
    """[count]: the mean of those numbers [B] that belong to each owner."""
    sums = numbers.new_zeros(count).index_add(0, owner, numbers)
    return sums / owner.bincount(minlength=count).clamp(min=1)


@dataclass(frozen=True, slots=True)
class Search:
    """How values are looked for.

    Attributes:
        layer: Of the part whose output is changed, negative from the top.
        slot: The part: ``mlp`` or ``block``.
        steps: Most steps of Adam.
        lr: Its rate.
        weight_decay: Weight of the length of what is added.
        kl_factor: Weight of the divergence behind the drift prompt.
        clamp: Longest value to add, in lengths of the value that is there.
        goal: What is made small beside drift and length.
        enough: Objective at which an association is done, nats, or None: all steps are made.
    """

    layer: int
    slot: str
    steps: int
    lr: float
    weight_decay: float
    kl_factor: float
    clamp: float
    goal: Goal = unlikely
    enough: float | None = ENOUGH


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for n associations.

    Attributes:
        values: [n, d], the values wanted, in at least float32.
        before: [n, d], the values of the bare prompts.
        loss: [n], the objective where the search ended, nats.
    """

    values: Tensor
    before: Tensor
    loss: Tensor

    @classmethod
    def joined(cls, parts: "Sequence[Found]") -> "Found":
        """Several as one."""
        fields = ("values", "before", "loss")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def wanted(
    model: nn.Module, datasets: Datasets, asked: Sequence[Association], search: Search
) -> Found:
    """The values that lead each association to its target.

    Args:
        model: The model as it now is; its weights are not moved.
        datasets: Makes batches.
        asked: The associations.
        search: How to look.
    """
    searched = (_Searched(model, datasets, part, search) for part in _parts(asked))
    return Found.joined([one.found() for one in searched])


def values_at(
    model: nn.Module, datasets: Datasets, prompts: Sequence[Prompt], layer: int, slot: str
) -> Tensor:
    """[n, d]: what a part of a block puts out at the place of each prompt."""
    return _read(model, datasets, prompts, layer, slot, entering=False)


def entering_at(
    model: nn.Module, datasets: Datasets, prompts: Sequence[Prompt], layer: int, slot: str
) -> Tensor:
    """[n, d]: what goes into a part of a block at the place of each prompt."""
    return _read(model, datasets, prompts, layer, slot, entering=True)


@torch.no_grad()
def _read(
    model: nn.Module,
    datasets: Datasets,
    prompts: Sequence[Prompt],
    layer: int,
    slot: str,
    *,
    entering: bool,
) -> Tensor:
    found = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        inputs = datasets.batch([prompt.item for prompt in part])
        states = forward_within(
            model, layer, slot, entering=entering, input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask, use_cache=False,
        )  # fmt: skip
        places = torch.tensor([prompt.at for prompt in part], device=states.device)
        found.append(at_least_float32(states[torch.arange(len(part)), places]))
    return torch.cat(found)


def _parts(asked: Sequence[Association]) -> Iterator[list[Association]]:
    part: list[Association] = []
    for one in asked:
        if part and sum(len(other.prompts) for other in [*part, one]) > BATCH:
            yield part
            part = []
        part.append(one)
    if part:
        yield part


class _Searched:
    """Some associations that are searched for in one batch."""

    def __init__(
        self, model: nn.Module, datasets: Datasets, asked: Sequence[Association], search: Search
    ) -> None:
        self.search, self.count = search, len(asked)
        bare = [one.bare for one in asked]
        self.before = values_at(model, datasets, bare, search.layer, search.slot)
        self.delta = torch.zeros_like(self.before, requires_grad=True)
        prompts = [(at, prompt) for at, one in enumerate(asked) for prompt in one.prompts]
        drifts = [(at, one.drift) for at, one in enumerate(asked) if one.drift is not None]
        self.said = _Shifted(model, datasets, prompts, search, self.delta)
        self.watched = _Shifted(model, datasets, drifts, search, self.delta) if drifts else None

    def found(self) -> Found:
        """Adam until every association is done, or to the last step."""
        search, delta = self.search, self.delta
        optimiser = torch.optim.Adam([delta], lr=search.lr)
        still = None if self.watched is None else self.watched.told().detach()
        done = torch.zeros(self.count, dtype=torch.bool, device=delta.device)
        loss = delta.new_full((self.count,), torch.inf)
        for step in range(search.steps + 1):
            with torch.enable_grad():
                now = self.objective(still)
            loss = torch.where(done, loss, now.detach())
            done |= loss < (-torch.inf if search.enough is None else search.enough)
            if step == search.steps or bool(done.all()):
                break
            (delta.grad,) = torch.autograd.grad(now.sum(), delta)
            kept = delta.detach().clone()
            optimiser.step()
            with torch.no_grad():
                delta.copy_(torch.where(done[:, None], kept, self.cut(delta)))
        return Found(self.before + delta.detach(), self.before, loss)

    def objective(self, still: Tensor | None) -> Tensor:
        """[n]: the goal, how far the drift prompt has moved, and how long the addition is."""
        length = self.before.norm(dim=1)
        stay = self.search.weight_decay * self.delta.norm(dim=1) / length.square()
        total: Tensor = self.search.goal(self.said.view(), self.said.owner, self.count) + stay
        if self.watched is None or still is None:
            return total
        told = self.watched.told()
        apart: Tensor = self.search.kl_factor * (told.exp() * (told - still)).sum(-1)
        moved: Tensor = total.index_add(0, self.watched.owner, apart)
        return moved

    def cut(self, delta: Tensor) -> Tensor:
        """[n, d]: additions that are too long, shortened."""
        longest = self.search.clamp * self.before.norm(dim=1, keepdim=True)
        size = delta.norm(dim=1, keepdim=True).clamp(min=1e-30)
        shortened: Tensor = delta * (longest / size).clamp(max=1.0)
        return shortened


class _Shifted:
    """Prompts under a model to whose output the value of their association is added."""

    def __init__(
        self,
        model: nn.Module,
        datasets: Datasets,
        prompts: Sequence[tuple[int, Prompt]],
        search: Search,
        delta: Tensor,
    ) -> None:
        self._inputs = datasets.batch([prompt.item for _, prompt in prompts])
        self._source = Live(model)
        self.owner = torch.tensor([owner for owner, _ in prompts], device=delta.device)
        at = torch.tensor([prompt.at for _, prompt in prompts], device=delta.device)
        self._edit = adding(search.layer, search.slot, at, lambda: delta[self.owner])

    def view(self) -> View:
        """The prompts with the value as it now is."""
        return View(self._inputs, self._source).changed(self._edit)

    def told(self) -> Tensor:
        """[N, V]: log-probabilities at the supervised tokens."""
        logp: Tensor = self.view().logits.log_softmax(-1)
        return logp


def adding(layer: int, slot: str, at: Tensor, values: Callable[[], Tensor]) -> Editing:
    """Adds values to the output of a part of a block, one in each row of a batch.

    Args:
        layer: The block, negative from the top.
        slot: The part.
        at: [B], the place in each row.
        values: Gives [B, d].
    """

    @contextmanager
    def edit(model: nn.Module) -> Iterator[Any]:
        def shift(hidden: Tensor) -> Tensor:
            rows = torch.arange(len(at), device=hidden.device)
            return hidden.index_put((rows, at), values().to(hidden.dtype), accumulate=True)

        with intervene(model, layer, shift, slot):
            yield

    return edit
