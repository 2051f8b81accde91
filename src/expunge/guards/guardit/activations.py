"""Mean activations of texts at one block."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from expunge.data.encode import by_length, collate
from expunge.engine.runtime import twin
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating, forward_to
from expunge.lm.scoring import padding_id
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn

if TYPE_CHECKING:
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]


def block_of(model: Any, layer: int | None) -> int:
    """The block: the one that was named, else the one at a quarter of the depth."""
    slots = Slots(model)
    return len(slots) // 4 if layer is None else slots.index(layer)


def mean_activations(
    subject: Subject, turns: Sequence[Turn], layer: int | None
) -> "tuple[Vector, Vector]":
    """Mean activation of each turn over its content tokens: no padding, no special token.

    The model is left as it is, and may serve others meanwhile.

    Args:
        subject: The model.
        turns: Prompts and completions.
        layer: The block, see `block_of`.

    Returns:
        [n, d], and [n] their norms.
    """
    model = twin(subject.model, bare=True)
    place, device = block_of(model, layer), next(model.parameters()).device
    special = torch.tensor(sorted(subject.tokenizer.all_special_ids), device=device)
    items = [subject.encoder.encode(turn, row=at) for at, turn in enumerate(turns)]
    found: dict[int, Any] = {}
    with evaluating(model):
        for batch in by_length([len(item.ids) for item in items], subject.batch_size):
            rows = collate([items[at] for at in batch], padding_id(subject.tokenizer))
            ids, mask = rows.input_ids.to(device), rows.attention_mask.to(device)
            h = forward_to(model, place, input_ids=ids, attention_mask=mask)
            own = mask.bool() & ~torch.isin(ids, special)
            own = torch.where(own.any(1, keepdim=True), own, mask.bool())[..., None]
            mean = (h.double() * own).sum(1) / own.sum(1)
            found |= dict(zip(batch, mean.cpu().numpy(), strict=True))
    hidden = np.array([found[at] for at in range(len(turns))])
    return hidden, np.linalg.norm(hidden, axis=1)
