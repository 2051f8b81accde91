"""The adapter a run trains instead of the weights."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.rng import derive
from expunge.engine.linears import linears_in
from expunge.engine.slots.mask import Mask
from expunge.lm.arch import Slots


def with_adapter(
    model: PreTrainedModel, params: GradientParams, allowed: Mask, seed: int
) -> nn.Module:
    """LoRA without dropout: ratios must start at 0.

    Args:
        model: Gets the adapter in place; its own weights are frozen.
        params: Rank, scale and modules.
        allowed: What the method lets move; linears that may not get no adapter.
        seed: Seed of the run.

    Raises:
        ExpungeError: ``E-MODEL-008`` when no linear may move.
    """
    linears = linears_in(Slots(model), targets=params.lora_targets)
    names = [name for name in linears if _may_move(allowed, name)]
    if not names:
        raise ExpungeError(
            "E-MODEL-008",
            "An adapter was asked for, and no linear layer of the blocks may move.",
            "at least one linear layer among the weights the method changes.",
            "Leave --adapter out, or give other --set layers.",
        )
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    config = LoraConfig(
        r=params.lora_r,
        lora_alpha=int(params.lora_alpha),
        target_modules=names,
        task_type="CAUSAL_LM",
        fan_in_fan_out=transposed,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "adapter"))
        adapted: nn.Module = get_peft_model(model, config)
    return adapted


def _may_move(allowed: Mask, name: str) -> bool:
    entry = allowed.get(f"{name}.weight", True)
    return entry if isinstance(entry, bool) else bool(entry.any())
