"""The model that draws are measured from, as a folder: as it was after the warm start.

The trainer loads its reference from the folder that the model's configuration names. Left alone
that is the original, so that the divergence would pull a model back to before its warm start. With
an adapter it is a copy of the adapter as it stands; that copy is made by the trainer.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from expunge.core.atomic import new_folder, write_json

TOLD = "steered.json"
COPY = "ref"
"""What the trainer calls its copy of an adapter."""


def keep_reference(model: Any, folder: Path, told: Mapping[str, Any]) -> None:
    """Write the model, or its adapter, and how it came about; whole or not at all."""
    with new_folder(folder) as made:
        model.save_pretrained(made)
        write_json(made / TOLD, dict(told))


@torch.no_grad()
def put_back(model: nn.Module, folder: Path) -> dict[str, Any] | None:
    """Put the weights of a kept reference into the model.

    Returns:
        What was told with them, or None when there is none.
    """
    if not (folder / TOLD).is_file():
        return None
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
    else:
        kept = type(model).from_pretrained(  # type: ignore[attr-defined]
            folder, dtype=next(model.parameters()).dtype
        )
        model.load_state_dict(kept.state_dict())
    told: dict[str, Any] = json.loads((folder / TOLD).read_text(encoding="utf-8"))
    return told


def without_copy(model: nn.Module) -> None:
    """Take the trainer's copy of the adapter away: it is no part of the change."""
    if isinstance(model, PeftModel) and COPY in model.peft_config:
        model.delete_adapter(COPY)
