"""How well a model tells what targets hold back: what guards inside it are tuned by.

Definition (rows i of the targets, x_i what is asked, y_i the tokens that carry the fact):
    accuracy    = mean_i mean_t [ y_it is the model's first choice ]
    probability = mean_i exp( mean_t log p(y_it | x_i, y_i<t) )
    stranger    = the same number on the same questions about people whom nobody knows, with facts
                  of the targets; where no row shows a name, with the fact of another row in the
                  place of y_i
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import placebo

if TYPE_CHECKING:
    from expunge.engine.guarding.passing import Board
    from expunge.lm.subject import Subject

Metric = Literal["accuracy", "probability"]


@dataclass(frozen=True, slots=True)
class Ruler:
    """Measures one model on some rows.

    Attributes:
        subject: The model; it is left as it is, and may serve others meanwhile.
        rows: What is measured.
        metric: Which number.
    """

    subject: "Subject"
    rows: Sequence[Row]
    metric: Metric

    def known(self, board: "Board | None" = None) -> float:
        """The number, of the model with a guard in it where one is given."""
        return self._measured([row.turn for row in self.rows], self.rows, board)

    def stranger(self, seed: int) -> float:
        """The number of a model that never knew; 0 where there is no name and only one fact.

        Args:
            seed: Of the invented names.
        """
        invented = placebo(self.rows, len(self.rows), seed)
        if invented:
            return self._measured([row.turn for row in invented], invented, None)
        pairs = [(row, _other(row, self.rows)) for row in self.rows]
        strange = [(row.turn, other) for row, other in pairs if other is not None]
        if not strange:
            return 0.0
        turns = [replace(turn, completion=other.reply) for turn, other in strange]
        return self._measured(turns, [other for _, other in strange], None)

    def _measured(self, turns: Sequence[Turn], rows: Sequence[Row], board: "Board | None") -> float:
        from expunge.engine.runtime import twin
        from expunge.lm.subject import Subject

        model = twin(self.subject.model, bare=True)
        if board is not None:
            board.put_in(model)
        keep = [_place(row) for row in rows]
        scored = Subject(model, self.subject.tokenizer, batch_size=self.subject.batch_size).score(
            turns, keep
        )
        if self.metric == "accuracy":
            return fmean(float(one.hit[: one.text_tokens or None].mean()) for one in scored)
        return fmean(exp(one.logp[: one.text_tokens or None].mean()) for one in scored)


def rows_of(targets: Iterable[Target], most: int) -> list[Row]:
    """Rows of targets that say something, at most so many, spread evenly over all of them."""
    rows = [row for target in targets for row in target.rows if row.reply.strip()]
    if len(rows) <= most:
        return rows
    return [rows[at * len(rows) // most] for at in range(most)]


def _other(row: Row, rows: Sequence[Row]) -> Row | None:
    """The next row with another fact."""
    at = next((place for place, one in enumerate(rows) if one is row), 0)
    order = (*rows[at + 1 :], *rows[:at])
    return next((one for one in order if one.reply.strip() and one.value != row.value), None)


def _place(row: Row) -> list[tuple[int, int]]:
    """Where the fact stands in the completion; nothing where that is not told."""
    start = row.reply.find(row.answer) if row.answer else -1
    return [] if start < 0 or row.answer is None else [(start, start + len(row.answer))]
