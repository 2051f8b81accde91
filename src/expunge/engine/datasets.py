"""The rows behind every view, as token ids: encoded once, drawn many times."""

from collections.abc import Callable, Iterator, Sequence

from expunge.core.rng import derive
from expunge.data.encode import Batch, Encoded, collate
from expunge.engine.forward import Inputs
from expunge.engine.slots.sample import Draw
from expunge.engine.task import Task
from expunge.lm.scoring import padding_id
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import REFUSALS


class Datasets:
    """Makes the batch of a named view for a draw.

    A forget or retain row is used in one of its wordings (its own or a paraphrase), chosen anew
    for every draw. ``Encoded.row`` of an item is its index among all items of its view, which is
    how cached anchor values are found again.
    """

    def __init__(self, task: Task, *, fixed_refusal: bool = False, device: str = "cpu") -> None:
        self.task = task
        self._device = device
        self._fixed_refusal = fixed_refusal
        self._items: dict[str, list[list[Encoded]]] = {}
        self._refusals: dict[tuple[int, int], Encoded] = {}
        self._views: dict[str, Callable[[Draw], list[Encoded]]] = {
            "refusal": self._refusal,
            **{role: self._role(role) for role in ("forget", "retain", "neighbour")},
        }

    def knows(self, view: str) -> bool:
        """Whether a view of this name can be made."""
        return view in self._views

    def items(self, role: str) -> list[list[Encoded]]:
        """All wordings of all rows of a role: [row][wording]."""
        if role not in self._items:
            self._items[role] = list(self._encode(role))
        return self._items[role]

    def inputs(self, view: str, draw: Draw) -> Inputs | None:
        """The batch of ``view`` for ``draw``, or None when the draw has no row for it."""
        encoded = self._views[view](draw)
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

    def _encode(self, role: str) -> Iterator[list[Encoded]]:
        index = 0
        for row in self.task.roles[role]:
            items = []
            for place, turn in enumerate(wordings_of(row)):
                keep = row.spans if place == 0 else ()
                items.append(self.task.encoder.encode(turn, keep=keep, row=index))
                index += 1
            yield items

    def _role(self, role: str) -> Callable[[Draw], list[Encoded]]:
        def make(draw: Draw) -> list[Encoded]:
            rows = zip(draw.rows.get(role, ()), draw.wording.get(role, ()), strict=True)
            return [
                self.items(role)[row][wording % len(self.items(role)[row])] for row, wording in rows
            ]

        return make

    def _refusal(self, draw: Draw) -> list[Encoded]:
        return [
            self._refused(row, 0 if self._fixed_refusal else epoch, wording)
            for row, epoch, wording in zip(
                draw.rows["forget"], draw.epochs, draw.wording["forget"], strict=True
            )
        ]

    def _refused(self, row: int, epoch: int, wording: int) -> Encoded:
        phrase = derive(self.task.seed, "refusal", row, epoch) % len(REFUSALS)
        turns = self.task.forget[row].turns
        asked = turns[wording % len(turns)]
        refusal = Turn(asked.prompt, _joined(asked.completion, REFUSALS[phrase]), asked.running)
        return self.task.encoder.encode(refusal, row=row)


def wordings_of(row: Row) -> tuple[Turn, ...]:
    """What a row trains on: its own content, then its paraphrases."""
    return (row.training, *row.turns[1:])


def _joined(completion: str, reply: str) -> str:
    """``reply`` with the white space that ``completion`` begins with, so that both join alike."""
    return completion[: len(completion) - len(completion.lstrip())] + reply
