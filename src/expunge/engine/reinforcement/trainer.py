"""TRL's `GRPOTrainer` with our prompts, our records, and nothing sent anywhere.

What it would get wrong here is settled in this file. Prompts are tokenised as everywhere else, and
cut to size: the trainer no longer does that. Rows in front of which padding stands are told their
positions: without that a family with learnt positions would be trained at other places than it
answers from. What the trainer leaves in the model's configuration and on its ``forward`` is taken
away again.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from expunge.core.errors import ExpungeError
from expunge.core.events import Progress
from expunge.core.families import ReinforcementParams
from expunge.engine import checkpoints
from expunge.engine.reinforcement.library import GRPOConfig, GRPOTrainer
from expunge.engine.slots.stop import Measured
from expunge.lm.arch import base_of


class RolloutTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO on prompts that are given as token ids; a row of the data names one by its number.

    Args:
        prompts: Token ids of each lesson.
        precision: ``bf16`` computes in bfloat16 over float32 weights.
        more: What `GRPOTrainer` takes.
    """

    def __init__(self, *, prompts: Sequence[list[int]], precision: str, **more: Any) -> None:
        self._ids, self._precision = prompts, precision
        super().__init__(**more)
        self.remove_callback(PrinterCallback)  # it prints to standard output
        for model in (self.model, self.ref_model):
            if model is not None:
                model.register_forward_pre_hook(_with_positions, with_kwargs=True)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self._ids[int(number)]) for number in prompts], None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        try:
            with self._computing():
                return super()._prepare_inputs(generation_batch)
        except RuntimeError as error:
            if "probability tensor" not in str(error):
                raise
            raise _diverged(self.state.global_step, "the model's probabilities are none") from error

    def compute_loss(self, *args: Any, **named: Any) -> Any:
        """The trainer's loss, in the precision asked for."""
        with self._computing():
            return super().compute_loss(*args, **named)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: a checkpoint is no model to be published."""

    def _send_telemetry(self) -> None:
        """Nothing."""

    def _computing(self) -> Any:
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, dtype=torch.bfloat16)


def _with_positions(
    model: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positions counted from the first real token, where the trainer scores padded rows."""
    mask: Tensor | None = named.get("attention_mask")
    if named.get("fused_lm_head") and mask is not None and "position_ids" not in named:
        named = {**named, "position_ids": (mask.long().cumsum(-1) - 1).clamp(min=0)}
    return positional, named


def config_of(
    run: Path,
    params: ReinforcementParams,
    *,
    steps: int,
    lr: float,
    warmup: int,
    new_tokens: int,
    seed: int,
    use_cpu: bool,
) -> GRPOConfig:
    """The trainer's settings; what it would decide by itself is said."""
    return GRPOConfig(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=params.batch_size * params.num_generations,
        gradient_accumulation_steps=params.accumulation,
        num_generations=params.num_generations,
        num_iterations=1,
        max_completion_length=new_tokens,
        temperature=params.temperature,
        beta=params.beta,
        epsilon=params.epsilon,
        epsilon_high=params.epsilon_high,
        delta=params.dual_clip,
        loss_type=params.loss,
        scale_rewards="group",
        learning_rate=lr,
        warmup_steps=warmup,
        weight_decay=params.weight_decay,
        lr_scheduler_type="constant_with_warmup" if params.schedule == "constant"
        else params.schedule,
        max_grad_norm=1.0,
        seed=seed % 2**31,
        use_cpu=use_cpu,
        bf16=False,
        fp16=False,
        use_vllm=False,
        disable_dropout=False,
        gradient_checkpointing=params.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if params.checkpointing else None,
        shuffle_dataset=False,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
    )  # fmt: skip


def data_of(order: Sequence[int]) -> Dataset:
    """The lessons of all steps, one after the other: the trainer draws nothing itself."""
    return Dataset.from_dict({"prompt": [str(number) for number in order], "lesson": list(order)})


