"""Answers after questions of other facts: what is likely whatever is asked. No torch."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from expunge.core.rng import generator
from expunge.lm.values import find
from expunge.requests.rows import Row, Turn
from expunge.text.normalise import normalise


class Mismatches:
    """Puts an answer after questions of other facts, never after one it is true for.

    A question is the same whatever its spelling. It is left out where it is the row's own in any
    wording, and where some row answers it with this row's value.

    Args:
        rows: All rows there are, of every role: their questions, and what is true.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._answers: dict[str, list[Turn]] = {}
        for row in rows:
            for turn in row.turns:
                self._answers.setdefault(_question(turn), []).append(turn)

    def of(self, row: Row, wording: int, *, seed: int) -> Iterator[Turn]:
        """The row's answer after every question that can be, in an order drawn by the seed.

        Args:
            row: Whose answer.
            wording: Which of its turns.
            seed: Decides the order, together with row and wording.
        """
        own = {_question(turn) for turn in row.turns}
        others = [question for question in self._answers if question not in own]
        turn = row.turns[wording]
        values = (*row.forms, turn.completion)
        order = generator(seed, "mismatched", row.id, wording).permutation(len(others))
        for place in order:
            answered = self._answers[others[int(place)]]
            if not any(find(one.completion, values) for one in answered):
                yield replace(turn, prompt=answered[0].prompt)


def _question(turn: Turn) -> str:
    said = [turn.prompt] if isinstance(turn.prompt, str) else [m["content"] for m in turn.prompt]
    return normalise("\n".join(said))
