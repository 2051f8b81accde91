"""The textbook way to write five unlearning losses: the bench's opponent.

As it stands in most published code: one forward for the forget rows and another for the retain
rows, a second live model for whatever is compared with the start, the whole vocabulary at every
position, every layer run. Each function returns the loss of one step; `tests/benches` shows that
value and gradient are those of the methods in `expunge.methods`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Right-padded rows, as a collator makes them.

    Attributes:
        input_ids: [B, T].
        attention_mask: [B, T].
        labels: [B, T], -100 where nothing is supervised.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def shifted(self) -> Tensor:
        """[B, T - 1], what each position predicts; -100 where nothing is supervised."""
        return self.labels[:, 1:]

    @property
    def supervised(self) -> Tensor:
        """[B, T - 1] bool."""
        return self.shifted != IGNORED


Loss = Callable[[nn.Module, nn.Module, Batch, Batch, Any], Tensor]


def npo(model: nn.Module, anchor: nn.Module, forget: Batch, retain: Batch, params: Any) -> Tensor:
    """Negative preference optimisation with a retain term."""
    with torch.no_grad():
        before = row_logp(anchor, forget)
    ratio = row_logp(model, forget) - before
    losses = -2 / params.beta * functional.logsigmoid(-params.beta * ratio)
    return params.forget_weight * losses.mean() + params.retain_weight * nll(model, retain)


def simnpo(
    model: nn.Module, anchor: nn.Module, forget: Batch, retain: Batch, params: Any
) -> Tensor:
    """The same without an anchor, on length-normalised log-probabilities."""
    excess = -row_logp(model, forget) / forget.supervised.sum(1) - params.delta
    losses = -2 / params.beta * functional.logsigmoid(params.beta * excess)
    return params.forget_weight * losses.mean() + params.retain_weight * nll(model, retain)


def kl_min(
    model: nn.Module, anchor: nn.Module, forget: Batch, retain: Batch, params: Any
) -> Tensor:
    """Ascent on the forget rows, divergence from the start on every real retain position."""
    with torch.no_grad():
        before = logp(anchor, retain)
    now = logp(model, retain)
    each = functional.kl_div(now, before, reduction="none", log_target=True).sum(-1)
    real = retain.attention_mask.bool()
    return -params.forget_weight * nll(model, forget) + params.retain_weight * each[real].mean()


def undial(
    model: nn.Module, anchor: nn.Module, forget: Batch, retain: Batch, params: Any
) -> Tensor:
    """Self-distillation to the start's distribution with the target's logit lowered."""
    with torch.no_grad():
        logits = logits_of(anchor, forget)[:, :-1]
        target = functional.one_hot(forget.shifted.clamp(min=0), logits.shape[-1])
        teacher = (logits - params.beta * target).softmax(-1)
    student = logp(model, forget)[:, :-1]
    each = -(teacher * student).sum(-1)
    loss = params.forget_weight * each[forget.supervised].mean()
    return loss + params.retain_weight * nll(model, retain)


def rmu(model: nn.Module, anchor: nn.Module, forget: Batch, retain: Batch, params: Any) -> Tensor:
    """Forget states towards a fixed vector, retain states kept; ``params.vector`` is [d]."""
    with torch.no_grad():
        before = states(anchor, retain, params.layer)
    pushed = ((states(model, forget, params.layer) - params.vector) ** 2).mean(-1)
    kept = ((states(model, retain, params.layer) - before) ** 2).mean(-1)
    looked_at = forget.attention_mask.bool().clone()
    looked_at[:, 0] = params.include_first
    return (
        params.forget_weight * pushed[looked_at].mean()
        + params.retain_weight * kept[retain.attention_mask.bool()].mean()
    )


LOSSES: dict[str, Loss] = {
    "npo": npo,
    "simnpo": simnpo,
    "kl-min": kl_min,
    "undial": undial,
    "rmu": rmu,
}


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """[B, T, V] in float32."""
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return found.logits.float()


def logp(model: nn.Module, batch: Batch) -> Tensor:
    """[B, T, V], log-probabilities."""
    return logits_of(model, batch).log_softmax(-1)


def row_logp(model: nn.Module, batch: Batch) -> Tensor:
    """[B], summed over the supervised tokens of each row, nats."""
    picked = logp(model, batch)[:, :-1].gather(-1, batch.shifted.clamp(min=0)[..., None])
    return (picked[..., 0] * batch.supervised).sum(1)


def nll(model: nn.Module, batch: Batch) -> Tensor:
    """Token mean, by the model's own loss."""
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=batch.labels,
        use_cache=False,
    ).loss


def states(model: nn.Module, batch: Batch, layer: int) -> Tensor:
    """[B, T, d], output of a block; the whole model runs."""
    found = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        use_cache=False,
        output_hidden_states=True,
    )
    return found.hidden_states[layer + 1]
