"""How probable a model finds the tokens of a value, at its output or at any block in between.

A value is read with its wording teacher forced up to it. The rivals of one contest differ only from
the value on, so what comes before is run once for all of them and its keys and values are reused:
ten rivals cost little more than one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from expunge.lm.arch import Slots
from expunge.lm.hooks import capture, evaluating
from expunge.lm.lens import lens
from expunge.lm.subject import Subject
from expunge.lm.values import Contest, Place

LINES_AT_ONCE = 4
"""Lines of one forward pass, in batches of the subject: they are a few tokens long."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The tokens of one value, read at L places of the model (blocks, or the output alone).

    Attributes:
        logp: [L, n] log-probability of each token, nats.
        hit: [L, n] whether it is the most probable token.
    """

    logp: NDArray[np.float64]
    hit: NDArray[np.bool_]

    @property
    def probability(self) -> NDArray[np.float64]:
        """[L] exp of the mean log-probability of the value's tokens."""
        geometric: NDArray[np.float64] = np.exp(self.logp.mean(axis=1))
        return geometric

    @property
    def spoken(self) -> NDArray[np.bool_]:
        """[L] whether every token is the most probable one."""
        every: NDArray[np.bool_] = np.all(self.hit, axis=1)
        return every

    @property
    def strength(self) -> float:
        """Extraction strength at the output: the longest tail of hits, as a share of the tokens."""
        tail = sum(1 for _ in takewhile(bool, self.hit[-1, ::-1]))
        return tail / len(self.hit[-1])


def share_of_first(readings: Sequence[Reading]) -> NDArray[np.float64]:
    """[L] probability of the first value as a share of all values of its contest."""
    first, *rivals = (reading.probability for reading in readings)
    total = first + sum(rivals, np.zeros_like(first))
    return np.where(total > 0, first / np.where(total > 0, total, 1.0), 0.0)


def by_row_and_layer(
    contests: Sequence[Contest], leaks: Sequence[NDArray[np.float64]], layers: Sequence[int]
) -> tuple[dict[str, float], dict[int, float]]:
    """Largest leak of each row over layers and wordings, and the mean over rows at each layer.

    Args:
        contests: What was read.
        leaks: [L] of each contest.
        layers: The blocks that were read.

    Returns:
        Row id -> leak, and block -> mean over rows of the largest leak there over wordings.
    """
    rows: dict[str, NDArray[np.float64]] = {}
    for contest, leak in zip(contests, leaks, strict=True):
        rows[contest.row] = np.maximum(rows.get(contest.row, leak), leak)
    means = np.mean(list(rows.values()), axis=0) if rows else []
    per_layer = {layer: float(mean) for layer, mean in zip(layers, means, strict=bool(rows))}
    return {row: float(of.max()) for row, of in rows.items()}, per_layer


def middle_layers(model: torch.nn.Module) -> tuple[int, ...]:
    """All blocks but the first, which has seen little, and the last, which is the output."""
    depth = len(Slots(model))
    return tuple(range(1, depth - 1)) or (0,)


def read(
    subject: Subject, contests: Sequence[Contest], layers: Sequence[int] | None = None
) -> list[list[Reading]]:
    """Read the values of all contests.

    Args:
        subject: The model.
        contests: Lines that share their beginning.
        layers: Blocks whose output is put through final norm and head; None reads the output.

    Returns:
        One list for each contest, one reading for each of its lines, in the order given.
    """
    groups = [_group(subject, contest.lines) for contest in contests]
    order = sorted(
        range(len(groups)), key=lambda index: (groups[index].lines, groups[index].shared)
    )
    found: list[list[Reading]] = [[] for _ in groups]
    with evaluating(subject.model):
        for batch in _batches(order, groups, LINES_AT_ONCE * subject.batch_size):
            scored = _score(subject, [groups[index] for index in batch], layers)
            for index, readings in zip(batch, scored, strict=True):
                found[index] = readings
    return found


