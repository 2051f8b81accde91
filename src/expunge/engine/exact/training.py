"""One stage of a sequence: adapters of some blocks, trained on the rows of some slices.

The objective, the rows of a step and the optimiser are the engine's own; the adapters are `peft`'s.
Everything random in a stage (first factors, dropout, order of rows) hangs on the seed of the run
and the place of the stage, and the order of rows on their content: a row that is not there changes
nothing else. The optimiser begins anew in every stage. What earlier stages trained in other blocks
is there, frozen and without dropout.

Dropout is drawn batch by batch: cutting a step into other parts draws other masks, so the cut is
exact for ``dropout=0`` alone. Bits are those of one kind of device and one version of the
libraries: what is trained anew elsewhere is as free of the rows, but not the same to the bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.pytorch_utils import Conv1D

from expunge.core.events import Progress
from expunge.core.families import EnsembleParams, GradientParams
from expunge.core.rng import derive
from expunge.engine import rates
from expunge.engine.datasets import Datasets
from expunge.engine.exact.serving import A, B
from expunge.engine.exact.stages import stage_file
from expunge.engine.gradient import StepGradient
from expunge.engine.masks import AppliedMask
from expunge.engine.method import GradientMethod
from expunge.engine.precision import computing
from expunge.engine.session import Session, isolated_randomness
from expunge.engine.task import Task
from expunge.engine.trainer import UnlearningTrainer, arguments, restore_cache_flag
from expunge.lm.hooks import without_dropout
from expunge.lm.load import quiet
from expunge.requests.rows import Row

MOVING, KEPT = "moving", "kept"
"""Names of the adapters that a stage trains, and of those it finds."""

Tensors = Mapping[str, Tensor]
"""Name of a linear with `A` or `B` behind it -> a factor of its adapter."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage stands.

    Attributes:
        shard: Its shard.
        sequence: Number of its sequence.
        stage: Its number in that.
    """

    shard: int
    sequence: int
    stage: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return stage_file(self.shard, self.sequence, self.stage)

    def seed(self, seed: int) -> int:
        """The seed of the stage in a run of some seed."""
        return derive(seed, "stage", self.shard, self.sequence, self.stage)


class Stages:
    """Trains stages over one base, which is left as it was.

    Args:
        session: Of the base; its method's terms are the objective.
        rate: Learning rate.
        passes: Of a stage over its rows.
    """

    def __init__(self, session: Session, rate: float, passes: int) -> None:
        params = session.plan.params
        assert isinstance(params, EnsembleParams)  # noqa: S101
        self.session, self.rate, self.passes, self.params = session, rate, passes, params
        self.model: Any = session.subject.model

    def steps(self, rows: int) -> int:
        """Optimiser steps of a stage that sees so many rows."""
        size = self.params.batch_size * self.params.accumulation
        return self.params.max_steps or self.passes * -(-rows // size)

    def train(
        self,
        place: Place,
        names: Sequence[str],
        rows: Sequence[Row],
        before: Tensors,
        bar: Progress,
    ) -> dict[str, Tensor]:
        """Train one stage.

        Args:
            place: Where it stands.
            names: Linears whose adapters it trains.
            rows: What it trains on.
            before: The adapters after the stage before; those of ``names`` go on from there.
            bar: Told of every step.

        Returns:
            The adapters of ``names``.
        """
        seed = place.seed(self.session.plan.seed)
        use_cache = self.model.config.use_cache
        with quiet(), without_dropout(self.model), isolated_randomness():
            adapted = self._adapted(names, before, seed)
            try:
                if rows:
                    self._fit(adapted, rows, seed, bar)
                return {
                    f"{name}.{end}": weight.detach().clone()
                    for name in names
                    for end, weight in _factors(self.model, name, MOVING).items()
                }
            finally:
                adapted.unload()
                restore_cache_flag(self.model, use_cache)
                self.model.eval()

    def _adapted(self, names: Sequence[str], before: Tensors, seed: int) -> PeftModel:
        """The base with all adapters of the sequence; only those of ``names`` ask for gradients."""
        known = {name.rpartition(".")[0] for name in before}
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "adapter"))
            config = self._config(names, self.params.dropout)
            adapted: PeftModel = get_peft_model(self.model, config, adapter_name=MOVING)
            if others := sorted(known - set(names)):
                adapted.add_adapter(KEPT, self._config(others, 0.0))
                adapted.base_model.set_adapter([KEPT, MOVING])
        for name in known:
            holder = MOVING if name in names else KEPT
            with torch.no_grad():
                for end, weight in _factors(self.model, name, holder).items():
                    weight.copy_(before[f"{name}.{end}"])
                    weight.requires_grad_(holder == MOVING)
        return adapted

    def _config(self, names: Sequence[str], dropout: float) -> LoraConfig:
        return LoraConfig(
            r=self.params.lora_r,
            lora_alpha=self.params.lora_alpha,
            lora_dropout=dropout,
            use_rslora=self.params.rslora,
            target_modules=list(names),
            task_type="CAUSAL_LM",
            fan_in_fan_out=isinstance(self.model.get_submodule(names[0]), Conv1D),
        )

    def _fit(self, adapted: nn.Module, rows: Sequence[Row], seed: int, bar: Progress) -> None:
        session, params = self.session, self.params
        task = replace(
            session.task, roles={"forget": (), "retain": list(rows)}, seed=seed, state={},
            tensors={}, paired={}, record={},
        )  # fmt: skip
        steps = self.steps(len(rows))
        fit(
            adapted, task, session.method, params,
            steps=steps, rate=self.rate, run=session.run, bar=bar,
        )  # fmt: skip


def fit(
    model: nn.Module,
    task: Task,
    method: GradientMethod,
    params: GradientParams,
    *,
    steps: int,
    rate: float,
    run: Path,
    bar: Progress,
) -> None:
    """Train in place on the rows that a task has, by the engine's own steps; nothing is measured.

    Whoever calls it takes dropout out and keeps global random states apart.

    Args:
        model: What is trained: the task's model, or that model with adapters.
        task: Its rows and its seed, on which the order of rows hangs.
        method: Its terms are the objective.
        params: Its parameters.
        steps: Optimiser steps.
        rate: Learning rate.
        run: A folder; nothing is written to it.
        bar: Told of every step.
    """
    sampler = method.sample(task, params)
    args = arguments(
        Path(run), steps=steps, lr=rate, weight_decay=params.weight_decay,
        warmup=rates.warmup_steps(params, sampler.steps_per_epoch, steps), seed=task.seed,
        use_cpu=not torch.cuda.is_available(), schedule=params.schedule,
    )  # fmt: skip
    datasets = Datasets(task, device=str(task.model.device), packing=params.packing)
    gradient = StepGradient(method, task, datasets, sampler, None, steps=steps)
    mask = AppliedMask(model, {})
    with computing(model, params) as masters:
        mask.masters = masters
        UnlearningTrainer(model, gradient, mask, args, [_Watch(bar)]).train()


class _Watch(TrainerCallback):
    """Tells how far the run is."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """One step more."""
        self._bar.advance(1)


def _factors(model: nn.Module, name: str, adapter: str) -> dict[str, nn.Parameter]:
    """Both factors of an adapter of a linear."""
    wrapped: Any = model.get_submodule(name)
    return {A: wrapped.lora_A[adapter].weight, B: wrapped.lora_B[adapter].weight}
