"""Forward passes as the engine needs them: logits only where something is predicted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.lm.hooks import forward_through
from expunge.lm.scoring import at_least_float32, masked_logits


@dataclass(frozen=True, slots=True)
class Inputs:
    """One right-padded batch and the positions whose next token is scored.

    Packing changes how the batch runs and nothing of what is said of it: rows go through the model
    end to end in one line, and what comes back is in the order of the rectangle.

    Attributes:
        input_ids: [B, T].
        attention_mask: [B, T], from true lengths.
        keep: [B, T] bool, true where the position *predicts* a scored token.
        targets: [N], the scored tokens in row-major order of ``keep``.
        items: [B], index of each row in its view's data set.
        packing: Whether the model gets the rows end to end instead of padded.
    """

    input_ids: Tensor
    attention_mask: Tensor
    keep: Tensor
    targets: Tensor
    items: Tensor
    packing: bool = False

    @classmethod
    def from_labels(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        items: Tensor,
        packing: bool = False,
    ) -> "Inputs":
        """Build from labels [B, T] with -100 where nothing is supervised."""
        keep = torch.zeros_like(labels, dtype=torch.bool)
        keep[:, :-1] = labels[:, 1:] != -100
        targets = labels[:, 1:][keep[:, :-1]]
        return cls(input_ids, attention_mask, keep, targets, items, packing)

    @property
    def batch_row(self) -> Tensor:
        """[N], the row inside the batch of each scored token."""
        rows = torch.arange(len(self.keep), device=self.keep.device)
        return rows[:, None].expand_as(self.keep)[self.keep]

    @property
    def tokens(self) -> int:
        """Size of the padded rectangle."""
        return self.input_ids.numel()


def packed_logits(model: Callable[..., Any], inputs: Inputs) -> Tensor:
    """Logits at the predicting positions.

    Anything with the call signature of a causal language model will do; only real modules are
    spared the projection at the other positions.

    Returns:
        [N, V] in at least float32 (float64 models keep theirs).
    """
    if isinstance(model, nn.Module) and inputs.packing:
        return masked_logits(model, *_line(inputs))
    if isinstance(model, nn.Module):
        return masked_logits(model, inputs.input_ids, inputs.attention_mask, inputs.keep)
    answered = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
    return at_least_float32(answered.logits[inputs.keep])


def packed_hidden(model: nn.Module, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
    """Block -> its output [B, T, d] in at least float32; no block above the deepest runs.

    Padding is included; where rows are packed it is zero.
    """
    if not inputs.packing:
        found = forward_through(
            model, layers, input_ids=inputs.input_ids, attention_mask=inputs.attention_mask
        )
        return {layer: at_least_float32(hidden) for layer, hidden in found.items()}
    ids, _, _, positions = _line(inputs)
    lines = forward_through(model, layers, input_ids=ids, position_ids=positions, use_cache=False)
    return {layer: _unpacked(at_least_float32(line), inputs) for layer, line in lines.items()}


def _line(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows end to end: ids, mask of ones, predicting positions and positions, each [1, L].

    Positions begin anew with each row, which tells the model where one ends. It only looks there
    when it gets no attention mask and no cache: otherwise rows see each other, silently.
    """
    real = inputs.attention_mask.bool()
    positions = (inputs.attention_mask.cumsum(1) - 1)[real][None]
    ids, keep = inputs.input_ids[real][None], inputs.keep[real][None]
    return ids, torch.ones_like(ids), keep, positions


def _unpacked(line: Tensor, inputs: Inputs) -> Tensor:
    """[1, L, d] back in the rectangle [B, T, d], zero at padding."""
    real = inputs.attention_mask.bool()
    rectangle = line.new_zeros(*real.shape, line.shape[-1])
    return rectangle.index_put((real,), line[0])


def stack(parts: list[Inputs], pad_id: int = 0) -> Inputs:
    """Put several batches into one, padded on the right to the longest."""
    length = max(part.input_ids.shape[1] for part in parts)

    def widen(tensor: Tensor, value: int | bool) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, length - tensor.shape[1]), value=value)

    return Inputs(
        torch.cat([widen(part.input_ids, pad_id) for part in parts]),
        torch.cat([widen(part.attention_mask, 0) for part in parts]),
        torch.cat([widen(part.keep, False) for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.items for part in parts]),
        parts[0].packing,
    )
