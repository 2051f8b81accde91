"""Log-probabilities of supervised tokens, and nothing else computed.

The vocabulary projection runs on predicting positions only, by handing the model a boolean mask.
The head is never applied by hand: caps and scales live in the model's own forward.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedTokenizerBase

from expunge.lm.arch import base_of


class Rows(Protocol):
    """What scoring needs of a batch, see `expunge.data.encode.Batch`."""

    @property
    def input_ids(self) -> Tensor:
        """[B, T]."""

    @property
    def attention_mask(self) -> Tensor:
        """[B, T]."""

    @property
    def labels(self) -> Tensor:
        """[B, T], -100 where not supervised."""


class Packed(NamedTuple):
    """Scores of the N supervised tokens of a batch, row by row, left to right.

    Attributes:
        logp: [N], log-probability in nats.
        hit: [N] bool, whether the token is the most probable one.
        row: [N], row of the batch each token belongs to.
        logits: [N, V], only when asked for.
    """

    logp: Tensor
    hit: Tensor
    row: Tensor
    logits: Tensor | None = None


def packed_logp(model: nn.Module, batch: Rows, *, with_logits: bool = False) -> Packed:
    """Score the supervised tokens of a batch.

    Args:
        model: A causal language model.
        batch: Padded rows, on either side.
        with_logits: Whether to hand back the logits as well.

    Returns:
        The scores on the model's device, in float32 (float64 for float64 models), with their
        gradient graph.
    """
    device = next(model.parameters()).device
    labels = batch.labels.to(device)
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != -100
    target = labels[:, 1:][keep[:, :-1]]
    row = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)[keep]
    logits = masked_logits(model, batch.input_ids.to(device), batch.attention_mask.to(device), keep)
    logp = -functional.cross_entropy(logits, target, reduction="none")
    return Packed(logp, logits.detach().argmax(-1) == target, row, logits if with_logits else None)


def masked_logits(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    keep: Tensor,
    positions: Tensor | None = None,
    *,
    cache: DynamicCache | None = None,
) -> Tensor:
    """Logits at some positions of a padded batch.

    Right padding needs no attention mask, because nothing a causal model predicts from looks to
    the right; leaving it out takes the fast attention path. Left padding needs mask and positions,
    and what is said *at* padding (``kl_scope=legacy_all``) needs the mask as well.

    Args:
        model: A causal language model.
        input_ids: [B, T].
        attention_mask: [B, T], from true lengths.
        keep: [B, T] bool, N of them true.
        positions: [B, T], where several rows stand end to end in a line without padding: place of
            each token in its own row.
        cache: Keys and values of what comes before, of equal length for all rows; it grows.

    Returns:
        [N, V] in at least float32, in row-major order of ``keep``.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids}
    if not bool(attention_mask[:, 0].all()):
        inputs["attention_mask"] = attention_mask
        inputs["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
    elif bool((keep & ~attention_mask.bool()).any()):
        inputs["attention_mask"] = attention_mask
    if positions is not None:
        inputs["position_ids"] = positions
    if cache is not None:
        inputs |= {"past_key_values": cache, "use_cache": True}
    if takes(model, "logits_to_keep"):
        logits: Tensor = model(**{"use_cache": False, **inputs}, logits_to_keep=keep).logits
    else:
        logits = model(**inputs).logits[keep]
    return at_least_float32(logits)


def stands_out(logits: Tensor, target: Tensor) -> Tensor:
    """Whether each target is more probable than every other token; nothing is where all are equal.

    Far cheaper than the index of the largest.

    Args:
        logits: [N, V]; used up.
        target: [N].

    Returns:
        [N] bool.
    """
    place = target[:, None]
    own = logits.gather(1, place)[:, 0]
    return own > logits.scatter_(1, place, -torch.inf).amax(-1)


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32, or as they are where that is float64."""
    return values if values.dtype == torch.float64 else values.float()


def takes(model: nn.Module, argument: str) -> bool:
    """Whether a model's forward pass has an argument of this name."""
    return argument in _arguments(type(base_of(model)).forward)


@functools.cache
def _arguments(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to pad with; which one makes no difference, because nothing reads it."""
    for known in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(known, int):
            return known
    return 0
