"""Where the first token of a value stands among all tokens, seen from the blocks of a model.

A budget allows few candidates of each block: the tokens at the top, and those at the bottom, where
an edit that pushed an answer away has put it. A token is a candidate only where every way of
breaking ties makes it one, so k candidates are never more than k.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.results import Leak
from expunge.data.encode import by_length
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.legible import left_out
from expunge.lm.lens import lens
from expunge.lm.prompted import last_states
from expunge.lm.relearn import draw_rows
from expunge.lm.subject import Scene, Subject
from expunge.lm.values import Place, places
from expunge.requests.rows import Row

At = Literal["value", "prompt"]
"""Where to read: before the value, the answer teacher forced up to it, or before the answer."""

TRIED = 20
"""Rows that layers are chosen on, at most."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One wording of a row: what the model reads, and the first token of the value."""

    row: str
    before: list[int]
    token: int


View = Callable[[Iterator[Tensor]], Iterator[Tensor]]
"""From the logits [N, V] of successive blocks to the scores [N, V] that are ranked."""


def levels(logits: Iterator[Tensor]) -> Iterator[Tensor]:
    """The probability at each block; its order is that of the logits."""
    return logits


def changes(logits: Iterator[Tensor]) -> Iterator[Tensor]:
    """How the probability changes from each block to the next one that is read."""
    for below, above in pairwise(each.softmax(-1) for each in logits):
        yield above - below


def aims(subject: Subject, rows: Sequence[Row], at: At) -> list[Aim]:
    """Where the values of some rows are read; wordings a model cannot read are left out."""
    found = ((row.id, _aim(subject, place, at)) for row in rows for place in places(row))
    return [Aim(row, *where) for row, where in found if where]


def _aim(subject: Subject, place: Place, at: At) -> tuple[list[int], int] | None:
    try:
        value = subject.encoder.encode(place.turn, keep=((place.start, place.end),))
        whole = subject.encoder.encode(place.turn)
    except ExpungeError:  # too long, nothing to read, or no template for a conversation
        return None
    first = next(at for at, label in enumerate(value.labels) if label >= 0)
    answer = next(at for at, label in enumerate(whole.labels) if label >= 0)
    return value.ids[: first if at == "value" else answer], value.ids[first]


def middle(depth: int) -> list[int]:
    """All blocks but the first and the last."""
    return list(range(1, depth - 1)) or [0]


def choose_layers(
    subject: Subject, scene: Scene, layers: Sequence[int], *, at: At, most: int
) -> list[int]:
    """At most so many of some blocks, chosen once for all rows and all attacked models.

    They are those at which the original gives the values of retain rows most probability; without
    an original of this depth, or rows to try it on, they are evenly spread.
    """
    if len(layers) <= most:
        return list(layers)
    original = scene.original
    depth = len(Slots(subject.model))
    if original is not None and len(Slots(original.model)) == depth:
        kept = draw_rows(scene.retain, TRIED, scene.seed, "projection")
        if tried := aims(original, kept, at):
            known = _probabilities(original, tried, layers)
            best = sorted(range(len(layers)), key=lambda place: (-known[place], place))
            return sorted(layers[place] for place in best[:most])
    return [layers[round(place)] for place in np.linspace(0, len(layers) - 1, most)]


def _probabilities(subject: Subject, tried: Sequence[Aim], layers: Sequence[int]) -> list[float]:
    """Mean probability of the tokens aimed at, at each block."""
    total = np.zeros(len(layers))
    for batch, logits in _logits(subject, tried, layers):
        token = torch.tensor([tried[place].token for place in batch])[:, None]
        total += [
            float(each.softmax(-1).gather(-1, token.to(each.device)).sum()) for each in logits
        ]
    return list(total / len(tried))


def candidates(
    subject: Subject, tried: Sequence[Aim], layers: Sequence[int], view: View, k: int
) -> NDArray[np.bool_]:
    """[2, L, N], whether each token is among the top k, or the bottom k, of each score."""
    parts, order = [], []
    for batch, logits in _logits(subject, tried, layers):
        token = torch.tensor([tried[place].token for place in batch])
        parts.append(np.stack([_ends(scores, token, k) for scores in view(logits)], axis=1))
        order += batch
    return np.concatenate(parts, axis=2)[:, :, np.argsort(order)]


def _ends(scores: Tensor, token: Tensor, k: int) -> NDArray[np.bool_]:
    """[2, N]: top, bottom."""
    own = scores.gather(-1, token.to(scores.device)[:, None])
    above, below = (scores >= own).sum(-1) <= k, (scores <= own).sum(-1) <= k
    ends: NDArray[np.bool_] = torch.stack([above, below]).cpu().numpy()
    return ends


def _logits(
    subject: Subject, tried: Sequence[Aim], layers: Sequence[int]
) -> Iterator[tuple[list[int], Iterator[Tensor]]]:
    """Places of some aims, and their logits [N, V] at each block, one block after the other."""
    for batch in by_length([len(aim.before) for aim in tried], subject.batch_size):
        states = last_states(subject, [tried[place].before for place in batch], layers)
        with evaluating(subject.model):
            yield batch, (lens(subject.model, states[layer]).float() for layer in layers)


def report(
    subject: Subject,
    rows: Sequence[Row],
    layers: Sequence[int],
    view: View,
    *,
    at: At,
    k: int,
    bottom: bool,
) -> Leak:
    """Whether the candidates of all blocks together hold the first token of the value.

    Args:
        subject: The model.
        rows: The attacked rows.
        layers: Blocks, bottom first.
        view: `levels` or `changes`.
        at: Where to read.
        k: Candidates from each end of each score.
        bottom: Whether the lower end is looked at, too.

    Returns:
        The leaks, the largest of all wordings; by block (a change counts for the upper one), by
        end, and what the budget and chance are.
    """
    tried = aims(subject, rows, at)
    ids = list(dict.fromkeys(aim.row for aim in tried))
    note = left_out(len(rows), len(ids), "cannot be read by the model")
    if not tried:
        return Leak(per_row={}, note=note)
    found = candidates(subject, tried, layers, view, k)[: 1 + bottom]

    def leaks(hits: NDArray[np.bool_]) -> dict[str, float]:
        given = dict.fromkeys(ids, 0.0)
        any_of: NDArray[np.bool_] = np.any(hits.reshape(-1, len(tried)), axis=0)
        for aim, hit in zip(tried, any_of, strict=True):
            given[aim.row] = max(given[aim.row], float(hit))
        return given

    def mean(hits: NDArray[np.bool_]) -> float:
        return float(np.mean(list(leaks(hits).values())))

    slots, (ends, scores, _) = Slots(subject.model), found.shape
    read = [slots.index(layer) for layer in layers][-scores:]
    budget, vocabulary = ends * k * scores, slots.embed.get_parameter("weight").shape[0]
    parts = {("top", "bottom")[end]: mean(found[end : end + 1]) for end in range(ends)}
    parts |= {"union": mean(found), "budget": float(budget)}
    return Leak(
        per_row=leaks(found),
        layers={layer: mean(found[:, place]) for place, layer in enumerate(read)},
        parts={**parts, "chance": min(1.0, budget / vocabulary)},
        note=note,
    )
