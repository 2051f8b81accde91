"""One training session of a gradient method: from a loaded model to changed weights."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from torch import nn

from expunge.core.events import progress
from expunge.core.registry import methods
from expunge.engine import checkpoints, rates
from expunge.engine.adapter import with_adapter
from expunge.engine.anchors import anchor_of
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.levels import StopLevel
from expunge.engine.masks import AppliedMask
from expunge.engine.measure import Level, level, sample_items
from expunge.engine.method import GradientMethod
from expunge.engine.plan import Plan
from expunge.engine.precision import computing
from expunge.engine.slots.stop import Measured
from expunge.engine.task import Task
from expunge.engine.trainer import Conductor, UnlearningTrainer, arguments, restore_cache_flag
from expunge.engine.world import World
from expunge.lm.hooks import without_dropout
from expunge.lm.load import quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

MEASUREMENTS = 40
"""The forget level is measured this often over a full-length run."""

SETTLED = 0.01
"""Relative fall of retain accuracy with which a run at its stop level may end."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a session ends with.

    Attributes:
        model: The changed model (with its adapter, if there is one), in evaluation mode.
        steps: Optimiser steps done.
        resumed_from: Step of the checkpoint the session started from, 0 for a fresh start.
        stopped_by: ``steps``, ``level``, ``method`` or ``max-minutes``.
        lr: Learning rate used.
        planned: Steps planned.
        history: What was measured on the way.
    """

    model: nn.Module
    steps: int
    resumed_from: int
    stopped_by: str
    lr: float
    planned: int
    history: list[Measured]


class Session:
    """Builds everything a run needs and trains.

    Args:
        plan: The request.
        subject: The original, loaded; its model is changed in place.
        run: Folder for checkpoints.
    """

    def __init__(self, plan: Plan, subject: Subject, run: Path) -> None:
        self.plan, self.subject, self.run = plan, subject, run
        module = methods.load(plan.method)
        self.method = GradientMethod.assemble(module, plan.params)
        self.model: nn.Module = subject.model
        task = Task(
            model=subject.model,
            tokenizer=subject.tokenizer,
            encoder=subject.encoder,
            roles=_roles(plan.rows, self.method),
            seed=plan.seed,
        )
        selection = self.method.select(task, plan.params)
        chosen = [task.forget[index] for index in selection.forget]
        self.task = replace(task, roles={**task.roles, "forget": chosen})
        self.datasets = Datasets(self.task, device=str(subject.model.device))
        self._forget = sample_items(self.datasets, "forget", plan.seed, wordings=True)
        self._retain = sample_items(self.datasets, "retain", plan.seed, wordings=False)

    def levels(self) -> tuple[Level, Level]:
        """Forget and retain level of the model as it is now."""
        with without_dropout(self.model), computing(self.model, self.plan.params):
            return (
                level(self.model, self.datasets, self._forget),
                level(self.model, self.datasets, self._retain),
            )

    def train(self, stop: StopLevel | None) -> Trained:
        """Train until the stop level, the last step, or the end of the time allowed."""
        plan, params = self.plan, self.plan.params
        self._accuracy = self.levels()[1].accuracy
        allowed = self.method.mask(self.subject.model, self.task, params)
        if plan.adapter:
            self.model = with_adapter(self.subject.model, params, allowed, plan.seed)
        mask = AppliedMask(self.model, {} if plan.adapter else allowed)
        if self.method.prepare is not None:
            self.method.prepare(self.task, params)
        sampler = self.method.sample(self.task, params)
        size = plan.folder.parameters
        steps = rates.run_length(params, sampler.steps_per_epoch, size)
        lr = rates.learning_rate(params, size, adapter=bool(plan.adapter))
        warmup = rates.warmup_steps(params, sampler.steps_per_epoch, steps)
        args = arguments(
            self.run, steps=steps, lr=lr, warmup=warmup, weight_decay=params.weight_decay,
            seed=plan.seed, use_cpu=not torch.cuda.is_available(),
        )  # fmt: skip
        start = checkpoints.newest(self.run)
        checkpoints.discard_after(self.run, start)
        if start is not None:
            self.task.state.update(checkpoints.state_of(start))
        use_cache = self.subject.model.config.use_cache
        with (
            quiet(),
            without_dropout(self.model),
            computing(self.model, params),
            isolated_randomness(),
            progress(plan.method, steps) as bar,
        ):
            anchor = anchor_of(
                self.model, self.method, self.datasets, sampler,
                steps=steps, adapted=bool(plan.adapter), folder=self.run,
            )  # fmt: skip
            world = World(args.process_index, args.world_size)
            gradient = StepGradient(
                self.method, self.task, self.datasets, sampler, anchor, steps=steps, world=world
            )
            conductor = Conductor(
                run=self.run, gradient=gradient, mask=mask, progress=bar,
                measure=self._measure(stop), is_enough=self._is_enough(gradient),
                deadline=self._deadline(), measure_every=max(1, steps // MEASUREMENTS),
            )  # fmt: skip
            trainer = UnlearningTrainer(self.model, gradient, mask, args, [conductor])
            conductor.bind(trainer)
            done = checkpoints.step_of(start) if start else 0
            bar.advance(done, text="resuming" if done else "")
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        restore_cache_flag(self.subject.model, use_cache)
        self.model.eval()
        return Trained(
            model=self.model, steps=trainer.state.global_step, resumed_from=done,
            stopped_by=conductor.stopped_by or "steps", lr=lr, planned=steps,
            history=conductor.history,
        )  # fmt: skip

    def _measure(self, stop: StopLevel | None) -> Callable[[int, dict[str, float]], Measured]:
        def measure(step: int, terms: dict[str, float]) -> Measured:
            found = level(self.model, self.datasets, self._forget)
            return Measured(step, found.nll, stop is not None and stop.reached(found), dict(terms))

        return measure

    def _is_enough(self, gradient: StepGradient) -> Callable[[list[Measured]], str]:
        """At the level the forget term rests; the run ends once the retain rows are back."""

        def decide(history: list[Measured]) -> str:
            reached = history[-1].is_level
            gradient.paused = reached and gradient.keeps
            if reached and (not gradient.keeps or self._is_settled()):
                return "level"
            return "method" if self.method.stop(history, self.plan.params) else ""

        return decide

    def _is_settled(self) -> bool:
        now = level(self.model, self.datasets, self._retain).accuracy
        return now >= (1 - SETTLED) * self._accuracy

    def _deadline(self) -> float | None:
        minutes = self.plan.max_minutes
        return None if minutes is None else time.monotonic() + 60 * minutes


def _roles(rows: Mapping[str, Sequence[Row]], method: GradientMethod) -> dict[str, Sequence[Row]]:
    """Neighbours are kept like retain rows, unless the method looks at them by themselves."""
    if "neighbour" in method.needs or not rows.get("neighbour"):
        return dict(rows)
    return {**rows, "retain": [*rows["retain"], *rows["neighbour"]], "neighbour": ()}


@contextmanager
def isolated_randomness() -> Iterator[None]:
    """Give back the global random states that Trainer seeds."""
    python, arrays = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)
