"""Named views of a batch: what a loss may ask of one set of rows under one model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from expunge.engine.forward import Inputs
from expunge.engine.mean import Mean, mean_of

Scope = Literal["answer", "whole", "all_nonpad", "legacy_all"]


class Source(Protocol):
    """Where the numbers of a view come from: the model, the anchor, or a cache of the anchor."""

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] at the predicting positions."""
        ...

    def token_logp(self, inputs: Inputs) -> Tensor | None:
        """[N] if it can be had without logits, else None."""
        ...

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> its output [B, T, d]; `EMBEDDING` stands for the input of the first block."""
        ...

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """The attention maps of all blocks, bottom first, each [B, heads, T, T]."""
        ...

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        ...

    def edited(self, edit: "Editing") -> "Source":
        """The same model under a change that lasts for each forward pass."""
        ...

    def through(self, find: "Finding") -> "Source":
        """Another model, found in this one."""
        ...


@runtime_checkable
class Zeros(Protocol):
    """A source that gives zeros of the right shape."""

    is_zero: Literal[True]


Editing = Callable[[Any], AbstractContextManager[Any]]
"""From the model to the context in which it is changed for the time of a forward pass."""

Finding = Callable[[Any], Any]
"""From the model to another one that belongs to it, an assistant for instance."""


class _Weighted(torch.autograd.Function):
    """The values as they are; the gradient that flows back is multiplied by the weights."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor) -> Tensor:
        ctx.weights = weights
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.weights.to(gradient.dtype), None


