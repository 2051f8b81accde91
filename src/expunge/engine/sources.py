"""Where the numbers of views come from: the model, the frozen anchor, a cache of the anchor."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs, packed_logits, stack
from expunge.engine.view import View
from expunge.lm.hooks import forward_to

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

    def hidden(self, inputs: Inputs, layer: int) -> Tensor:
        """[B, T, d], output of block ``layer``; no block above it runs."""
        return forward_to(
            self._model, layer, input_ids=inputs.input_ids, attention_mask=inputs.attention_mask
        )


class Joint(Live):
    """The trained model over the views of one step: views of similar length share a forward."""

    def __init__(self, model: Any, views: Sequence[Inputs]) -> None:
        super().__init__(model)
        self._groups = _group(views)
        self._made: dict[int, Tensor] = {}

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V]; the forward of its whole group runs once."""
        group = next((g for g in self._groups if any(v is inputs for v in g)), [inputs])
        if id(inputs) not in self._made:
            logits = packed_logits(self._model, stack(group))
            parts = torch.split(logits, [len(view.targets) for view in group])
            self._made.update({id(view): part for view, part in zip(group, parts, strict=True)})
        return self._made[id(inputs)]


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

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V], detached."""
        self.forwards += 1
        with self._switch(), torch.no_grad():
            return super().logits(inputs)

    def hidden(self, inputs: Inputs, layer: int) -> Tensor:
        """[B, T, d], detached."""
        self.forwards += 1
        with self._switch(), torch.no_grad():
            return super().hidden(inputs, layer)


class Cached:
    """Token log-probabilities of fixed data under the anchor, computed once.

    Everything else is asked of ``live``, when there is one.
    """

    def __init__(self, values: Mapping[int, Tensor], live: Frozen | None = None) -> None:
        self._values = values
        self._live = live

    def token_logp(self, inputs: Inputs) -> Tensor:
        """[N], from the cache."""
        return torch.cat([self._values[int(item)] for item in inputs.items]).to(
            inputs.targets.device
        )

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] from the live anchor."""
        return self._need().logits(inputs)

    def hidden(self, inputs: Inputs, layer: int) -> Tensor:
        """[B, T, d] from the live anchor."""
        return self._need().hidden(inputs, layer)

    def _need(self) -> Frozen:
        if self._live is None:
            raise LookupError("only log-probabilities of the anchor were kept: name 'anchor-live'")
        return self._live


class Counting:
    """Zeros of the right shape: a term evaluated on them yields its denominator for free."""

    def __init__(self, vocabulary: int, width: int) -> None:
        self._vocabulary, self._width = vocabulary, width

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] of zeros that take no memory."""
        return torch.zeros(1, 1, device=inputs.targets.device).expand(
            len(inputs.targets), self._vocabulary
        )

    def token_logp(self, inputs: Inputs) -> Tensor:
        """[N] of zeros."""
        return torch.zeros(len(inputs.targets), device=inputs.targets.device)

    def hidden(self, inputs: Inputs, layer: int) -> Tensor:
        """[B, T, d] of zeros."""
        return torch.zeros(*inputs.input_ids.shape, self._width, device=inputs.targets.device)


def cache_anchor(
    source: Frozen, datasets: Datasets, role: str, batch_size: int = 32
) -> dict[int, Tensor]:
    """Token log-probabilities of every wording of every row of ``role`` under ``source``.

    Returns:
        Item index -> [n] float tensor on the CPU, in the precision of the logits.
    """
    items: list[Encoded] = [item for row in datasets.items(role) for item in row]
    items.sort(key=lambda item: (len(item.ids), item.row))
    values: dict[int, Tensor] = {}
    for start in range(0, len(items), batch_size):
        inputs = datasets.batch(items[start : start + batch_size])
        scored = View(inputs, source).token_logp.cpu()
        counts = inputs.keep.sum(1).tolist()
        for item, part in zip(inputs.items.tolist(), torch.split(scored, counts), strict=True):
            values[item] = part
    return values


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
