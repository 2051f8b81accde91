"""The experts of one linear layer, and the router that mixes them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from expunge.lm.scoring import at_least_float32


@dataclass(frozen=True, slots=True, eq=False)
class Mixing:
    """How the experts are mixed in one forward pass, and which of them learn where.

    Attributes:
        gates: [B, T, N], weight of every forget expert.
        high: [B, T] bool, tokens of high entropy.
        learn: [B, T, 1 + N], 1 where the retain expert and each forget expert learn; None where
            nothing does.
    """

    gates: Tensor
    high: Tensor
    learn: Tensor | None = None


class _Learnt(torch.autograd.Function):
    """``values weightᵀ``; the weight learns from some positions only."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, where: Tensor) -> Tensor:
        ctx.save_for_backward(values * where, weight)
        return linear(values, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weight = ctx.saved_tensors
        taught = gradient.flatten(0, -2).T @ values.flatten(0, -2)
        return gradient @ weight, taught, None


def learnt(values: Tensor, weight: Tensor, where: Tensor | None) -> Tensor:
    """``values weightᵀ``, from which the weight learns at some positions only.

    The gradient that flows on into ``values`` is that of all positions.

    Args:
        values: [..., k].
        weight: [m, k].
        where: [..., k] or [..., 1], what of ``values`` the weight sees when it learns; None: all.
    """
    if where is None:
        return linear(values, weight)
    return _Learnt.apply(values, weight, where.to(values.dtype))  # type: ignore[no-any-return,no-untyped-call]


class Experts(nn.Module):
    """What stands beside one linear: ``scale (B_r + sum_d g_d B_d) A x``.

    ``A = start + slow * shift``. An optimiser whose steps do not depend on the size of a gradient,
    as AdamW's, moves ``A`` by ``slow`` times the rate of the rest.

    Args:
        start: [r, inputs], A before training.
        b: [outputs, (1 + N) r], B_r and B_1 to B_N side by side.
        slow: Rate of A as a share of that of B.
        scale: Factor of everything.
    """

    start: Tensor

    def __init__(self, start: Tensor, b: Tensor, *, slow: float, scale: float) -> None:
        super().__init__()
        self.rank, self.slow, self.scale = len(start), slow, scale
        self.register_buffer("start", start)
        self.shift = nn.Parameter(torch.zeros_like(start))
        self.b = nn.Parameter(b)

    @property
    def a(self) -> Tensor:
        """A as it is now, [r, inputs]."""
        return self.start + self.slow * self.shift

    def forward(self, x: Tensor, mixing: Mixing) -> Tensor:
        """What is added to the linear's output, in at least float32.

        Args:
            x: [B, T, inputs].
            mixing: Of the same positions.
        """
        with torch.autocast(x.device.type, enabled=False):
            where = None if mixing.learn is None else mixing.high[..., None]
            a, b = at_least_float32(self.a), at_least_float32(self.b)
            inner = learnt(x.to(a.dtype), a, where)
            weighed = (mixing.gates.to(inner.dtype)[..., None] * inner[..., None, :]).flatten(-2)
            taught = mixing.learn
            taught = None if taught is None else taught.repeat_interleave(self.rank, -1)
            return self.scale * learnt(torch.cat([inner, weighed], -1), b, taught)

    def overlap(self) -> Tensor:
        """``sum over pairs d < e of 2 |B_dᵀ B_e|²`` of the forget experts."""
        _, *experts = torch.split(self.b, self.rank, 1)
        stacked = torch.stack(experts)
        products = torch.einsum("dor,eos->ders", stacked, stacked).square().sum((-1, -2))
        return products.sum() - products.diagonal().sum()


class Router(nn.Module):
    """Gates of the forget experts, token by token.

    ``scalar``: ``softmax(w S / tau)``, with one number w_d for each expert and S the entropy of the
    token. ``hidden``: ``softmax((W h + b) / tau)``, with h what the first pass has at a block.

    Args:
        weight: [N] of a scalar router, which learns; [N, d] of a hidden one, which does not.
        offset: [N] of a hidden router.
        temperatures: tau of tokens of high and of low entropy.
        top: How many experts a token of high entropy is served by.
    """

    offset: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        offset: Tensor | None = None,
        *,
        temperatures: tuple[float, float],
        top: int,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=offset is None)
        self.register_buffer("offset", offset)
        self.temperatures, self.top = temperatures, top

    def forward(self, entropy: Tensor, hidden: Tensor, high: Tensor, *, served: bool) -> Tensor:
        """[B, T, N].

        Args:
            entropy: [B, T].
            hidden: [B, T, d]; a scalar router does not look at it.
            high: [B, T] bool.
            served: Whether the rule of inference holds: the ``top`` largest gates of a token of
                high entropy, rescaled to sum 1, and of one of low entropy the largest alone.
        """
        weight = at_least_float32(self.weight)
        if self.offset is None:
            logits = entropy.to(weight.dtype)[..., None] * weight
        else:
            logits = linear(hidden.to(weight.dtype), weight, self.offset.to(weight.dtype))
        warm, cold = self.temperatures
        tau = torch.where(high, warm, cold).to(logits.dtype)[..., None]
        gates = (logits / tau).softmax(-1)
        return served_gates(gates, high, self.top) if served else gates


def served_gates(gates: Tensor, high: Tensor, top: int) -> Tensor:
    """The gates as they are when the model is used.

    Args:
        gates: [..., N], each position sums to 1.
        high: [...] bool.
        top: Experts of a token of high entropy.
    """
    kept, places = gates.topk(min(top, gates.shape[-1]), -1)
    mixed = torch.zeros_like(gates).scatter(-1, places, kept / kept.sum(-1, keepdim=True))
    alone = torch.zeros_like(gates).scatter(-1, places[..., :1], 1.0)
    return torch.where(high[..., None], mixed, alone)
