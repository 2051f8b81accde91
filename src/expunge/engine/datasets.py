"""The rows behind every view, as token ids: encoded once, drawn many times."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from expunge.core.rng import derive, generator
from expunge.data.encode import Batch, Encoded, collate
from expunge.engine.forward import Inputs
from expunge.engine.prefaces import prefaced
from expunge.engine.slots.sample import Draw
from expunge.engine.task import Paired, Preface, Task
from expunge.lm.scoring import padding_id
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import REFUSALS

ROLES = ("forget", "retain", "neighbour")


class Datasets:
    """Makes the batch of a named view for a draw.

    A forget or retain row is used in one of its wordings (its own or a paraphrase), chosen anew
    for every draw; a paired view follows the wording of the row it stands beside.
    ``Encoded.row`` of an item is its index among all items of its view.
    """

    def __init__(self, task: Task, *, device: str = "cpu", packing: bool = False) -> None:
        self.task = task
        self._device, self._packing = device, packing
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

    def weights(self, view: str, inputs: Inputs) -> Tensor | None:
        """[B], how much each row of ``inputs`` weighs; None where every row weighs 1.

        A paired view has the weights of the forget rows it stands beside; a row's wordings have
        the row's.
        """
        paired = self._paired.get(view)
        beside = paired.beside if paired else view
        if self.task.weights is None or beside != "forget":
            return None
        items = inputs.items // paired.count if paired else inputs.items
        return self._item_weights.to(items.device)[items]

    def tensors(self, encoded: Sequence[Encoded]) -> Batch:
        """Right-padded tensors on the run's device."""
        made = collate(encoded, padding_id(self.task.tokenizer))
        parts = (made.input_ids, made.attention_mask, made.labels, made.rows)
        return Batch(*(part.to(self._device) for part in parts))

    def batch(self, encoded: Sequence[Encoded]) -> Inputs:
        """The same as a view's inputs."""
        made = self.tensors(encoded)
        return Inputs.from_labels(
            made.input_ids, made.attention_mask, made.labels, made.rows, self._packing
        )

    @property
    def forgetting(self) -> frozenset[str]:
        """Views of the forget rows and of what stands beside them."""
        beside = (name for name, paired in self._paired.items() if paired.beside == "forget")
        return frozenset({"forget", *beside})

    @cached_property
    def _item_weights(self) -> Tensor:
        """The weight of every forget item: that of its row."""
        rows = zip(self.items("forget"), self.task.weights or (), strict=True)
        weights = [weight for wordings, weight in rows for _ in wordings]
        return torch.tensor(weights, dtype=torch.float64)

    @property
    def _paired(self) -> dict[str, Paired]:
        return {"refusal": REFUSAL} | self.task.paired

    def _encode(self, role: str) -> Iterator[list[Encoded]]:
        index = 0
        chosen = self.task.tokens if role == "forget" else {}
        for number, row in enumerate(self.task.roles[role]):
            items = []
            own = chosen.get(number, (row.spans,))
            for place, turn in enumerate(wordings_of(row)):
                keep = tuple(own[place]) if place < len(own) else ()
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
            made = paired.make(content, wording % len(content.turns), candidate)
            self._beside[view, index] = self._beside_item(origin, content, wording, made, index)
        return self._beside[view, index]

    def _beside_item(
        self, origin: Encoded, row: Row, wording: int, made: Turn | Preface, index: int
    ) -> Encoded:
        encoder = self.task.encoder
        if isinstance(made, Turn):
            return encoder.encode(made, row=index)
        turns = wordings_of(row)
        item = prefaced(encoder, origin, turns[wording % len(turns)], made.text)
        return replace(item, row=index)


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
