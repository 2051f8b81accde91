"""The shift of hidden states with which an adversary gets the most out of a model.

He adds a vector to what the MLP of one block puts out, another one for each token of a forget row,
so that the model finds the row likely and, under the very same vectors, the row that stands beside
it unlikely (latent adversarial training). No vector may be longer than a radius.

Every row is searched for by itself: its loss is a sum of its own two means, and the optimiser goes
by single values. So the vectors of a row are the same however the rows are cut into batches.

Reference: Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs,
2024.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from expunge.engine.forward import Inputs
from expunge.engine.view import Editing, View
from expunge.lm.adversary import differentiable
from expunge.lm.descent import projected
from expunge.lm.hooks import evaluating, intervene

Vectors = Sequence[Tensor]
"""For each row of a batch [n, d]: what is added at its n real tokens, in their order."""


@dataclass(frozen=True, slots=True)
class Search:
    """How an adversary looks for his vectors.

    Attributes:
        layer: The block whose MLP output he shifts, negative from the top.
        radius: Longest vector (Euclidean).
        steps: Steps of AdamW, from vectors of zeros.
        lr: Their learning rate.
    """

    layer: int
    radius: float
    steps: int
    lr: float

    def __call__(self, toward: View, away: View | None = None) -> list[Tensor]:
        """The vectors that make rows likely.

        Args:
            toward: The rows.
            away: As many rows beside them, which the same vectors are to make unlikely.

        Returns:
            [n, d] for each row, of the precision of the hidden states (float32 at least).
        """
        counts = toward.inputs.attention_mask.sum(1)
        like = toward.changed(evaluating).hidden(self.layer)
        vectors = like.new_zeros(len(counts), int(counts.max()), like.shape[-1])
        vectors.requires_grad_()
        optimiser = torch.optim.AdamW([vectors], lr=self.lr)
        for _ in range(self.steps):
            with torch.enable_grad():
                loss = -self._shifted(toward, vectors, counts).logp_mean
                if away is not None:
                    loss = loss + refusals(self._shifted(away, vectors, counts))
            vectors.grad = torch.autograd.grad(loss.sum(), vectors)[0]
            optimiser.step()
            with torch.no_grad():
                vectors.copy_(projected(vectors, self.radius))
        found = vectors.detach()
        return [row[:count].clone() for row, count in zip(found, counts.tolist(), strict=True)]

    def _shifted(self, view: View, vectors: Tensor, counts: Tensor) -> View:
        return view.changed(_adding(self.layer, laid(vectors, counts, view.inputs), view.inputs))


def shifted(view: View, layer: int, vectors: Vectors) -> View:
    """The same rows under a model to whose MLP output in one block the vectors are added."""
    device = view.inputs.input_ids.device
    counts = torch.tensor([len(row) for row in vectors], device=device)
    padded = pad_sequence([row.to(device) for row in vectors], batch_first=True)
    return view.changed(_adding(layer, laid(padded, counts, view.inputs), view.inputs))


def laid(vectors: Tensor, counts: Tensor, inputs: Inputs) -> Tensor:
    """Vectors at the tokens they belong to: the first of a row at its first real token, and so on.

    Args:
        vectors: [B, n, d].
        counts: [B], how many of each row's are vectors; the others are no part of it.
        inputs: B rows; those with more real tokens than vectors keep the last ones as they are.

    Returns:
        [B, T, d], zero at padding.
    """
    real = inputs.attention_mask.bool()
    place = real.cumsum(1) - 1
    inside = real & (place < counts[:, None])
    index = place.clamp(0, vectors.shape[1] - 1)[..., None].expand(*real.shape, vectors.shape[-1])
    return vectors.gather(1, index) * inside[..., None]


def refusals(view: View) -> Tensor:
    """[B], mean over each row's supervised tokens of ``-log(1 - p)``, nats."""
    others = view.logits.scatter(1, view.labels[:, None], -torch.inf)
    each = view.logits.logsumexp(1) - others.logsumexp(1)
    sums = each.new_zeros(len(view.row)).index_add(0, view.inputs.batch_row, each)
    return sums / view.lengths.clamp(min=1)


def _adding(layer: int, shift: Tensor, inputs: Inputs) -> Editing:
    """Adds [B, T, d] to the MLP output of a block.

    In evaluation mode: in training mode a checkpointed block would run again for the backward
    pass, when nothing is added any more. Rows that are packed stand in one line.
    """
    change = shift[inputs.attention_mask.bool()][None] if inputs.packing else shift

    @contextmanager
    def edit(model: nn.Module) -> Iterator[Any]:
        with (
            differentiable(model),
            intervene(model, layer, lambda hidden: hidden + change.to(hidden), "mlp"),
        ):
            yield

    return edit
