"""The gradient of one optimiser step, exact for every cut into micro-batches and processes."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.mean import Mean
from expunge.engine.method import GradientMethod
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.sample import Draw, Sampler
from expunge.engine.sources import Counting, Joint
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import Source, View
from expunge.engine.world import World

TERMS = ("forget", "retain")
"""The terms of every method; it may have others beside them, and wrappers may add some."""

PAUSED = "engine.paused"


class StepGradient:
    """Leaves the gradient of one optimiser step on the model.

    The step's rows are cut into ``accumulation`` micro-batches. Each term's numerator is divided
    by the denominator of the whole step over all processes, so the cut changes nothing.
    """

    def __init__(
        self,
        method: GradientMethod,
        task: Task,
        datasets: Datasets,
        sampler: Sampler,
        anchor: Callable[[str], Source] | None,
        *,
        steps: int,
        world: World | None = None,
    ) -> None:
        self.method, self.task, self.datasets = method, task, datasets
        self.sampler, self._anchor, self._steps = sampler, anchor, steps
        self.world = world or World()
        self.latest: Gradients | None = None
        """What the latest step combined, for a method that redirects it; else None."""
        self._reported: dict[str, Mean] = {}
        if self.world.sharded:
            self._refuse_uneven_shares()
        self._terms = tuple(method.terms)

    @property
    def paused(self) -> bool:
        """Whether steps take the retain term alone; kept in the task's state, so it resumes."""
        return bool(self.task.state.get(PAUSED, False))

    @paused.setter
    def paused(self, value: bool) -> None:
        self.task.state[PAUSED] = value

    @cached_property
    def keeps(self) -> bool:
        """Whether the method has a term of its own that keeps the rest in place."""
        chunks = self._chunks(self.sampler.draw(0))
        return "retain" in chunks[0] and self._term("retain", self._counting(chunks[0])) is not None

    @cached_property
    def _joined(self) -> frozenset[str]:
        """Views whose own logits the terms look at; only they share a forward pass."""
        if self.world.sharded:
            return frozenset()  # which rows share a pass must not depend on a process's rows
        views = self._chunks(self.sampler.draw(0), resting=False)[0]
        asked: list[Inputs] = []
        self._trial(views, asked)
        return frozenset(n for n, inputs in views.items() if any(a is inputs for a in asked))

    @cached_property
    def _told(self) -> list[str]:
        """Names of what the terms report."""
        return sorted(self._trial(self._chunks(self.sampler.draw(0), resting=False)[0]).reported)

    def _trial(self, views: dict[str, Inputs], asked: list[Inputs] | None = None) -> Step:
        """A counting step on which all terms were taken, whether or not one of them rests."""
        step = self._counting(views, asked)
        for term in self.method.terms.values():
            term(step, self.method.params)
        return step

    def __call__(
        self, model: nn.Module, index: int, backward: Callable[[Tensor], Any]
    ) -> dict[str, float]:
        """Run step ``index``; the value of each term over the whole step, and what they report."""
        draw = self.sampler.draw(index).share(self.world.rank, self.world.size)
        chunks = self._chunks(draw)
        totals = self._denominators(model, draw, chunks)
        self._reported, self.latest = {}, None
        if self.method.combine is None or self.paused:
            values = self._joint(model, draw, chunks, totals, backward)
        else:
            values = self._separate(model, draw, chunks, totals, backward)
        self._reduce(model)
        return values | self._reports()

    def _chunks(self, draw: Draw, *, resting: bool = True) -> list[dict[str, Inputs]]:
        """The views of each micro-batch; without those of a resting term, if ``resting``."""
        count = self.method.params.accumulation
        rests = self.datasets.forgetting if resting and self.paused else frozenset()
        made = []
        for part in range(count):
            piece = draw.chunk(part, count)
            names = [name for name in self.method.views if name not in rests]
            views = {name: self.datasets.inputs(name, piece) for name in names}
            present = {name: inputs for name, inputs in views.items() if inputs is not None}
            if present:
                made.append(present)
        return made

    def _refuse_uneven_shares(self) -> None:
        """Processes that hold shards of one model must make the same forward passes.

        Raises:
            ExpungeError: ``E-USE-006`` when one would have fewer micro-batches or views to run.
        """
        draw, size = self.sampler.draw(0), self.world.size
        chunks = (self._chunks(draw.share(rank, size), resting=False) for rank in range(size))
        shapes = [[sorted(views) for views in share] for share in chunks]
        if any(shape != shapes[0] for shape in shapes):
            raise ExpungeError(
                "E-USE-006",
                f"The rows of a step do not fill the micro-batches of {size} processes that hold "
                "shards of the model.",
                "as many micro-batches for every process.",
                "Make --set batch_size a multiple of the number of processes (and of rows to "
                "forget at least as many), or use data parallelism (torchrun without sharding).",
            )

    def _joint(
        self,
        model: nn.Module,
        draw: Draw,
        chunks: Sequence[dict[str, Inputs]],
        totals: Sequence[float | None],
        backward: Callable[[Tensor], Any],
    ) -> dict[str, float]:
        sums = dict.fromkeys(self._terms, 0.0)
        weights = self.weights
        for views in chunks:
            joined = [inputs for name, inputs in views.items() if name in self._joined]
            step = self._step(views, Joint(model, joined), draw)
            loss: Tensor | None = None
            for name, total in zip(self._terms, totals, strict=True):
                part = self._share(self._term(name, step), total)
                if part is not None:
                    sums[name] += float(part.detach())
                    loss = weights[name] * part if loss is None else loss + weights[name] * part
            if loss is not None:
                backward(loss)
        return self._values(sums)

    def _separate(
        self,
        model: nn.Module,
        draw: Draw,
        chunks: Sequence[dict[str, Inputs]],
        totals: Sequence[float | None],
        backward: Callable[[Tensor], Any],
    ) -> dict[str, float]:
        assert self.method.combine is not None  # noqa: S101
        once = _Once(self, model, draw, (chunks, totals), backward)
        found = once.gradients()
        combined = self.method.combine(found, self.task.state, self.method.params)
        if self.method.redirect is not None:
            self.latest = found
        for beside in found.beside.values():
            combined = [g + b for g, b in zip(combined, beside, strict=True)]
        for parameter, gradient in zip(once.parameters, combined, strict=True):
            parameter.grad = gradient
        return dict(found.values)

    @property
    def _sides(self) -> dict[str, tuple[str, ...]]:
        """Names of the terms whose gradients a combiner tells apart."""
        sides = {"forget": ("forget", *self.method.added), "retain": ("retain",)}
        return sides | {name: (name,) for name in self.method.beside}

    def _step(self, views: dict[str, Inputs], source: Source, draw: Draw) -> Step:
        made = {
            name: View(
                inputs,
                source,
                self._anchor and _later(self._anchor, name),
                weights=self.datasets.weights(name, inputs),
            )
            for name, inputs in views.items()
        }
        return Step(
            made,
            progress=draw.step / self._steps,
            rng=generator(self.task.seed, "step", draw.step),
            state=self.task.state,
            reported=self._reported,
            tensors=self.task.tensors,
            index=draw.step,
        )

    def _term(self, name: str, step: Step) -> Mean | None:
        if name != "retain" and (self.paused or not self._has_forgetting(step)):
            return None
        return self.method.terms[name](step, self.method.params)

    def _has_forgetting(self, step: Step) -> bool:
        """False in a micro-batch that is left without forget rows, where there are only few."""
        return any(view in step for view in self.datasets.forgetting)

    @property
    def weights(self) -> dict[str, float]:
        """What each term is multiplied by in the loss."""
        return self.method.weights

    def _denominators(
        self, model: nn.Module, draw: Draw, chunks: Sequence[dict[str, Inputs]]
    ) -> list[float | None]:
        """The whole step's denominator of each term; None where one micro-batch is the step.

        Where weights that depend on the model are in it, a pass without gradient finds it.
        """
        if len(chunks) == 1 and self.world.size == 1:
            return [None] * len(self._terms)
        totals = torch.zeros(len(self._terms), dtype=torch.float64)
        with torch.no_grad():
            for views in chunks:
                if self.method.two_pass:
                    step = self._rehearsal(model, draw, views)
                else:
                    step = self._counting(views)
                for place, name in enumerate(self._terms):
                    counted = self._term(name, step)
                    totals[place] += 0.0 if counted is None else float(counted.den)
        return [float(total) for total in self.world.total(totals)]

    def _rehearsal(self, model: nn.Module, draw: Draw, views: dict[str, Inputs]) -> Step:
        """The step as it will be, whose terms leave no trace in state and reports."""
        joined = [inputs for name, inputs in views.items() if name in self._joined]
        step = self._step(views, Joint(model, joined), draw)
        step.state, step.reported = dict(self.task.state), {}
        step.tensors = dict(self.task.tensors)
        return step

    def _counting(self, views: dict[str, Inputs], asked: list[Inputs] | None = None) -> Step:
        """A step on zeros, whose terms cost nothing and have the true denominators.

        Args:
            views: The inputs of each view.
            asked: Gets the inputs whose logits the terms look at.
        """
        config = self.task.model.config.get_text_config()
        shape = (config.vocab_size, config.hidden_size, config.num_hidden_layers)
        zeros, anchor = Counting(*shape, asked), Counting(*shape)
        made = {name: View(inputs, zeros, lambda: anchor) for name, inputs in views.items()}
        return Step(made, state=dict(self.task.state))

    @staticmethod
    def _share(term: Mean | None, total: float | None) -> Tensor | None:
        if term is None or total == 0:
            return None
        return term.value if total is None else term.num / total

    def _values(self, sums: dict[str, float]) -> dict[str, float]:
        values = torch.tensor([sums[name] for name in self._terms], dtype=torch.float64)
        return dict(zip(self._terms, self.world.total(values).tolist(), strict=True))

    def _reports(self) -> dict[str, float]:
        """What the terms told of themselves in this step, over all micro-batches and processes."""
        names = self._told if self.world.size > 1 else sorted(self._reported)
        none = Mean(torch.zeros(()), torch.zeros(()))
        told = [self._reported.get(name, none) for name in names]
        pooled = torch.tensor([[float(m.num), float(m.den)] for m in told], dtype=torch.float64)
        sums = self.world.total(pooled).tolist() if names else []
        return {name: num / den for name, (num, den) in zip(names, sums, strict=True) if den}

    def _reduce(self, model: nn.Module) -> None:
        if self.world.size == 1 or (self.method.combine is not None and not self.paused):
            return
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                self.world.total(parameter.grad)


