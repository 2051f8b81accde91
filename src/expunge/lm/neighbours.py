"""Texts close to a text: some of its tokens replaced by tokens of like embedding.

Definition (e the embedding, t a token of the text; all tokens but t and the special ones may stand
for it):
    nearest(t, j)     the j-th of them by cos(e(.), e(t))
    opposite(t, j)    argmin |e(.) - (2 e(t) - e(nearest(t, j)))|    about as far, the other way
    d(x, x')          |mean_t e(x'_t) - e(x_t)| over the tokens that may be replaced
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded
from expunge.lm.subject import Subject

CHUNK = 256
"""Tokens whose neighbours are looked for at once."""


class Variant(NamedTuple):
    """A text close to another one.

    Attributes:
        item: The text.
        distance: From the other one, in the space of the embedding.
    """

    item: Encoded
    distance: float


class Pair(NamedTuple):
    """Two variants of a text, the same tokens moved, in opposite directions."""

    there: Variant
    back: Variant


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Which tokens may stand for which.

    Attributes:
        nearest: Token and rank -> the neighbour of that rank.
        opposite: The same -> the token on the other side.
        embeddings: [V, d].
    """

    nearest: Mapping[tuple[int, int], int]
    opposite: Mapping[tuple[int, int], int]
    embeddings: Tensor

    def pairs(
        self, item: Encoded, *, share: float, rank: int, count: int, rng: np.random.Generator
    ) -> list[Pair]:
        """Variants of a text.

        Args:
            item: The text; only its supervised tokens are replaced.
            share: Probability with which each of them is; one always is.
            rank: Which neighbour takes its place.
            count: Number of pairs.
            rng: Decides the tokens.

        Returns:
            The pairs; none where no token may be replaced.
        """
        places = self.places(item, rank)
        return [
            Pair(
                self._moved(item, chosen, len(places), self.nearest, rank),
                self._moved(item, chosen, len(places), self.opposite, rank),
            )
            for chosen in _draws(places, share, count, rng)
        ]

    def places(self, item: Encoded, rank: int) -> list[int]:
        """Places of the supervised tokens that have a neighbour of this rank."""
        return [
            place
            for place, token in enumerate(item.labels)
            if token != IGNORED and (token, rank) in self.nearest
        ]

    def _moved(
        self,
        item: Encoded,
        chosen: Collection[int],
        length: int,
        to: Mapping[tuple[int, int], int],
        rank: int,
    ) -> Variant:
        ids, labels = list(item.ids), list(item.labels)
        for place in chosen:
            ids[place] = labels[place] = to[item.ids[place], rank]
        moved = self.embeddings[[ids[place] for place in chosen]]
        before = self.embeddings[[item.ids[place] for place in chosen]]
        distance = float((moved - before).sum(0).norm()) / length
        return Variant(replace(item, ids=ids, labels=labels), distance)


def neighbours(
    embeddings: Tensor, tokens: Collection[int], ranks: Sequence[int], banned: Collection[int]
) -> Neighbours:
    """Find the neighbours of some tokens.

    Args:
        embeddings: [V, d].
        tokens: The tokens.
        ranks: Which neighbours, 1 for the nearest.
        banned: Tokens that neither are replaced nor take a place.

    Raises:
        ExpungeError: ``E-USE-003`` when there are not so many candidates.
    """
    wanted = sorted(set(tokens) - set(banned))
    candidates = len(embeddings) - len(set(banned)) - 1
    if wanted and max(ranks) > candidates:
        raise ExpungeError(
            "E-USE-003",
            f"Neighbour {max(ranks)} of a token in a vocabulary of {candidates} others.",
            f"a rank of at most {max(candidates, 0)}.",
            "Ask for nearer neighbours.",
        )
    vectors = embeddings.detach().float()
    nearest: dict[tuple[int, int], int] = {}
    opposite: dict[tuple[int, int], int] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        for rank, near, far in _found(vectors, chunk, ranks, banned):
            nearest |= {(token, rank): new for token, new in zip(chunk, near, strict=True)}
            opposite |= {(token, rank): new for token, new in zip(chunk, far, strict=True)}
    return Neighbours(nearest, opposite, vectors)


def neighbours_of(subject: Subject, items: Sequence[Encoded], ranks: Sequence[int]) -> Neighbours:
    """Neighbours of all supervised tokens of some texts, by a model's embedding.

    Special tokens, and rows of the embedding that stand for no token, are left alone.
    """
    layer: Any = subject.model.get_input_embeddings()
    embeddings: Tensor = layer.weight.detach().cpu()
    special = {token for token in subject.tokenizer.all_special_ids if token < len(embeddings)}
    unused = range(len(subject.tokenizer), len(embeddings))
    tokens = {token for item in items for token in item.labels if token != IGNORED}
    return neighbours(embeddings, tokens, ranks, special | set(unused))


def _found(
    vectors: Tensor, tokens: Sequence[int], ranks: Sequence[int], banned: Collection[int]
) -> Iterator[tuple[int, list[int], list[int]]]:
    """For each rank the neighbours of the tokens, and the tokens opposite to them."""
    own = torch.tensor(tokens)
    shut = torch.zeros(len(tokens), len(vectors), dtype=torch.bool)
    shut[:, sorted(banned)] = True
    shut[torch.arange(len(tokens)), own] = True
    unit = torch.nn.functional.normalize(vectors, dim=1)
    cosine = (unit[own] @ unit.T).masked_fill(shut, -torch.inf)
    order = cosine.topk(max(ranks), dim=1).indices
    squares = vectors.square().sum(1)
    for rank in ranks:
        near = order[:, rank - 1]
        mirrored = 2 * vectors[own] - vectors[near]
        distance = (squares - 2 * mirrored @ vectors.T).masked_fill(shut, torch.inf)
        yield rank, near.tolist(), distance.argmin(1).tolist()


def _draws(
    places: Sequence[int], share: float, count: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Which tokens are replaced, for each pair."""
    for _ in range(count if places else 0):
        drawn = rng.random(len(places)) < share
        if not drawn.any():
            drawn[rng.integers(len(places))] = True
        yield [place for place, is_drawn in zip(places, drawn, strict=True) if is_drawn]
