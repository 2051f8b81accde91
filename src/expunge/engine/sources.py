"""Where the numbers of views come from: the model, the frozen anchor, a cache of the anchor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.engine.attention import attention_maps
from expunge.engine.forward import Inputs, packed_hidden, packed_logits, stack
from expunge.engine.view import Editing, Finding
from expunge.lm.arch import Slots

WASTE = 1.15
"""Views join one forward while the padded rectangle stays under this times their own tokens."""


class Live:
    """A model, asked when needed."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] at the predicting positions."""
        return packed_logits(self._model, inputs)

    def token_logp(self, inputs: Inputs) -> Tensor | None:
        """Always None: it takes the logits."""
        return None

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> its output [B, T, d]; no block above the deepest runs."""
        return packed_hidden(self._model, inputs, layers)

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """The attention maps of all blocks, bottom first, each [B, heads, T, T]."""
        return attention_maps(self._model, inputs)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(Slots(self._model).blocks)

    def edited(self, edit: Editing) -> "Live":
        """The same model under a change that lasts for each forward pass."""
        return Edited(self._model, edit)

    def through(self, find: Finding) -> "Live":
        """Another model, found in this one."""
        return Live(find(self._model))


class Edited(Live):
    """A model that is changed for the time of each forward pass."""

    def __init__(self, model: Any, edit: Editing) -> None:
        super().__init__(model)
        self._edit = edit

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] at the predicting positions, of the changed model."""
        with self._edit(self._model):
            return super().logits(inputs)

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> its output [B, T, d], of the changed model."""
        with self._edit(self._model):
            return super().hidden(inputs, layers)

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """The attention maps of all blocks of the changed model."""
        with self._edit(self._model):
            return super().attention(inputs)


class Joint(Live):
    """The trained model over the views of one step: views of similar length share a forward."""

    def __init__(self, model: Any, views: Sequence[Inputs]) -> None:
        super().__init__(model)
        self._groups = _group(views)
        self._made: dict[int, tuple[Inputs, Tensor]] = {}

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V]; the forward of its whole group runs once."""
        group = next((g for g in self._groups if any(v is inputs for v in g)), [inputs])
        if id(inputs) not in self._made:
            logits = packed_logits(self._model, stack(group))
            parts = torch.split(logits, [len(view.targets) for view in group])
            # The inputs are held as well, or their id could become that of others.
            self._made.update({id(v): (v, part) for v, part in zip(group, parts, strict=True)})
        return self._made[id(inputs)][1]


class Frozen(Live):
    """A model held still: no gradient; with an adapter, the adapter is switched off."""

    def __init__(
        self,
        model: Any,
        switch: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        super().__init__(model)
        self._switch = switch
        self.forwards = 0

    def edited(self, edit: Editing) -> "Frozen":
        """The same, held still, under a change that lasts for each forward pass."""

        @contextmanager
        def switched() -> Iterator[None]:
            with self._switch(), edit(self._model):
                yield

        return Frozen(self._model, switched)

    def through(self, find: Finding) -> "Frozen":
        """Another model, found in this one, held still."""
        return Frozen(find(self._model), self._switch)

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V], detached."""
        self.forwards += 1
        with self._switch(), torch.no_grad():
            return super().logits(inputs)

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> its output [B, T, d], detached."""
        self.forwards += 1
        with self._switch(), torch.no_grad():
            return super().hidden(inputs, layers)

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """The attention maps of all blocks, detached."""
        self.forwards += 1
        with self._switch(), torch.no_grad():
            return super().attention(inputs)


class Counting:
    """Zeros of the right shape: a term evaluated on them yields its denominator for free."""

    is_zero: Literal[True] = True

    def __init__(
        self, vocabulary: int, width: int, blocks: int, asked: list[Inputs] | None = None
    ) -> None:
        self._vocabulary, self._width, self.blocks = vocabulary, width, blocks
        self._asked = asked if asked is not None else []

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] of zeros that take no memory."""
        self._asked.append(inputs)
        return torch.zeros(1, 1, device=inputs.targets.device).expand(
            len(inputs.targets), self._vocabulary
        )

    def token_logp(self, inputs: Inputs) -> Tensor:
        """[N] of zeros."""
        self._asked.append(inputs)
        return torch.zeros(len(inputs.targets), device=inputs.targets.device)

    def edited(self, edit: Editing) -> "Counting":
        """Zeros, however the model is changed."""
        return self

    def through(self, find: Finding) -> "Counting":
        """Zeros, of whatever model."""
        return self

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> zeros [B, T, d]."""
        zeros = torch.zeros(1, 1, 1, device=inputs.targets.device)
        shape = (*inputs.input_ids.shape, self._width)
        return {layer: zeros.expand(shape) for layer in layers}

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """Zeros [B, 1, T, T] for each block."""
        rows, length = inputs.input_ids.shape
        zeros = torch.zeros(1, 1, 1, 1, device=inputs.targets.device)
        return [zeros.expand(rows, 1, length, length)] * self.blocks


def _group(views: Sequence[Inputs]) -> list[list[Inputs]]:
    groups: list[list[Inputs]] = []
    for view in sorted(views, key=lambda v: v.input_ids.shape[1], reverse=True):
        for group in groups:
            joined = [*group, view]
            length = max(v.input_ids.shape[1] for v in joined)
            padded = length * sum(len(v.input_ids) for v in joined)
            if padded <= WASTE * sum(v.tokens for v in joined):
                group.append(view)
                break
        else:
            groups.append([view])
    return groups