@contextmanager
def untouched(model: nn.Module, name: str) -> Iterator[None]:
    """Take away afterwards what the trainer leaves in a model.

    Args:
        model: With its adapter, if it has one.
        name: Folder that its configuration names in this context: the trainer loads the reference
            from there.
    """
    base: Any = base_of(model)
    settings = {*map(_Settings, (base.config, base.config.get_text_config()))}
    generation = base.generation_config.to_dict()
    tags, both = getattr(base, "model_tags", None), (model, base)
    forwards = [vars(module).get("forward") for module in both]
    hooks = [dict(module._forward_pre_hooks) for module in both]
    base.config._name_or_path = name
    try:
        yield
    finally:
        for one in settings:
            one.restore()
        base.generation_config = type(base.generation_config).from_dict(generation)
        base.model_tags = tags
        if base.is_gradient_checkpointing:
            base.activation_checkpointing_disable()
            base.disable_input_require_grads()
        for module, forward, known in zip(both, forwards, hooks, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward
            for number in module._forward_pre_hooks.keys() - known.keys():
                del module._forward_pre_hooks[number]
                module._forward_pre_hooks_with_kwargs.pop(number, None)


class _Settings:
    """The plain values of a configuration, to be put back."""

    def __init__(self, config: Any) -> None:
        self._config, self._values = config, dict(vars(config))

    def restore(self) -> None:
        vars(self._config).clear()
        vars(self._config).update(self._values)


@dataclass
class Guide(TrainerCallback):
    """Decides when to measure, save and stop, and tells how far the run is.

    Attributes:
        run: Folder of the checkpoints.
        state: The method's own, saved with every checkpoint.
        progress: The running task to report to.
        measure: Step and what the trainer logged -> what is measured then.
        is_enough: History -> why to stop now, or "".
        deadline: `time.monotonic` time after which to stop, or None.
        every: Steps between two measurements.
    """

    run: Path
    state: dict[str, Any]
    progress: Progress
    measure: Callable[[int, dict[str, float]], Measured]
    is_enough: Callable[[list[Measured]], str]
    deadline: float | None = None
    every: int = 5
    history: list[Measured] = field(default_factory=list)
    stopped_by: str = ""
    _saved_at: float = field(default_factory=time.monotonic)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Measure, stop, save, report; called once a step, when its numbers are known."""
        if not logs or "reward" not in logs:
            return
        step, last = state.global_step, state.global_step >= state.max_steps
        told = told_of(logs)
        _refuse_divergence(told, step)
        if step % self.every == 0 or last:
            self.history.append(self.measure(step, told))
            self.stopped_by = self.is_enough(self.history)
        now = time.monotonic()
        if self.deadline is not None and now > self.deadline and not self.stopped_by:
            self.stopped_by = "max-minutes"
        control.should_training_stop |= bool(self.stopped_by)
        overdue = now - self._saved_at > checkpoints.SECONDS
        control.should_save = overdue or checkpoints.is_due(step, state.max_steps)
        alike = f"{told['zero_variance']:.0%} of groups alike"
        self.progress.advance(1, text=f"reward {told['reward']:.2f}, {alike}")

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Seal the checkpoint, then delete old ones."""
        checkpoints.seal(self.run / f"checkpoint-{state.global_step}", self.state)
        checkpoints.prune(self.run)
        self._saved_at = time.monotonic()


NUMBERS = {
    "reward": "reward",
    "frac_reward_zero_std": "zero_variance",
    "kl": "kl",
    "completions/mean_length": "length",
    "entropy": "entropy",
}
"""What the trainer logs -> what it is called here."""


def told_of(logs: dict[str, Any]) -> dict[str, float]:
    """The numbers of a step that are kept; those of each reward under ``reward:name``."""
    told = {
        ours: float(logs[theirs])
        for theirs, ours in NUMBERS.items()
        if logs.get(theirs) is not None
    }
    for name, value in logs.items():
        if name.startswith("rewards/") and name.endswith("/mean") and value is not None:
            told[f"reward:{name.split('/')[1]}"] = float(value)
    return told


def _refuse_divergence(told: dict[str, float], step: int) -> None:
    broken = {n: v for n, v in told.items() if n in ("reward", "kl") and not math.isfinite(v)}
    if broken:
        raise _diverged(step, f"the {' and '.join(broken)} is not a finite number: {broken}")


def _diverged(step: int, found: str) -> ExpungeError:
    return ExpungeError(
        "E-RUN-002",
        f"At step {step} {found}.",
        "finite probabilities, rewards and divergences throughout.",
        "Lower the learning rate (--set lr=...), or raise --set beta.",
    )