@dataclass(frozen=True, slots=True)
class _Line:
    """Token ids of one line up to the end of its value, which begins at `first`."""

    ids: list[int]
    first: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The lines of one contest; their first `shared` tokens are equal and before every value."""

    members: list[_Line]
    shared: int

    @property
    def lines(self) -> int:
        return len(self.members)


def _group(subject: Subject, places: Sequence[Place]) -> _Group:
    members = [_line(subject, place) for place in places]
    columns = zip(*(line.ids for line in members), strict=False)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    # The token before the value predicts it, so it belongs to what is run for each line.
    return _Group(members, min(common, *(line.first for line in members)) - 1)


def _line(subject: Subject, place: Place) -> _Line:
    encoded = subject.encoder.encode(place.turn)
    supervised = [at for at, label in enumerate(encoded.labels) if label != -100 and at > 0]
    spans = encoded.spans[-len(supervised) :]
    inside = [
        at
        for at, (start, end) in zip(supervised, spans, strict=True)
        if start < place.end and end > place.start
    ]
    inside = inside or supervised
    return _Line(encoded.ids[: inside[-1] + 1], inside[0])


def _batches(order: Sequence[int], groups: Sequence[_Group], lines: int) -> Iterator[list[int]]:
    """Runs of groups with equally many lines, about ``lines`` of them together."""
    batch: list[int] = []
    for index in order:
        size = groups[index].lines
        if batch and (size != groups[batch[0]].lines or (len(batch) + 1) * size > lines):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _score(
    subject: Subject, groups: Sequence[_Group], layers: Sequence[int] | None
) -> list[list[Reading]]:
    device = next(subject.model.parameters()).device
    tails = [(line, group.shared) for group in groups for line in group.members]
    ids, mask = _pad([line.ids[shared:] for line, shared in tails], "right")
    keep, counts = torch.zeros_like(mask), []
    for row, (line, shared) in enumerate(tails):
        keep[row, line.first - 1 - shared : len(line.ids) - 1 - shared] = True
        counts.append(len(line.ids) - line.first)
    target = ids.roll(-1, dims=1)[keep].to(device)
    inputs = _after_prefix(subject, groups, ids.to(device), mask.to(device))
    logits = _logits(subject.model, inputs, keep.to(device), layers)
    logp = torch.stack([-functional.cross_entropy(at, target, reduction="none") for at in logits])
    hit = torch.stack([at.argmax(-1) == target for at in logits])
    ends = np.cumsum(counts)[:-1]
    logps = np.split(logp.double().cpu().numpy(), ends, axis=1)
    hits = np.split(hit.cpu().numpy(), ends, axis=1)
    readings = [Reading(*pair) for pair in zip(logps, hits, strict=True)]
    each = groups[0].lines
    return [readings[at : at + each] for at in range(0, len(readings), each)]


def _after_prefix(
    subject: Subject, groups: Sequence[_Group], ids: Tensor, mask: Tensor
) -> dict[str, object]:
    """Model inputs for the tails, with what comes before them as stored keys and values."""
    shared = torch.tensor([group.shared for group in groups], device=ids.device)
    each = groups[0].lines
    offset = shared.repeat_interleave(each)[:, None]
    position = offset + torch.arange(ids.shape[1], device=ids.device)
    if not int(shared.max()):
        return {"input_ids": ids, "attention_mask": mask.long(), "use_cache": False}
    before, seen = _pad([group.members[0].ids[: group.shared] for group in groups], "left")
    before, seen = before.to(ids.device), seen.to(ids.device)
    cache = DynamicCache(config=subject.model.config)
    subject.model(
        input_ids=before,
        attention_mask=seen.long(),
        position_ids=(seen.long().cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(each)
    seen = torch.cat([seen.repeat_interleave(each, 0), mask], 1)
    return {
        "input_ids": ids,
        "attention_mask": seen.long(),
        "position_ids": position,
        "past_key_values": cache,
        "use_cache": True,
    }


def _logits(
    model: torch.nn.Module, inputs: dict[str, object], keep: Tensor, layers: Sequence[int] | None
) -> list[Tensor]:
    """Logits [N, V] at the kept positions: of the output, or of each block."""
    if layers is None:
        return [model(**inputs, logits_to_keep=keep).logits.float()]
    with capture(model, layers) as hidden:
        model(**inputs, logits_to_keep=1)
    return [lens(model, hidden[layer][keep]).float() for layer in layers]


def _pad(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
    """Ids [B, T] and which of them are real, [B, T] bool."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        at = slice(0, len(tokens)) if side == "right" else slice(width - len(tokens), width)
        ids[row, at], mask[row, at] = torch.tensor(tokens, dtype=torch.long), True
    return ids, mask
