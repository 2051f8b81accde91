"""Three copies of the adapter, for servers that give a request all of an adapter or none.

What an adapter adds is linear in B, so a copy whose B is halved is the adapter at weight 1/2,
exactly. A gateway in front of such a server asks the gate, and names the copy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from expunge.engine.runtime import Part

LEVELS = {"none": 0.0, "half": 0.5, "whole": 1.0}
"""Name of a copy -> its weight."""

WHOLE = 0.75
"""Weights from here on get all of the adapter: nearer to 1 than to 1/2."""


def level_of(weight: float) -> float:
    """The copy a weight stands for; what is above the cut gets one half at least.

    Args:
        weight: 0 below the cut.
    """
    if weight <= 0:
        return LEVELS["none"]
    return LEVELS["whole"] if weight >= WHOLE else LEVELS["half"]


def write_copies(model: "PreTrainedModel", part: "Part", folder: Path) -> dict[str, Path]:
    """Write the copies as adapters that other libraries load.

    Args:
        model: The model they stand beside.
        part: The latest run-time part of the method, whose adapter it is.
        folder: Where to; each copy is a folder inside.

    Returns:
        Name of the copy -> its folder.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file
    from transformers.pytorch_utils import Conv1D

    from expunge.engine.weighted import linears_of

    linears = linears_of(model, part.settings, part.tensors)
    rank, scale = int(part.settings["rank"]), float(part.settings["scale"])
    turned = {isinstance(model.get_submodule(name), Conv1D) for name in linears}
    config = LoraConfig(
        r=rank, lora_alpha=scale * rank, target_modules=_targets(model, list(linears)),
        fan_in_fan_out=turned == {True}, task_type="CAUSAL_LM", inference_mode=True,
    )  # fmt: skip
    written = {}
    for name, level in LEVELS.items():
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for linear, one in linears.items():
            stem = f"base_model.model.{linear}"
            tensors[f"{stem}.lora_A.weight"] = one.a.detach().cpu().contiguous()
            tensors[f"{stem}.lora_B.weight"] = (level * one.b).detach().cpu().contiguous()
        config.save_pretrained(str(place))
        save_file(tensors, place / "adapter_model.safetensors")
        written[name] = place
    return written


def _targets(model: "PreTrainedModel", names: list[str]) -> list[str]:
    """Names of linears as adapters name them: their last parts, where these mean all of them."""
    ends = sorted({name.rpartition(".")[2] for name in names})
    meant = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in ends}
    return ends if meant == set(names) else names
