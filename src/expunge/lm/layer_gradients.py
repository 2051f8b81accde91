"""How much each block would have to learn from a fact: squared gradients, row by row."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from expunge.core.bootstrap import FloatArray
from expunge.data.encode import collate
from expunge.lm.arch import Slots
from expunge.lm.representations import Spot
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject


def squared_gradients(subject: Subject, places: Mapping[str, Spot]) -> FloatArray:
    """Mean squared gradient of one row's loss, over the weights of each block and the rows.

    The loss is the mean negative log-likelihood of the fact's tokens. Rows go one at a time: the
    square of a batch's gradient is not the mean of its rows' squares. Weights of an adapter do not
    count, the weights they add to do, so folding the adapter in changes nothing. The model's own
    gradients, flags and mode are left as they were.

    Args:
        subject: The model.
        places: What `expunge.lm.representations.spots` found, at least one.

    Returns:
        [L], bottom block first.
    """
    model = subject.model
    blocks = [_weights(block.named_parameters()) for block in Slots(model).blocks]
    flags = [(weight, weight.requires_grad) for block in blocks for weight in block]
    was_training = model.training
    model.train(False)
    try:
        for weight, _ in flags:
            weight.requires_grad_(True)
        squares = [_squares(subject, spot, blocks) for spot in places.values()]
    finally:
        model.train(was_training)
        for weight, flag in flags:
            weight.requires_grad_(flag)
    mean: FloatArray = np.mean(squares, axis=0)
    return mean


def _weights(named: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    return [
        weight
        for name, weight in named
        if weight.is_floating_point() and ".lora_" not in f".{name}"
    ]


def _squares(subject: Subject, spot: Spot, blocks: Sequence[Sequence[Tensor]]) -> FloatArray:
    """Mean squared gradient over each block's weights, of one row."""
    batch = collate([spot.item], padding_id(subject.tokenizer))
    with torch.enable_grad():
        loss = -packed_logp(subject.model, batch).logp.mean()
    weights = [weight for block in blocks for weight in block]
    gradients = iter(torch.autograd.grad(loss, weights, allow_unused=True))
    sums = [sum(_square(next(gradients)) for _ in block) for block in blocks]
    return np.array(sums) / [max(sum(each.numel() for each in block), 1) for block in blocks]


def _square(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.double().square().sum())
