"""How far a text is from what the memories are for, and which of them answers for it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from expunge.engine.runtime import Part, twin
from expunge.lm.arch import Slots, base_of
from expunge.lm.scoring import at_least_float32
from expunge.methods.wise.passes import Passes

LONG = 100
"""Tokens up to which a text is read by their mean; beyond, by the largest."""

Combine = Callable[[Tensor, Tensor], Tensor]


def running(values: Tensor, row: Tensor, combine: Combine) -> Tensor:
    """What stands at each position [B, T, k], combined with all before it in the same row.

    Args:
        values: [B, T, k].
        row: [B, T], the number of the row that each position belongs to, never falling.
        combine: Associative, of two tensors.
    """
    step = 1
    while step < values.shape[1]:
        same = row[:, step:] == row[:, :-step]
        joined = combine(values[:, step:], values[:, :-step])
        later = torch.where(same[..., None], joined, values[:, step:])
        values = torch.cat([values[:, :step], later], 1)
        step *= 2
    return values


def readings(distances: Tensor, counts: Tensor, begins: Tensor, *, hold: bool) -> Tensor:
    """D: what has been read of the memories up to each position, [B, T, m].

    Args:
        distances: [B, T, m], of single positions.
        counts: [B, T] bool, which of them count.
        begins: [B, T] bool, where a row begins.
        hold: Whether what has been reached once stays so to the end of the row.
    """
    row = begins.long().cumsum(1)
    own = torch.where(counts[..., None], distances, 0.0)
    count = running(counts[..., None].to(own), row, torch.add)
    mean = running(own, row, torch.add) / count.clamp(min=1)
    found = torch.where(count > LONG, running(own, row, torch.maximum), mean)
    return running(found, row, torch.maximum) if hold else found


class Twofold:
    """The output matrix of an MLP, and the same with other weights.

    Args:
        model: The model.
        layer: Number of the block.
    """

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        self.bare = twin(Slots(model).module(layer, "mlp_out"), bare=True)
        self.act = activation_of(model)

    @property
    def weight(self) -> Tensor:
        """That of the model."""
        weight = self.bare.weight
        assert isinstance(weight, Tensor)  # noqa: S101
        return weight

    def said(self, weight: Tensor, entering: Tensor) -> Tensor:
        """What comes out with another weight, in the layout of the family; the bias is kept."""
        moved = {"weight": weight.to(self.weight)}
        output: Tensor = functional_call(self.bare, moved, (entering,))
        return output

    def apart(self, one: Tensor, other: Tensor) -> Tensor:
        """[...]: the distance of outputs [..., d] behind the activation of the model."""
        difference = self.act(at_least_float32(one)) - self.act(at_least_float32(other))
        length: Tensor = torch.linalg.vector_norm(difference, dim=-1)
        return length


class Memories:
    """Answers from side memories where a row has read enough of what they are for.

    Args:
        model: What they stand in.
        layer: Number of the block.
        weights: The memories, in the layout of the matrix they stand in for.
        thresholds: [m], from where each answers.
        hold: Whether a row that was once answered for goes on being so.
        include_bos: Whether the first position of a row counts.
        name: Tells their notes from those of others in the same cache.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        weights: Sequence[Tensor],
        thresholds: Tensor,
        *,
        hold: bool,
        include_bos: bool,
        name: str,
    ) -> None:
        self.matrix, self.passes = Twofold(model, layer), Passes(model, name)
        self.module = Slots(model).module(layer, "mlp_out")
        self.weights, self.thresholds = list(weights), thresholds
        self.hold, self.include_bos = hold, include_bos

    @classmethod
    def of(cls, model: PreTrainedModel, part: Part) -> "Memories":
        """Those of a change.

        Raises:
            ValueError: When they are not made for this model.
        """
        told, tensors = part.settings, part.tensors
        weights = [tensors[f"memory.{at}"] for at in range(int(told["memories"]))]
        device = next(model.parameters()).device
        memories = cls(
            model, int(told["layer"]), [weight.to(device) for weight in weights],
            tensors["thresholds"].to(device), hold=bool(told["hold"]),
            include_bos=bool(told["include_bos"]), name=part.digest,
        )  # fmt: skip
        wanted = memories.matrix.weight.shape
        for weight in weights:
            if weight.shape != wanted:
                raise ValueError(
                    f"a memory of {tuple(weight.shape)}, the model has {tuple(wanted)}"
                )
        return memories

    def put_in(self) -> list[RemovableHandle]:
        """Hook them into their model."""
        return [*self.passes.watch(), self.module.register_forward_hook(self)]

    def __call__(self, _: nn.Module, given: Any, output: Tensor) -> Tensor:
        """The output, with the positions that a memory answers for replaced."""
        if self.passes.now is None:  # the matrix runs by itself, about no token
            return output
        said = [self.matrix.said(weight, given[0]) for weight in self.weights]
        with torch.no_grad():
            chosen, is_reached = self.chosen(output, said)
        for at, own in enumerate(said):
            where = is_reached & (chosen == at)
            if bool(where.any()):
                output = torch.where(where[..., None], own.to(output.dtype), output)
        return output

    def chosen(self, output: Tensor, said: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The memory farthest above its threshold in distance at each position, and if one is.

        Returns:
            [B, T] number of the memory, [B, T] bool.
        """
        now = self.passes.now
        assert now is not None  # noqa: S101
        distances = torch.stack([self.matrix.apart(output, own) for own in said], -1)
        begins, counts = now.begins(output), now.real(output)
        if not self.include_bos:
            counts = counts & ~begins
        marks = torch.stack([counts, begins], -1).to(distances)
        history = now.noted(torch.cat([marks, distances], -1))
        read = readings(history[..., 2:], history[..., 0] > 0, history[..., 1] > 0, hold=self.hold)[
            :, -output.shape[1] :
        ]
        is_above = read >= self.thresholds.to(read)
        largest, chosen = read.masked_fill(~is_above, -1.0).max(-1)
        return chosen, largest >= 0


def activation_of(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """The activation function of a model's MLPs."""
    config: Any = base_of(model).config.get_text_config()  # type: ignore[union-attr, operator]
    names = ("hidden_activation", "hidden_act", "activation_function")
    name = next(known for one in names if (known := getattr(config, one, None)))
    function: Callable[[Tensor], Tensor] = ACT2FN[name]
    return function
