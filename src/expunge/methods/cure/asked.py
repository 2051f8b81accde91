"""What rows are asked: at which token, between which tokens, and what one says who never knew."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.engine.datasets import Datasets, reply_with, wordings_of
from expunge.engine.flags import carrying, spoken, touching
from expunge.engine.task import Task
from expunge.lm.contrasts import Asked, Contrast, aligned
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import masked_logits, padding_id
from expunge.lm.values import Place, find
from expunge.methods.cure.corrupted import POOL, Corrupted, Corruptions
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import swaps
from expunge.text.normalise import normalise

if TYPE_CHECKING:
    from expunge.methods.cure import Params


@dataclass(frozen=True, slots=True)
class Question:
    """One wording of a row.

    Attributes:
        row: The row.
        wording: Which of its wordings.
        item: It as tokens.
        places: Which of its supervised tokens are asked for.
        choices: For each of them the candidates, the row's own token first.
        corrupted: The wording without what its answer rests on.
    """

    row: Row
    wording: int
    item: Encoded
    places: list[int]
    choices: list[list[int]]
    corrupted: list[Corrupted]

    @property
    def at(self) -> list[int]:
        """For each place the position that predicts it."""
        said = [at for at, label in enumerate(self.item.labels) if label != IGNORED]
        return [said[place] - 1 for place in self.places]

    @property
    def contrasts(self) -> list[Contrast]:
        """The wording beside each of its corrupted ones."""
        pairs = zip(self.at, self.choices, strict=True)
        asked = [Asked(at, own, tuple(rivals)) for at, (own, *rivals) in pairs]
        return [Contrast(self.item.ids, one.item.ids, asked) for one in self.corrupted]

    def record(self, references: Sequence[Sequence[float]]) -> dict[str, Any]:
        """As it is kept and shown."""
        told = zip(self.places, self.choices, references, strict=True)
        return {
            "id": self.row.id,
            "wording": self.wording,
            "asked": [
                [place, ids, [round(q, 9) for q in reference]] for place, ids, reference in told
            ],
            "corrupted": [[one.by, _text(one.turn)] for one in self.corrupted],
        }


class Questions:
    """Makes questions of the rows of a task.

    Args:
        task: Its rows, and its model as the original.
        params: Of the method.
    """

    def __init__(self, task: Task, params: "Params") -> None:
        self._task, self._params = task, params
        self._datasets = Datasets(task)
        self._pool = [*task.forget[:POOL], *task.retain[:POOL]]
        self._alike = swaps(self._pool, k=4 * params.rivals, seed=task.seed)
        self.corruptions = Corruptions(task, params)

    def of(self, role: str, most: int | None = None) -> list[Question]:
        """The questions of a role, in the order of its items.

        Args:
            role: Whose rows.
            most: At most so many of them, chosen by the seed.
        """
        params = self._params
        rows = self._task.roles[role]
        named = [(row, at) for row in rows for at in range(len(wordings_of(row)))]
        items = list(chain.from_iterable(self._datasets.items(role)))
        chosen: Sequence[int] = range(len(items))
        if most is not None and len(items) > most:
            draw = generator(self._task.seed, "cure", "rows", role)
            chosen = sorted(draw.choice(len(items), most, replace=False).tolist())
        found = []
        for number in chosen:
            (row, wording), item = named[number], items[number]
            places = asked_places(row, wording, item, every=params.tokens == "all")
            choices = [[item.ids[at]] for at in _positions(item, places)]
            choices[0] += self._rivals(row, wording, item, places[0])
            corrupted = self.corruptions.of(row, wording, item)
            found.append(Question(row, wording, item, places, choices, corrupted))
        self._complete(found)
        return found

    def references(self, asked: Sequence[Question]) -> list[list[list[float]]]:
        """For each question and place what somebody never trained on says of its candidates.

        With hold-out rows it is their mean probability of their own answer; else what the original
        says of the corrupted row.
        """
        if self._task.roles.get("holdout"):
            own = self._unknown(self.of("holdout", self._params.rows))
            return [[_with_own(own, len(ids)) for ids in one.choices] for one in asked]
        wanted, owners = [], []
        for number, one in enumerate(asked):
            for other in one.corrupted:
                places = dict(aligned(one.item.ids, other.item.ids))
                wanted.append((other.item, [places.get(at, -1) for at in one.at]))
                owners.append(number)
        told: list[list[list[list[float]]]] = [[] for _ in asked]
        for at, logits in self._logits(wanted):
            told[owners[at]].append(_among(logits, asked[owners[at]].choices))
        return [
            [
                [fmean(column) for column in zip(*same, strict=True)]
                for same in zip(*one, strict=True)
            ]
            for one in told
        ]

    def _unknown(self, held: Sequence[Question]) -> float:
        """Mean probability that the original gives answers it never saw, among their candidates."""
        told = [
            _among(logits, held[at].choices)[0][0]
            for at, logits in self._logits([(one.item, one.at) for one in held])
        ]
        return fmean(told)

    def _rivals(self, row: Row, wording: int, item: Encoded, place: int) -> list[int]:
        """Tokens that other answers have at a place, where all before it is the same."""
        (at,) = _positions(item, [place])
        found: dict[int, None] = {}
        for turn in self._other_answers(row, wordings_of(row)[wording]):
            if len(found) == self._params.rivals:
                break
            try:
                ids = self._task.encoder.encode(turn).ids
            except ExpungeError:
                continue
            if len(ids) > at and ids[:at] == item.ids[:at] and ids[at] != item.ids[at]:
                found[ids[at]] = None
        return list(found)

    def _other_answers(self, row: Row, turn: Turn) -> Iterator[Turn]:
        """A turn with the other labels; else with wrong answers; else with those of other rows."""
        if (label := label_of(turn, self._params.labels)) is not None:
            for other in self._params.labels:
                if normalise(other) != normalise(turn.completion):
                    yield label.holding(_as_written(turn.completion, other)).turn
            return
        if row.wrong:
            yield from (reply_with(turn, wrong.strip()) for wrong in row.wrong)
            return
        span = find(turn.completion, row.forms) if row.answer else None
        draw = generator(self._task.seed, "cure", "rivals", row.id).permutation(len(self._pool))
        others = (self._pool[place] for place in draw)
        strange = (other.value.strip() for other in others if other.id != row.id)
        own = {normalise(form) for form in row.forms}
        for value in chain(self._alike.get(row.id, ()), strange):
            if turn.running and span is None:
                return
            if normalise(value) not in own:
                yield Place(turn, *span).holding(value).turn if span else reply_with(turn, value)

    def _complete(self, asked: Sequence[Question]) -> None:
        """Where a place has no rival: the token that the original finds likeliest but its own."""
        lacking = [
            (one, number)
            for one in asked
            for number, ids in enumerate(one.choices)
            if len(ids) == 1
        ]
        wanted = [(one.item, [one.at[number]]) for one, number in lacking]
        for at, logits in self._logits(wanted):
            one, number = lacking[at]
            best = logits[0].topk(2).indices.tolist()
            own = one.choices[number][0]
            one.choices[number].append(best[1] if best[0] == own else best[0])

    def _logits(
        self, wanted: Sequence[tuple[Encoded, Sequence[int]]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Number of each and [positions, V] there; NaN at position -1."""
        pad, device = padding_id(self._task.tokenizer), self._task.model.device
        for chosen in by_length([len(item.ids) for item, _ in wanted], self._params.batch_size):
            batch = collate([wanted[number][0] for number in chosen], pad)
            keep = torch.zeros_like(batch.input_ids, dtype=torch.bool)
            for line, number in zip(keep, chosen, strict=True):
                line[[at for at in wanted[number][1] if at >= 0] or [0]] = True
            ids, mask = batch.input_ids.to(device), batch.attention_mask.to(device)
            with evaluating(self._task.model):
                logits = masked_logits(self._task.model, ids, mask, keep.to(device))
            parts = torch.split(logits, keep.sum(1).tolist())
            for line, number, part in zip(keep, chosen, parts, strict=True):
                where = line.nonzero()[:, 0].tolist()
                none = torch.full_like(part[0], torch.nan)
                lines = [none if at < 0 else part[where.index(at)] for at in wanted[number][1]]
                yield number, torch.stack(lines)


