"""The gradient of one optimiser step, exact for every cut into micro-batches and processes."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

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
FORGETTING = frozenset({"forget", "refusal", "alternate"})
"""Views that only the forget term looks at."""

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
        names: set[str] = set()
        for views in self._chunks(self.sampler.draw(0))[:1]:
            asked: list[Inputs] = []
            step = self._counting(views, asked)
            for name in TERMS:
                self._term(name, step)
            names = {name for name, inputs in views.items() if any(a is inputs for a in asked)}
        return frozenset(names)

    def __call__(
        self, model: nn.Module, index: int, backward: Callable[[Tensor], Any]
    ) -> dict[str, float]:
        """Run step ``index`` and return the value of each term (over the whole step)."""
        draw = self.sampler.draw(index).share(self.world.rank, self.world.size)
        chunks = self._chunks(draw)
        totals = self._denominators(chunks)
        if self.method.combine is None or self.paused:
            values = self._joint(model, draw, chunks, totals, backward)
        else:
            values = self._separate(model, draw, chunks, totals, backward)
        self._reduce(model)
        return values

    def _chunks(self, draw: Draw) -> list[dict[str, Inputs]]:
        count = self.method.params.accumulation
        made = []
        for part in range(count):
            piece = draw.chunk(part, count)
            names = [n for n in self.method.views if not (self.paused and n in FORGETTING)]
            views = {name: self.datasets.inputs(name, piece) for name in names}
            present = {name: inputs for name, inputs in views.items() if inputs is not None}
            if present:
                made.append(present)
        return made

    def _joint(
        self,
        model: nn.Module,
        draw: Draw,
        chunks: Sequence[dict[str, Inputs]],
        totals: Sequence[float | None],
        backward: Callable[[Tensor], Any],
    ) -> dict[str, float]:
        sums = dict.fromkeys(TERMS, 0.0)
        weights = self._weights()
        for views in chunks:
            joined = [inputs for name, inputs in views.items() if name in self._joined]
            step = self._step(views, Joint(model, joined), draw)
            loss: Tensor | None = None
            for name, total in zip(TERMS, totals, strict=True):
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
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients: dict[str, list[Tensor]] = {}
        sums = dict.fromkeys(TERMS, 0.0)
        for name, total in zip(TERMS, totals, strict=True):
            for views in chunks:
                step = self._step(views, Joint(model, []), draw)
                part = self._share(self._term(name, step), total)
                if part is not None:
                    sums[name] += float(part.detach())
                    backward(part)
            gradients[name] = [
                torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters
            ]
            for gradient in gradients[name]:
                self.world.total(gradient)
            model.zero_grad()
        values = self._values(sums)
        found = Gradients(gradients["forget"], gradients["retain"], values)
        combined = self.method.combine(found, self.task.state, self.method.params)
        for parameter, gradient in zip(parameters, combined, strict=True):
            parameter.grad = gradient
        return values

    def _step(self, views: dict[str, Inputs], source: Source, draw: Draw) -> Step:
        made = {
            name: View(inputs, source, self._anchor and _later(self._anchor, name))
            for name, inputs in views.items()
        }
        return Step(
            made,
            progress=draw.step / self._steps,
            rng=generator(self.task.seed, "step", draw.step),
            state=self.task.state,
        )

    def _term(self, name: str, step: Step) -> Mean | None:
        if name == "forget" and self.paused:
            return None
        term = self.method.forget if name == "forget" else self.method.retain
        return term(step, self.method.params)

    def _weights(self) -> dict[str, float]:
        params = self.method.params
        return {"forget": params.forget_weight, "retain": params.retain_weight}

    def _denominators(self, chunks: Sequence[dict[str, Inputs]]) -> list[float | None]:
        """The whole step's denominator of each term; None where one micro-batch is the step."""
        if len(chunks) == 1 and self.world.size == 1:
            return [None] * len(TERMS)
        totals = torch.zeros(len(TERMS), dtype=torch.float64)
        with torch.no_grad():
            for views in chunks:
                step = self._counting(views)
                for place, name in enumerate(TERMS):
                    counted = self._term(name, step)
                    totals[place] += 0.0 if counted is None else float(counted.den)
        return [float(total) for total in self.world.total(totals)]

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
        totals = self.world.total(torch.tensor([sums[name] for name in TERMS], dtype=torch.float64))
        return dict(zip(TERMS, totals.tolist(), strict=True))

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
