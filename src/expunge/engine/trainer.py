"""The loop: `transformers.Trainer` with the whole step in our hands.

One Trainer step is one optimiser step. The loader only counts; `StepGradient` makes the batch,
the terms and the gradient, so denominators, combiners and masks do not depend on how Trainer
accumulates.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from expunge.core.errors import ExpungeError
from expunge.core.events import Progress
from expunge.engine import checkpoints
from expunge.engine.gradient import TERMS, StepGradient
from expunge.engine.masks import AppliedMask
from expunge.engine.moves import Moves
from expunge.engine.optimiser import MasterAdamW
from expunge.engine.slots.stop import Measured
from expunge.engine.world import sharding
from expunge.lm.hooks import evaluating


class UnlearningTrainer(Trainer):
    """Trainer whose step is a `StepGradient`."""

    def __init__(
        self,
        model: nn.Module,
        gradient: StepGradient,
        mask: AppliedMask,
        args: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        super().__init__(model=model, args=args, callbacks=callbacks)
        self.remove_callback(PrinterCallback)  # it prints to standard output
        self._gradient, self._mask = gradient, mask
        self.terms: dict[str, float] = {}

    def create_accelerator_and_postprocess(self) -> None:
        """Leave data-parallel wrappers out: `StepGradient` sums the gradients by itself.

        The wrapper's buckets would hold a second copy of every gradient, and never be used.
        """
        super().create_accelerator_and_postprocess()
        if not sharding():
            unwrapped = partial(self.accelerator.prepare_model, evaluation_mode=True)
            self.accelerator.prepare_model = unwrapped

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The library's own; over masters, where the weights compute in bfloat16."""
        is_new = self.optimizer is None
        made: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new and self._mask.masters:
            made = self.optimizer = MasterAdamW(made.param_groups, self._mask.masters)
        return made

    def get_train_dataloader(self) -> "DataLoader[Any]":
        """A loader of step numbers; the rows of a step are a function of its number."""
        numbers: Any = range(self.args.max_steps)
        return DataLoader(numbers, batch_size=1, shuffle=False, collate_fn=_as_batch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The next step number; denominators are ours."""
        return [next(epoch_iterator)], None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the inputs are step numbers."""
        return 0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Tensor:
        """Leave the gradient of one optimiser step and return the loss for the log."""
        model.train()
        unwrapped = self.accelerator.unwrap_model(model)
        self.terms = self._gradient(unwrapped, inputs["step"], self.accelerator.backward)
        self._mask.on_gradients()
        weights = self._gradient.weights
        loss = sum(weights[name] * self.terms[name] for name in weights)
        _refuse_divergence(self.terms, inputs["step"])
        return torch.tensor(loss * self.args.world_size, device=self.args.device)


@dataclass
class Conductor(TrainerCallback):
    """Decides when to measure, save and stop, and tells how far the run is.

    Attributes:
        run: Folder of the checkpoints.
        gradient: The step, for its task's state and epochs.
        mask: What may not move.
        progress: The running task to report to.
        measure: Step and terms -> what is measured then.
        is_enough: History -> why to stop now, or "".
        deadline: `time.monotonic` time after which to stop, or None.
    """

    run: Path
    gradient: StepGradient
    mask: AppliedMask
    progress: Progress
    measure: Callable[[int, dict[str, float]], Measured]
    is_enough: Callable[[list[Measured]], str]
    deadline: float | None = None
    measure_every: int = 5
    history: list[Measured] = field(default_factory=list)
    stopped_by: str = ""
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Watch the moves of this run."""
        self._moves = Moves(self.gradient, self.mask)

    def bind(self, trainer: UnlearningTrainer) -> None:
        """Give access to the terms of the latest step."""
        self._trainer = trainer

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note where the weights are, for a method that redirects the step."""
        self._moves.begin()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Let the method redirect the step, then put masked weights back."""
        self._moves.end()
        self.mask.on_weights()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure, stop, save, report."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if step % self.measure_every == 0 or last:
            self.history.append(self.measure(step, self._trainer.terms))
            self.stopped_by = self.is_enough(self.history)
        late, overdue = self._clock()
        if late and not self.stopped_by:
            self.stopped_by = "max-minutes"
        if self.stopped_by:
            control.should_training_stop = True
        self._epoch_ended(step)
        control.should_save = overdue or checkpoints.is_due(step, state.max_steps)
        self.progress.advance(1, text=self._words())

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal the checkpoint once every process has written its part, then delete old ones."""
        self.gradient.world.wait()
        if state.is_world_process_zero:
            folder = self.run / f"checkpoint-{state.global_step}"
            task = self.gradient.task
            checkpoints.seal(folder, task.state, task.tensors)
            checkpoints.prune(self.run)
        self._saved_at = time.monotonic()

    def _clock(self) -> tuple[bool, bool]:
        """Whether the time is over, and whether a checkpoint is due; one clock for all."""
        now = time.monotonic()
        late = self.deadline is not None and now > self.deadline
        overdue = now - self._saved_at > checkpoints.SECONDS
        late, overdue = self.gradient.world.agreed([late, overdue])
        return late, overdue

    def _epoch_ended(self, step: int) -> None:
        method, per_epoch = self.gradient.method, self.gradient.sampler.steps_per_epoch
        if step % per_epoch:
            return
        if method.on_epoch is not None:
            method.on_epoch(self.gradient.task.state, method.params)
        if method.refresh is not None:
            with evaluating(self.gradient.task.model), torch.no_grad():
                method.refresh(self.gradient.task, method.params)

    def _words(self) -> str:
        if not self.history:
            return f"loss terms: forget {self._trainer.terms['forget']:.3g}"
        terms = self._trainer.terms
        told = [f", {name} {terms[name]:.3g}" for name in terms if name not in TERMS]
        return f"forget rows: {self.history[-1].forget_nll:.2f} nats a token{''.join(told)}"


def arguments(
    run: Path,
    *,
    steps: int,
    lr: float,
    warmup: int,
    weight_decay: float,
    seed: int,
    use_cpu: bool,
    schedule: str = "linear",
) -> TrainingArguments:
    """The Trainer's settings: everything it would decide by itself is switched off."""
    return TrainingArguments(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=lr,
        warmup_steps=warmup,
        weight_decay=weight_decay,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else schedule,
        max_grad_norm=1.0,
        seed=seed % 2**31,
        use_cpu=use_cpu,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
    )


def restore_cache_flag(model: PreTrainedModel, use_cache: bool) -> None:
    """Undo Trainer's change to the configuration, which would land in the saved folder."""
    model.config.use_cache = use_cache


def _as_batch(numbers: list[int]) -> dict[str, int]:
    return {"step": numbers[0]}


def _refuse_divergence(terms: dict[str, float], step: int) -> None:
    broken = {name: value for name, value in terms.items() if not math.isfinite(value)}
    if broken:
        raise ExpungeError(
            "E-RUN-002",
            f"At step {step + 1} the {' and '.join(broken)} term is not a finite number: {broken}.",
            "finite loss terms throughout.",
            "Lower the learning rate (--set lr=...), or train in float32.",
        )