def _later(anchor: Callable[[str], Source], name: str) -> Callable[[], Source]:
    return lambda: anchor(name)


class _Once:
    """One step with its rows and denominators fixed: what a combiner may ask for again."""

    def __init__(
        self,
        owner: StepGradient,
        model: nn.Module,
        draw: Draw,
        parts: tuple[Sequence[dict[str, Inputs]], Sequence[float | None]],
        backward: Callable[[Tensor], Any],
    ) -> None:
        self._owner, self._model, self._draw, self._chunks = owner, model, draw, parts[0]
        self._totals = dict(zip(owner._terms, parts[1], strict=True))
        self._backward = backward
        self.task, self.step = owner.task, draw.step
        self.parameters: Sequence[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]

    def losses(self) -> dict[str, Tensor]:
        """Value of both sides over the whole step, with the graph that made it."""
        if self._owner.world.size > 1:
            raise ExpungeError(
                "E-USE-006",
                f"{self._owner.method.id} takes derivatives of gradients, and "
                f"{self._owner.world.size} processes share a step.",
                "one process.",
                "Start it without torchrun.",
            )
        found: dict[str, Tensor] = {}
        for side in ("forget", "retain"):
            parts = [part for _, part in self._parts(side)]
            found[side] = torch.stack(parts).sum() if parts else torch.zeros(())
        return found

    def gradients(self) -> Gradients:
        """Both gradients at the weights as they are, and those of the terms beside."""
        gradients: dict[str, list[Tensor]] = {}
        sums = dict.fromkeys(self._owner._terms, 0.0)
        for side in self._owner._sides:
            for name, part in self._parts(side):
                sums[name] += float(part.detach())
                self._backward(part)
            gradients[side] = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.parameters
            ]
            for gradient in gradients[side]:
                self._owner.world.total(gradient)
            self._model.zero_grad()
        values = self._owner._values(sums)
        forgets, keeps = gradients.pop("forget"), gradients.pop("retain")
        return Gradients(forgets, keeps, values, self, gradients)

    def _parts(self, side: str) -> Iterator[tuple[str, Tensor]]:
        """The share of each term of a side in each micro-batch, one forward after another."""
        for name, views in product(self._owner._sides[side], self._chunks):
            step = self._owner._step(views, Joint(self._model, []), self._draw)
            part = self._owner._share(self._owner._term(name, step), self._totals[name])
            if part is not None:
                yield name, part