class View:
    """One named part of a step under one source; every offer is computed once, when asked for.

    All offers are on supervised positions only, except `hidden` and `mask`.

    Args:
        inputs: The rows.
        source: Under what.
        anchor: Gives the source of `anchor`, when asked for.
        weights: [B], what the gradient that flows into each row is multiplied by; values stay as
            they are.
    """

    def __init__(
        self,
        inputs: Inputs,
        source: Source,
        anchor: Callable[[], Source] | None = None,
        *,
        weights: Tensor | None = None,
    ) -> None:
        self.inputs = inputs
        self._source = source
        self._anchor = anchor
        self._weights = weights
        self._hidden: dict[int, Tensor] = {}

    @cached_property
    def logits(self) -> Tensor:
        """[N, V], at least float32."""
        return self._weighted(self._source.logits(self.inputs), self.inputs.batch_row)

    @cached_property
    def token_logp(self) -> Tensor:
        """[N], log-probability of each supervised token, nats."""
        known = self._source.token_logp(self.inputs)
        if known is not None:
            return known
        return -functional.cross_entropy(self.logits, self.labels, reduction="none")

    @cached_property
    def logp(self) -> Tensor:
        """[B], summed over each row's supervised tokens, nats."""
        rows = self.token_logp.new_zeros(len(self.row))
        return rows.index_add(0, self.inputs.batch_row, self.token_logp)

    @cached_property
    def lengths(self) -> Tensor:
        """[B], number of supervised tokens of each row."""
        return self.mask.sum(1)

    @cached_property
    def logp_mean(self) -> Tensor:
        """[B], mean over each row's supervised tokens, nats."""
        return self.logp / self.lengths.clamp(min=1)

    @property
    def nll(self) -> Mean:
        """Token mean of the negative log-probability."""
        return mean_of(-self.token_logp)

    def hidden(self, layer: int) -> Tensor:
        """[B, T, d], output of block ``layer`` (negative from the top), padding included."""
        return self.hiddens([layer])[layer]

    def hiddens(self, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> its output [B, T, d], all from one forward that stops at the deepest.

        Args:
            layers: Blocks, negative from the top; `EMBEDDING` is the input of the first block.
        """
        missing = [layer for layer in layers if layer not in self._hidden]
        if missing:
            made = self._source.hidden(self.inputs, missing)
            self._hidden.update({layer: self._weighted(made[layer]) for layer in missing})
        return {layer: self._hidden[layer] for layer in layers}

    @cached_property
    def attention(self) -> Sequence[Tensor]:
        """How much each position looks at each: one map a block, bottom first, [B, heads, T, T].

        The third index looks at the last one. The row of a real position sums to 1 over what it
        sees and is 0 elsewhere; rows of padding mean nothing. Where only denominators are counted
        there is a single head.
        """
        return [self._weighted(one) for one in self._source.attention(self.inputs)]

    @property
    def blocks(self) -> int:
        """Number of blocks of the model."""
        return self._source.blocks

    @property
    def labels(self) -> Tensor:
        """[N], the supervised tokens."""
        return self.inputs.targets

    @property
    def mask(self) -> Tensor:
        """[B, T] bool, positions that predict a supervised token."""
        return self.inputs.keep

    @property
    def row(self) -> Tensor:
        """[B], index of each row in its data set."""
        return self.inputs.items

    @cached_property
    def position(self) -> Tensor:
        """[N], which supervised token of its row each token is, from 0."""
        within = self.mask.long().cumsum(1) - 1
        return within[self.mask]

    @cached_property
    def anchor(self) -> "View":
        """The same offers under the frozen anchor, without gradient."""
        return self._under_anchor(self.inputs)

    def over(self, scope: Scope) -> "View":
        """This view with other supervised positions.

        Args:
            scope: ``answer`` keeps this view's own; ``whole`` takes all tokens of a row but the
                first. The others are for losses over distributions alone: ``all_nonpad`` takes
                every real position, ``legacy_all`` every position, padding included.
        """
        if scope == "answer":
            return self
        real = self.inputs.attention_mask.bool()
        keep = torch.ones_like(real) if scope == "legacy_all" else real
        if scope == "whole":
            keep = real & functional.pad(real[:, 1:], (0, 1))
        shifted = self.inputs.input_ids.roll(-1, dims=1)
        inputs = replace(self.inputs, keep=keep, targets=shifted[keep])
        return View(inputs, self._source, self._anchor, weights=self._weights)

    def only(self, rows: Tensor) -> "View":
        """Some rows of this view, for a choice that is made by looking at all of them first.

        Args:
            rows: [n], places in the batch, in the order wanted.
        """
        given = self.inputs
        labels = torch.zeros_like(given.input_ids).masked_scatter(given.keep, given.targets)
        keep = given.keep[rows]
        inputs = replace(
            given,
            input_ids=given.input_ids[rows],
            attention_mask=given.attention_mask[rows],
            keep=keep,
            targets=labels[rows][keep],
            items=given.items[rows],
        )
        weights = None if self._weights is None else self._weights[rows]
        return View(inputs, self._source, self._anchor, weights=weights)

    def on(self, other: "View") -> "View":
        """What this view's source says of another view's rows: ``step.forget.anchor.on(other)``."""
        return View(other.inputs, self._source)

    def under(self, source: Source) -> "View":
        """The same rows under another source."""
        return View(self.inputs, source, weights=self._weights)

    def changed(self, edit: Editing) -> "View":
        """The same rows under the model while ``edit`` changes it, hooks for instance.

        Nothing is remembered from one call to the next, so a search may call it again and again.
        Where only denominators are counted nothing is changed, and the numbers are zeros.
        """
        return View(self.inputs, self._source.edited(edit), self._anchor, weights=self._weights)

    def through(self, find: Finding) -> "View":
        """The same rows under another model, which is found in this one.

        Where only denominators are counted nothing is looked for, and the numbers are zeros.
        """
        return View(self.inputs, self._source.through(find), self._anchor, weights=self._weights)

    @property
    def is_counted(self) -> bool:
        """Whether only denominators are counted: every number is zero and carries no gradient."""
        return isinstance(self._source, Zeros)

    def _weighted(self, values: Tensor, rows: Tensor | None = None) -> Tensor:
        """``values`` with the gradient of each row multiplied by its weight.

        Args:
            values: First dimension: rows of the batch.
            rows: Which row of the batch each entry belongs to; None: entries are the rows.
        """
        if self._weights is None:
            return values
        weights = self._weights if rows is None else self._weights[rows]
        shaped = weights.reshape(-1, *[1] * (values.dim() - 1))
        return _Weighted.apply(values, shaped)  # type: ignore[no-any-return,no-untyped-call]

    def _under_anchor(self, inputs: Inputs) -> "View":
        if self._anchor is None:
            raise LookupError("this step has no anchor: name 'anchor' in the card's needs")
        return View(inputs, self._anchor())
