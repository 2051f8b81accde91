"""One training session of a gradient method: from a loaded model to changed weights."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from expunge.core.events import progress
from expunge.core.registry import methods
from expunge.engine import checkpoints, rates
from expunge.engine.adapter import with_adapter
from expunge.engine.adapter_masks import of_adapters
from expunge.engine.anchors import anchor_of
from expunge.engine.combinations import refuse_split_masks
from expunge.engine.datasets import Datasets
from expunge.engine.finish import Finishing, weights_that_move
from expunge.engine.gradient import StepGradient
from expunge.engine.levels import StopLevel
from expunge.engine.made import FOLDER as MADE
from expunge.engine.masks import AppliedMask
from expunge.engine.measure import Level, level, sample_items
from expunge.engine.method import GradientMethod
from expunge.engine.plan import Plan
from expunge.engine.precision import computing
from expunge.engine.runtime import Part, attach
from expunge.engine.slots.mask import Mask
from expunge.engine.slots.sample import Sampler
from expunge.engine.slots.select import applied
from expunge.engine.slots.stop import Measured
from expunge.engine.task import Task
from expunge.engine.trainer import Conductor, UnlearningTrainer, arguments, restore_cache_flag
from expunge.engine.world import World
from expunge.engine.wrappers import modules_of
from expunge.lm.hooks import without_dropout
from expunge.lm.int4 import hold_in_int4
from expunge.lm.load import quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

MEASUREMENTS = 40
"""The forget level is measured this often over a full-length run."""

SETTLED = 0.01
"""Relative fall of retain accuracy with which a run at its stop level may end."""

SPENT = 0.8
"""Share of a utility budget that counts as all of it: the next measurement is steps away."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a session ends with.

    Attributes:
        model: The changed model (with its adapter, if there is one), in evaluation mode.
        steps: Optimiser steps done.
        resumed_from: Step of the checkpoint the session started from, 0 for a fresh start.
        stopped_by: ``steps``, ``level``, ``method``, ``utility-budget`` or ``max-minutes``.
        lr: Learning rate used.
        planned: Steps planned.
        history: What was measured on the way.
        record: What the method's `prepare` and `finish` tell of themselves.
        runtime: The run-time part of the change, which the model has attached.
    """

    model: nn.Module
    steps: int
    resumed_from: int
    stopped_by: str
    lr: float
    planned: int
    history: list[Measured]
    record: dict[str, Any] = field(default_factory=dict)
    runtime: Part | None = None


class Session:
    """Builds everything a run needs and trains.

    Args:
        plan: The request.
        subject: The original, loaded; its model is changed in place. With ``base_bits`` its linear
            layers are rounded at once, so all levels of a run are those of the rounded base.
        run: Folder for checkpoints.
        world: The processes that train together.
        frozen: What losses compare with in place of the original; in evaluation mode.
    """

    def __init__(
        self,
        plan: Plan,
        subject: Subject,
        run: Path,
        world: World | None = None,
        frozen: nn.Module | None = None,
    ) -> None:
        self.plan, self.subject, self.run = plan, subject, run
        self.world, self.frozen = world or World(), frozen
        module, around = methods.load(plan.method), modules_of(plan.wrappers)
        self.method = GradientMethod.assemble(module, plan.params, around)
        self.model: nn.Module = subject.model
        task = Task(
            model=subject.model,
            tokenizer=subject.tokenizer,
            encoder=subject.encoder,
            roles=_roles(plan.rows, self.method),
            seed=plan.seed,
            params=plan.params,
            method=plan.method,
            folder=run / MADE,
            earlier=plan.folder.path / MADE,
            world=self.world,
            carry=dict(plan.carry),
        )
        self._asked = Datasets(task, device=str(subject.model.device), packing=plan.params.packing)
        self._selection = self.method.select(task, plan.params)
        self.task = applied(task, self._selection)
        self.datasets = Datasets(
            self.task, device=str(subject.model.device), packing=plan.params.packing
        )
        self._allowed = self.method.mask(subject.model, self.task, plan.params)
        refuse_split_masks(self._allowed)
        if plan.params.base_bits:
            hold_in_int4(subject.model)  # after the mask, which goes by names of weights
        self._forget = sample_items(self._asked, "forget", plan.seed, wordings=True)
        self._retain = sample_items(self.datasets, "retain", plan.seed, wordings=False)

    @property
    def vocabulary(self) -> int:
        """Number of tokens the model chooses among."""
        return int(self.subject.model.config.get_text_config().vocab_size)

    @property
    def allowed(self) -> Mask:
        """Which weights of the model itself may move."""
        return self._allowed

    def levels(self) -> tuple[Level, Level]:
        """Forget and retain level of the model as it is now."""
        with without_dropout(self.model), computing(self.model, self.plan.params):
            return (
                level(self.model, self.datasets, self._forget),
                level(self.model, self.datasets, self._retain),
            )

    @cached_property
    def before(self) -> tuple[Level, Level]:
        """Both levels before the first step, when they must first be asked for."""
        return self.levels()

    def train(self, stop: StopLevel | None, *, through: bool = False) -> Trained:
        """Train until the stop level, the last step, or the end of the time allowed.

        Args:
            stop: The level at which forgetting is enough, or None.
            through: Train to the last step whatever the level; `finish` is then told of it.
        """
        plan, params = self.plan, self.plan.params
        before = self.before
        self._accuracy = before[1].accuracy
        if plan.adapter:
            with quiet():
                self.model = with_adapter(self.subject.model, params, self._allowed, plan.seed)
        held = of_adapters(self.model, self._allowed) if plan.adapter else self._allowed
        mask = AppliedMask(self.model, held)
        original = {} if self.method.finish is None else weights_that_move(self.model)
        if self.method.prepare is not None:
            self.method.prepare(self.task, params)
        sampler = self.method.sample(self.task, params)
        size, epoch = plan.folder.parameters, self._epoch(sampler)
        steps = rates.run_length(params, epoch, size)
        card = methods.card(plan.method).extra
        lr = rates.learning_rate(params, size, adapter=bool(plan.adapter), card=card)
        warmup = rates.warmup_steps(params, epoch, steps)
        args = arguments(
            self.run, steps=steps, lr=lr, warmup=warmup, weight_decay=params.weight_decay,
            seed=plan.seed, use_cpu=not torch.cuda.is_available(), schedule=params.schedule,
        )  # fmt: skip
        start = self._start()
        if start is not None:
            self.task.state.update(checkpoints.state_of(start))
            self.task.tensors.update(checkpoints.tensors_of(start))
        self.task.state.update(self.world.agreed(self.task.state))
        use_cache = self.subject.model.config.use_cache
        with (
            quiet(),
            without_dropout(self.model),
            computing(self.model, params) as masters,
            isolated_randomness(),
            progress(plan.method, steps) as bar,
        ):
            mask.masters = masters
            anchor = anchor_of(
                self.model, self.method, self.datasets, sampler,
                steps=steps, adapted=bool(plan.adapter), folder=self.run, frozen=self.frozen,
            )  # fmt: skip
            gradient = StepGradient(
                self.method, self.task, self.datasets, sampler, anchor,
                steps=steps, world=self.world,
            )  # fmt: skip
            conductor = Conductor(
                run=self.run, gradient=gradient, mask=mask, progress=bar,
                measure=self._measure(None if through else stop, watch=not through),
                is_enough=self._is_enough(gradient),
                deadline=self._deadline(), measure_every=max(1, steps // MEASUREMENTS),
            )  # fmt: skip
            trainer = UnlearningTrainer(self.model, gradient, mask, args, [conductor])
            conductor.bind(trainer)
            done = checkpoints.step_of(start) if start else 0
            bar.advance(done, text="resuming" if done else "")
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        restore_cache_flag(self.subject.model, use_cache)
        self.model.eval()
        record, runtime = self._finish(original, before, stop)
        return Trained(
            model=self.model, steps=trainer.state.global_step, resumed_from=done,
            stopped_by=conductor.stopped_by or "steps", lr=lr, planned=steps,
            history=conductor.history, record=self.task.record | record, runtime=runtime,
        )  # fmt: skip

    def edit(self, stop: StopLevel | None) -> Trained:
        """Let the method change the weights by itself.

        Args:
            stop: The level at which forgetting is enough, or None.
        """
        assert self.method.edit is not None  # noqa: S101
        mask = AppliedMask(self.model, self._allowed)
        if self.method.prepare is not None:
            self.method.prepare(self.task, self.plan.params)
        with quiet(), without_dropout(self.model), isolated_randomness():
            change = Finishing(
                self.model, weights_that_move(self.model), self.task,
                before=self.before, stop=stop, measure=self.levels,
            )  # fmt: skip
            self.method.edit(change, self.plan.params)
            mask.on_weights()
        self.model.eval()
        return Trained(
            model=self.model, steps=change.steps, resumed_from=0, stopped_by=change.stopped_by,
            lr=0.0, planned=change.steps, history=[], record=self.task.record | change.record,
            runtime=self._attached(change.runtime),
        )  # fmt: skip

    def _finish(
        self,
        original: Mapping[str, Tensor],
        before: tuple[Level, Level],
        stop: StopLevel | None,
    ) -> tuple[dict[str, Any], Part | None]:
        """Hand the trained model to the method's `finish`; what that tells, and its part."""
        if self.method.finish is None:
            return {}, None
        change = Finishing(
            self.model, original, self.task, before=before, stop=stop, measure=self.levels
        )
        self.method.finish(change, self.plan.params)
        return change.record, self._attached(change.runtime)

    def _attached(self, part: Part | None) -> Part | None:
        """The part under the method's name, put into the model as whoever loads the change does."""
        if part is None:
            return None
        card = methods.card(self.plan.method)
        named = replace(part, method=card.id, version=card.version)
        attach(self.subject.model, named)
        return named

    def _epoch(self, sampler: Sampler) -> int:
        """Steps that count as one epoch for the length of the run."""
        if not self._selection.match_steps:
            return sampler.steps_per_epoch
        return self.method.sample(self._asked.task, self.plan.params).steps_per_epoch

    def _measure(
        self, stop: StopLevel | None, *, watch: bool
    ) -> Callable[[int, dict[str, float]], Measured]:
        """Take the forget level and, to ``watch`` a utility budget, the retain accuracy."""
        guessing = math.log(self.vocabulary)
        budget = self.plan.utility_budget if watch else None

        def measure(step: int, terms: dict[str, float]) -> Measured:
            found = level(self.model, self._asked, self._forget)
            reached = stop is not None and stop.reached(found)
            fall = None if budget is None else self._fall()
            nll, is_level, fall = self.world.agreed([found.nll, reached, fall])
            is_spent = budget is not None and fall > SPENT * budget
            return Measured(step, nll, is_level, dict(terms), guessing, fall, is_spent)

        return measure

    def _is_enough(self, gradient: StepGradient) -> Callable[[list[Measured]], str]:
        """Whether the run is over, and whether the forget term rests until the next measurement.

        It rests at the level, until the retain rows are back and the run ends; and while the
        utility budget is spent. A method that keeps nothing cannot win it back, so it ends there.
        """

        def decide(history: list[Measured]) -> str:
            now = history[-1]
            gradient.paused = (now.is_level or now.is_spent) and gradient.keeps
            if now.is_level and (not gradient.keeps or self._is_settled(now)):
                return "level"
            if now.is_spent and not gradient.keeps:
                return "utility-budget"
            return "method" if self.method.stop(history, self.plan.params) else ""

        return decide

    def _fall(self) -> float:
        """Relative fall of greedy accuracy on the retain rows; 0 where there was none."""
        now = level(self.model, self.datasets, self._retain).accuracy
        return 1 - now / self._accuracy if self._accuracy else 0.0

    def _is_settled(self, measured: Measured) -> bool:
        fall = self._fall() if measured.utility_drop is None else measured.utility_drop
        return not self.world.agreed(fall) > SETTLED

    def _start(self) -> Path | None:
        """The checkpoint to go on from; what is newer is broken and goes."""
        name = None
        if self.world.first:
            newest = checkpoints.newest(self.run)
            checkpoints.discard_after(self.run, newest)
            name = newest.name if newest else None
        name = self.world.agreed(name)
        return self.run / name if name else None

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
