"""How a detector comes about: the encoder learns the request's texts, then its scores are fitted.

Objective of the encoder (z_i: token mean of hidden state i, the embedding's among them):
    L = CE( masked tokens ) + sum_i mean_rows H( softmax_columns( z_i z0_i^T ) )

    z_i is taken on the masked text, z0_i on the clean text by the encoder without what it has
    learnt; H is the entropy of a row. A causal encoder has no mask: a random token stands in its
    place, and the token itself is predicted from the position before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import get_scheduler

from expunge.core.rng import generator
from expunge.engine import likeness
from expunge.engine.likeness import How
from expunge.engine.rates import EXPONENT, FULL_SIZE
from expunge.lm.encoders import Ids, Parts, TextEncoder, Vocabulary
from expunge.lm.low_rank import LowRank
from expunge.methods.o3.detector import Detector

if TYPE_CHECKING:
    from expunge.methods.o3 import Params

PAPER_RATE = 1e-5
"""Of the encoder; below half a billion parameters it grows as the method's own does."""

MASKED, DRAWN = 0.8, 0.9
"""Of the chosen tokens, the share that is masked, and that with those that are drawn at random."""

CLIP = 1.0
"""Longest gradient of a step."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What a detector is fitted to, as token ids of the model.

    Attributes:
        rows: Of each row of the request its texts.
        strangers: Texts like them about others, which must not be taken for them.
    """

    rows: Sequence[Sequence[Ids]]
    strangers: Sequence[Ids] = ()


def fitted(
    encoder: TextEncoder, vocabulary: Vocabulary, texts: Texts, params: "Params", seed: int
) -> Detector:
    """The detector of a request.

    Args:
        encoder: Reads texts.
        vocabulary: What they are masked with.
        texts: The request's.
        params: The method's parameters.
        seed: Of the run.
    """
    every = [text for row in texts.rows for text in row]
    rows = [at for at, row in enumerate(texts.rows) for _ in row]
    beside = trained(encoder, vocabulary, every, params, seed)
    vectors = encoder.vectors(every, beside).float()
    strangers = None
    if texts.strangers and params.score != "official":
        strangers = encoder.vectors(texts.strangers, beside).float()
    how = How(
        score=params.score, nu=params.nu, gate=params.gate, low=params.low, high=params.high
    )  # fmt: skip
    return Detector(encoder, beside, likeness.fitted(vectors, rows, how, seed, strangers))


def trained(
    encoder: TextEncoder,
    vocabulary: Vocabulary,
    texts: Sequence[Ids],
    params: "Params",
    seed: int,
) -> Parts:
    """What stands beside the encoder's queries, keys and values once it has learnt the texts."""
    beside = {
        name: LowRank.new(
            encoder.linear(name),
            params.detector_r,
            params.detector_alpha,
            at,
            seed,
            "o3",
            "detector",
            name,
        )
        for at, name in enumerate(encoder.linears)
    }
    weights = [weight for part in beside.values() for weight in part.parameters()]
    optimiser = torch.optim.AdamW(
        weights, lr=rate_of(encoder, params), weight_decay=params.detector_weight_decay
    )
    rows = [encoder.tokens(text) for text in texts]
    batches = list(_batches(len(rows), params, seed))
    warmup = ceil(params.detector_warmup * len(batches))
    schedule = get_scheduler("linear", optimiser, warmup, len(batches))
    with torch.enable_grad():
        for number, batch in enumerate(batches):
            draw = generator(seed, "o3", "mask", number)
            loss = detector_loss(
                encoder, vocabulary, [rows[at] for at in batch], beside, draw,
                masked=params.masked, contrast=params.contrast,
            )  # fmt: skip
            found = torch.autograd.grad(loss, weights)
            for weight, gradient in zip(weights, found, strict=True):
                weight.grad = gradient
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimiser.step()
            schedule.step()
    for part in beside.values():
        part.requires_grad_(False)
    return beside


def rate_of(encoder: TextEncoder, params: "Params") -> float:
    """The encoder's learning rate."""
    if params.detector_lr != "auto":
        return float(params.detector_lr)
    size = sum(weight.numel() for weight in encoder.model.parameters())
    return float(PAPER_RATE * max(1.0, FULL_SIZE / size) ** EXPONENT)


def _batches(count: int, params: "Params", seed: int) -> Iterator[list[int]]:
    for epoch in range(params.detector_epochs):
        order = generator(seed, "o3", "detector", epoch).permutation(count).tolist()
        for start in range(0, count, params.detector_batch):
            yield order[start : start + params.detector_batch]


def detector_loss(
    encoder: TextEncoder,
    vocabulary: Vocabulary,
    rows: Sequence[list[int]],
    beside: Parts,
    draw: np.random.Generator,
    *,
    masked: float,
    contrast: float,
) -> Tensor:
    """The objective of the encoder on a batch.

    Args:
        encoder: The encoder.
        vocabulary: What rows are masked with.
        rows: Its own tokens.
        beside: What learns.
        draw: Decides which tokens are masked.
        masked: Share of the tokens that are.
        contrast: Weight of the entropies.
    """
    hidden = [masked_row(row, vocabulary, draw, masked, first=int(encoder.causal)) for row in rows]
    outputs, real = encoder.read([ids for ids, _ in hidden], beside)
    with torch.no_grad():
        clean = encoder.means(*encoder.read(rows, {}))
    places = [(row, at) for row, (_, chosen) in enumerate(hidden) for at in chosen]
    loss: Tensor = outputs.logits.new_zeros((), dtype=torch.float32)
    if places:
        true = torch.tensor([rows[row][at] for row, at in places], device=encoder.device)
        where = torch.tensor(places, device=encoder.device)
        logits = outputs.logits[where[:, 0], where[:, 1] - int(encoder.causal)]
        loss = cross_entropy(logits.float(), true)
    loss = loss + contrast * contrastive_entropy(encoder.means(outputs, real), clean)
    return loss


def masked_row(
    row: Sequence[int],
    vocabulary: Vocabulary,
    draw: np.random.Generator,
    share: float,
    *,
    first: int,
) -> tuple[list[int], list[int]]:
    """A row with some tokens hidden, and their places: at least one, where there is text.

    Args:
        row: Token ids.
        vocabulary: Special tokens are never hidden. Without a mask a random token stands for it.
        draw: Decides everything.
        share: Of the tokens that are hidden.
        first: First place that may be.
    """
    open_ = [at for at in range(first, len(row)) if row[at] not in vocabulary.specials]
    if not open_:
        return list(row), []
    chosen = [at for at, drawn in zip(open_, draw.random(len(open_)), strict=True) if drawn < share]
    chosen = chosen or [open_[int(draw.integers(len(open_)))]]
    ids = list(row)
    for at, how in zip(chosen, draw.random(len(chosen)), strict=True):
        if how < MASKED and vocabulary.mask is not None:
            ids[at] = vocabulary.mask
        elif how < DRAWN:
            ids[at] = int(draw.integers(vocabulary.size))
    return ids, chosen


def contrastive_entropy(means: Tensor, clean: Tensor) -> Tensor:
    """``sum_i mean_rows H( softmax( z_i z0_i^T ) )``, with no temperature and no normalising.

    Args:
        means: [B, 1 + L, d], z.
        clean: [B, 1 + L, d], z0.
    """
    products = torch.einsum("bid,cid->ibc", means, clean)
    logp = products.log_softmax(-1)
    entropy: Tensor = -(logp.exp() * logp).sum(-1).mean(-1).sum()
    return entropy
