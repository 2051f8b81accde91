"""What an MLP looks a value up by: the input of its output matrix at one place.

Definition (k: the input of W_l at one token):
    key of an association   the mean of k over its prompts
    C_l                     E[ k k^T ] over all tokens of some texts, in float64

Reference: Locating and Editing Factual Associations in GPT, 2022.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core.canonical import digest
from expunge.core.events import progress
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association
from expunge.engine.editing.values import entering_at
from expunge.engine.forward import Inputs
from expunge.lm.digest import model_digest
from expunge.lm.hooks import forward_within

BATCH = 32
"""Rows of one forward pass."""

FOLDER = "moments"
"""Where second moments are kept, beside the task's folder: they are no part of a change."""

SAME_KEY = 0.999
"""Cosine from which two keys cannot be told apart."""


def keys_of(
    model: nn.Module,
    datasets: Datasets,
    asked: Sequence[Association],
    layer: int,
    *,
    by_group: bool = False,
) -> Tensor:
    """[n, d_ff]: the key of each association.

    Args:
        model: The model as it now is.
        datasets: Makes batches.
        asked: The associations.
        layer: The block.
        by_group: Take the mean of the bare prompt's key and of the mean over the other prompts.
    """
    prompts = [prompt for one in asked for prompt in one.prompts]
    each = torch.split(
        entering_at(model, datasets, prompts, layer, "mlp_out"), [len(one.prompts) for one in asked]
    )
    if not by_group:
        return torch.stack([own.mean(0) for own in each])
    return torch.stack(
        [own[0] if len(own) == 1 else (own[0] + own[1:].mean(0)) / 2 for own in each]
    )


def clashing(keys: Tensor) -> int:
    """How many pairs of keys [n, d_ff] cannot be told apart."""
    unit = torch.nn.functional.normalize(keys.double(), dim=1)
    return int((torch.triu(unit @ unit.T, diagonal=1) > SAME_KEY).sum())


def moment(model: nn.Module, datasets: Datasets, texts: Sequence[Encoded], layer: int) -> Tensor:
    """C_l [d_ff, d_ff], float64; computed once for the same weights, texts and block.

    Args:
        model: The model as it now is.
        datasets: Makes batches; what is computed is kept in its task's folder.
        texts: Rows whose every token counts.
        layer: The block.
    """
    folder = datasets.task.folder
    if folder is None:
        return _computed(model, datasets, texts, layer)
    rows = sha256(repr([item.ids for item in texts]).encode()).hexdigest()
    name = digest([model_digest(model), rows, layer])
    file = folder.parent / FOLDER / f"{name[:32]}.safetensors"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = _computed(model, datasets, texts, layer).cpu()
        partial = file.with_suffix(".partial")
        save_file({"moment": made}, partial)
        partial.replace(file)
    return load_file(file)["moment"]


def supervised_keys(
    model: nn.Module, datasets: Datasets, texts: Sequence[Encoded], layer: int
) -> Tensor:
    """[d_ff, d_ff], float64: the sum of k k^T where supervised tokens are predicted.

    Args:
        model: The model as it now is.
        datasets: Makes batches.
        texts: Rows with supervised tokens.
        layer: The block.
    """
    total, _ = _summed(model, datasets, texts, layer, lambda inputs: inputs.keep)
    return total


def _computed(model: nn.Module, datasets: Datasets, texts: Sequence[Encoded], layer: int) -> Tensor:
    total, count = _summed(
        model, datasets, texts, layer, lambda inputs: inputs.attention_mask.bool()
    )
    return total / max(count, 1)


@torch.no_grad()
def _summed(
    model: nn.Module,
    datasets: Datasets,
    texts: Sequence[Encoded],
    layer: int,
    where: Callable[[Inputs], Tensor],
) -> tuple[Tensor, int]:
    """The sum of k k^T over some positions, and how many these are."""
    total, count = torch.zeros(()), 0
    ordered = sorted(texts, key=lambda item: len(item.ids))
    with progress("moments", len(ordered)) as bar:
        for start in range(0, len(ordered), BATCH):
            part = ordered[start : start + BATCH]
            inputs = datasets.batch(part)
            states = forward_within(
                model, layer, "mlp_out", entering=True, input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask, use_cache=False,
            )  # fmt: skip
            keys = states[where(inputs)].double()
            total = total.to(keys) + keys.T @ keys
            count += len(keys)
            bar.advance(len(part))
    return total, count
