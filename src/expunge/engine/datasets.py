"""The rows behind every view, as token ids: encoded once, drawn many times."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from expunge.core.rng import derive, generator
from expunge.data.encode import Batch, Encoded, collate
from expunge.engine.forward import Inputs
from expunge.engine.slots.sample import Draw
from expunge.engine.task import Paired, Task
from expunge.lm.scoring import padding_id
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import REFUSALS

ROLES = ("forget", "retain", "neighbour")


class Datasets:
    """Makes the batch of a named view for a draw.

    A forget or retain row is used in one of its wordings (its own or a paraphrase), chosen anew
    for every draw; a paired view follows the wording of the row it stands beside.
    ``Encoded.row`` of an item is its index among all items of its view, which is how cached anchor
    values are found again.
    """

    def __init__(self, task: Task, *, device: str = "cpu") -> None:
        self.task = task
        self._device = device
        self._items: dict[str, list[list[Encoded]]] = {}
        self._beside: dict[tuple[str, int], Encoded] = {}

    def knows(self, view: str) -> bool:
        """Whether a view of this name can be made."""
        return view in ROLES or view in self._paired

    def items(self, role: str) -> list[list[Encoded]]:
        """All wordings of all rows of a role: [row][wording]."""
        if role not in self._items:
            self._items[role] = list(self._encode(role))
        return self._items[role]

    def drawn(self, view: str, draw: Draw) -> list[Encoded]:
        """The items of ``view`` in a draw; empty when the draw has no row for it."""
        if view in self._paired:
            return self._drawn_beside(view, self._paired[view], draw)
        rows = zip(draw.rows.get(view, ()), draw.wording.get(view, ()), strict=True)
        return [self._worded(view, row, wording) for row, wording in rows]

    def inputs(self, view: str, draw: Draw) -> Inputs | None:
        """The batch of ``view`` for ``draw``, or None when the draw has no row for it."""
        encoded = self.drawn(view, draw)
        return self.batch(encoded) if encoded else None

    def tensors(self, encoded: Sequence[Encoded]) -> Batch:
        """Right-padded tensors on the run's device."""
        made = collate(encoded, padding_id(self.task.tokenizer))
        parts = (made.input_ids, made.attention_mask, made.labels, made.rows)
        return Batch(*(part.to(self._device) for part in parts))

    def batch(self, encoded: Sequence[Encoded]) -> Inputs:
        """The same as a view's inputs."""
        made = self.tensors(encoded)
        return Inputs.from_labels(made.input_ids, made.attention_mask, made.labels, made.rows)

    @property
    def _paired(self) -> dict[str, Paired]:
        return {"refusal": REFUSAL} | self.task.paired

    def _encode(self, role: str) -> Iterator[list[Encoded]]:
        index = 0
        for row in self.task.roles[role]:
            items = []
            for place, turn in enumerate(wordings_of(row)):
                keep = row.spans if place == 0 else ()
                items.append(self.task.encoder.encode(turn, keep=keep, row=index))
                index += 1
            yield items

    def _worded(self, role: str, row: int, wording: int) -> Encoded:
        wordings = self.items(role)[row]
        return wordings[wording % len(wordings)]

    def _drawn_beside(self, view: str, paired: Paired, draw: Draw) -> list[Encoded]:
        rows = draw.rows.get(paired.beside, ())
        wording = draw.wording.get(paired.beside, ())
        named = draw.rows.get(view)
        made = []
        for place, (row, worded) in enumerate(zip(rows, wording, strict=True)):
            if named is not None:
                chosen: Sequence[int] = [named[place]]
            else:
                epoch = draw.epochs[place] if paired.beside == "forget" else draw.step
                chosen = self._chosen(view, paired, row, 0 if paired.fixed else epoch)
            made += [self._made(view, paired, row, worded, candidate) for candidate in chosen]
        return made

    def _chosen(self, view: str, paired: Paired, row: int, epoch: int) -> Sequence[int]:
        if paired.take == 1:
            return [derive(self.task.seed, view, row, epoch) % paired.count]
        rng = generator(self.task.seed, view, row, epoch)
        return [int(c) for c in rng.choice(paired.count, paired.take, replace=False)]

    def _made(self, view: str, paired: Paired, row: int, wording: int, candidate: int) -> Encoded:
        origin = self._worded(paired.beside, row, wording)
        index = origin.row * paired.count + candidate
        if (view, index) not in self._beside:
            content = self.task.roles[paired.beside][row]
            turn = paired.make(content, wording % len(content.turns), candidate)
            self._beside[view, index] = self.task.encoder.encode(turn, row=index)
        return self._beside[view, index]


def wordings_of(row: Row) -> tuple[Turn, ...]:
    """What a row trains on: its own content, then its paraphrases."""
    return (row.training, *row.turns[1:])


def reply_with(turn: Turn, reply: str) -> Turn:
    """``turn`` with another reply, after the white space its own begins with."""
    own = turn.completion
    return replace(turn, completion=own[: len(own) - len(own.lstrip())] + reply)


def _refused(row: Row, wording: int, phrase: int) -> Turn:
    return reply_with(row.turns[wording], REFUSALS[phrase])


REFUSAL = Paired(_refused, count=len(REFUSALS))
"""The view ``refusal``: one of our hundred sentences after each forget prompt."""