def asked_places(row: Row, wording: int, item: Encoded, *, every: bool) -> list[int]:
    """Which supervised tokens of a wording carry its answer; the first of them, or ``every``.

    Those of the row's spans or answer; without one, those that are text. Of running text without
    either all count, for none of them is the answer's first.
    """
    marked = touching(item, carrying(row, wording))
    found = marked or spoken(item) or [0]
    is_text = row.text is not None and wording == 0 and not marked
    return found if every or is_text else found[:1]


def label_of(turn: Turn, labels: Sequence[str]) -> Place | None:
    """Where the turn says its label, if it says nothing else."""
    if normalise(turn.completion) not in {normalise(label) for label in labels}:
        return None
    span = find(turn.completion, labels)
    return None if span is None else Place(turn, *span)


def _as_written(own: str, other: str) -> str:
    """Another label in the letters of a row's own: all small, all large, or as it is."""
    said = own.strip()
    return other.lower() if said.islower() else other.upper() if said.isupper() else other


def _positions(item: Encoded, places: Sequence[int]) -> list[int]:
    said = [at for at, label in enumerate(item.labels) if label != IGNORED]
    return [said[place] for place in places]


def _among(logits: Tensor, choices: Sequence[Sequence[int]]) -> list[list[float]]:
    """Probabilities among the candidates of each place; all alike where nothing was read."""
    found = [
        line[list(ids)].double().softmax(-1) for line, ids in zip(logits, choices, strict=True)
    ]
    return [[1 / len(one)] * len(one) if bool(one.isnan().any()) else one.tolist() for one in found]


def _with_own(own: float, candidates: int) -> list[float]:
    """A distribution that gives the row's own token so much, and the rest to the others alike."""
    return [own, *[(1 - own) / (candidates - 1)] * (candidates - 1)]


def _text(turn: Turn) -> Any:
    if turn.running:
        return turn.completion
    return turn.prompt if isinstance(turn.prompt, str) else [dict(one) for one in turn.prompt]
