"""Scoring many answers, with one pass over the beginning that several of them share.

Rows are sorted into families with a common beginning; the keys and values of each beginning are
computed once, and every answer continues from them. The beginnings of one pass are cut to the
shortest of them: nothing is padded on the left, so neither masks nor positions are needed, and
the values are those of each row alone.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from expunge.data.encode import IGNORED, Encoded
from expunge.lm.arch import base_of
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import masked_logits, stands_out, takes

Ids = Sequence[int]

WORTH = 1 / 8
"""Share of its tokens that a family must save; below, the additional pass costs more."""

ALIKE = 3 / 4
"""Beginnings of one pass are at least this share of the longest, since all are cut alike."""

ORDINARY = (DynamicLayer, DynamicSlidingWindowLayer)
"""Stored keys and values from which any rows may be taken, in any order."""


class TokenScores(NamedTuple):
    """Scores of the supervised tokens of one row.

    Attributes:
        logp: [n], log-probabilities in nats.
        hit: [n], whether each is the most probable token.
    """

    logp: npt.NDArray[np.float64]
    hit: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Room:
    """What one forward pass may hold.

    Attributes:
        tokens: Positions computed, padding included; it bounds the logits as well.
        stored: Positions whose keys and values are stored.
    """

    tokens: int
    stored: int


@dataclass(frozen=True, slots=True)
class Line:
    """What of a row is run: nothing after the last token that predicts.

    Attributes:
        ids: Input ids.
        targets: The token that follows each, `IGNORED` where it is not supervised.
        free: How many of the first ids predict nothing that is scored.
    """

    ids: list[int]
    targets: list[int]
    free: int

    @classmethod
    def of(cls, item: Encoded) -> "Line":
        """The line of an encoded turn."""
        places = [place for place, label in enumerate(item.labels) if label != IGNORED]
        return cls(item.ids[: places[-1]], item.labels[1 : places[-1] + 1], places[0] - 1)


@dataclass(slots=True)
class Family:
    """Lines whose first `shared` ids are the same, and all free.

    Attributes:
        members: Their numbers.
        shared: Length of the common beginning.
    """

    members: list[int]
    shared: int

    @property
    def saved(self) -> int:
        """Tokens that need not be run again."""
        return (len(self.members) - 1) * self.shared


def score_all(
    model: nn.Module, items: Sequence[Encoded], pad: int, room: Room
) -> list[TokenScores]:
    """Score the supervised tokens of some rows.

    Args:
        model: A causal language model, in evaluation mode.
        items: The rows, each with at least one supervised token.
        pad: Id to pad with.
        room: What one pass may hold.

    Returns:
        The scores, in the order of ``items``.
    """
    lines = [Line.of(item) for item in items]
    related = families(lines) if len(lines) > 1 and can_share(model) else []
    together = {member for family in related for member in family.members}
    alone = [place for place in range(len(lines)) if place not in together]
    scoring = _Scoring(model, lines, pad)
    found: dict[int, TokenScores] = {}
    for batch in filled([len(lines[i].ids) for i in alone], room.tokens):
        found |= scoring.scored([alone[i] for i in batch])
    for party in _parties(related, room):
        found |= scoring.continued(party, room)
    return [found[place] for place in range(len(lines))]


def filled(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, the longest first, as many rows as fit.

    Args:
        lengths: Length of each row.
        tokens: Most positions of a batch, padding included; one row may be longer.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches, start = [], 0
    while start < len(order):
        rows = max(1, tokens // max(1, lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def families(lines: Sequence[Line]) -> list[Family]:
    """Lines that share enough of their beginning.

    Sorted by ids, relatives are neighbours. Neighbours are joined from the longest common
    beginning downwards, as long as joining saves tokens.
    """
    order = sorted(range(len(lines)), key=lambda i: lines[i].ids)
    common = [_common(lines[a], lines[b]) for a, b in pairwise(order)]
    family = [Family([place], 0) for place in order]
    for at in sorted(range(len(common)), key=lambda i: -common[i]):
        left, right = family[at], family[at + 1]
        joined = Family(left.members + right.members, common[at])
        if joined.saved > left.saved + right.saved:
            first = at + 1 - len(left.members)
            family[first : first + len(joined.members)] = [joined] * len(joined.members)
    distinct = {id(one): one for one in family}.values()
    return [one for one in distinct if one.saved > WORTH * _total(one, lines)]


def can_share(model: nn.Module) -> bool:
    """Whether rows of a model may continue from stored keys and values.

    Not where the state is something else than keys and values of attention, where the model takes
    none, or where angles of rotation depend on how long the row will be.
    """
    base = base_of(model)
    if base not in _SHARING:
        _SHARING[base] = _stores_attention(base)
    return _SHARING[base]


def new_cache(model: nn.Module) -> DynamicCache:
    """An empty store of keys and values, with the layers the model declares."""
    base: Any = base_of(model)
    return DynamicCache(config=base.config)


def reconsider(model: nn.Module) -> None:
    """Find out anew whether rows of a model may share; for whoever hooks something in or out."""
    _SHARING.pop(base_of(model), None)


_SHARING: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _stores_attention(model: nn.Module) -> bool:
    if not (takes(model, "past_key_values") and takes(model, "position_ids")):
        return False
    if any(_turns_by_length(module) for module in model.modules()):
        return False
    cache, ids = new_cache(model), torch.zeros(1, 1, dtype=torch.long, device=_device(model))
    with evaluating(model):
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    return bool(cache.layers) and all(
        isinstance(layer, DynamicLayer) and type(layer) in ORDINARY and layer.get_seq_length() == 1
        for layer in cache.layers
    )


def _turns_by_length(module: nn.Module) -> bool:
    kinds = getattr(module, "rope_type", ())
    listed = kinds.values() if isinstance(kinds, dict) else (kinds,)
    return any(kind == "longrope" or "dynamic" in kind for kind in listed if kind)


def _common(a: Line, b: Line) -> int:
    """How many first ids are the same and free in both."""
    most = min(a.free, b.free)
    return next((i for i in range(most) if a.ids[i] != b.ids[i]), most)


def _total(family: Family, lines: Sequence[Line]) -> int:
    return sum(len(lines[member].ids) for member in family.members)


def _parties(related: Sequence[Family], room: Room) -> Iterator[list[Family]]:
    """Families whose beginnings are run in one pass: of similar length, longest first."""
    party: list[Family] = []
    for one in sorted(related, key=lambda family: -family.shared):
        full = (len(party) + 1) * one.shared > room.tokens
        if party and (full or one.shared < ALIKE * party[0].shared):
            yield party
            party = []
        party.append(one)
    if party:
        yield party


class _Past(NamedTuple):
    """What is stored of some rows: keys and values of their first `length` ids."""

    cache: DynamicCache
    length: int

    def of_rows(self, rows: Sequence[int]) -> "_Past":
        """Some of the rows, as often as named; what is stored stays as it is."""
        chosen = copy.copy(self.cache)
        chosen.layers = [copy.copy(layer) for layer in self.cache.layers]
        chosen.batch_select_indices(torch.tensor(rows))
        return _Past(chosen, self.length)


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Forward passes over some of the lines; `pad` fills them up."""

    model: nn.Module
    lines: Sequence[Line]
    pad: int

    def continued(self, party: Sequence[Family], room: Room) -> dict[int, TokenScores]:
        """Run the beginnings of some families once, and all their answers after them."""
        past = self._begun(party)
        members = [(member, row) for row, one in enumerate(party) for member in one.members]
        lengths = [len(self.lines[member].ids) - past.length for member, _ in members]
        most = max(1, room.stored // (past.length + max(lengths)))
        found: dict[int, TokenScores] = {}
        for batch in filled(lengths, room.tokens):
            for start in range(0, len(batch), most):
                chosen = [members[i] for i in batch[start : start + most]]
                mine = past.of_rows([row for _, row in chosen])
                found |= self.scored([member for member, _ in chosen], mine)
        return found

    def scored(self, members: Sequence[int], past: _Past | None = None) -> dict[int, TokenScores]:
        """Score some lines in one pass, after what is stored of them."""
        cache, start = past or (None, 0)
        chosen = [self.lines[member] for member in members]
        device = _device(self.model)
        ids = _padded([line.ids[start:] for line in chosen], self.pad).to(device)
        targets = _padded([line.targets[start:] for line in chosen], IGNORED).to(device)
        keep = targets != IGNORED
        logits = masked_logits(self.model, ids, torch.ones_like(ids), keep, cache=cache)
        logp = -functional.cross_entropy(logits, targets[keep], reduction="none")
        hit = stands_out(logits, targets[keep])
        ends = keep.sum(1).cumsum(0)[:-1].tolist()
        logps = np.split(logp.double().cpu().numpy(), ends)
        hits = np.split(hit.cpu().numpy(), ends)
        scores = (TokenScores(*pair) for pair in zip(logps, hits, strict=True))
        return dict(zip(members, scores, strict=True))

    def _begun(self, party: Sequence[Family]) -> _Past:
        """Run the beginnings, all cut to the shortest."""
        length = min(one.shared for one in party)
        ids = [self.lines[one.members[0]].ids[:length] for one in party]
        named: dict[str, Any] = {"input_ids": torch.tensor(ids, device=_device(self.model))}
        if takes(self.model, "logits_to_keep"):
            named["logits_to_keep"] = 1
        cache = new_cache(self.model)
        self.model(**named, past_key_values=cache, use_cache=True)
        return _Past(cache, length)


def _padded(rows: Sequence[Ids], filler: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
