"""What metrics read from a model: each thing made once, however many metrics want it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from expunge.core.errors import nearest
from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn

NAMES = (
    "nll",
    "paraphrase_nll",
    "wrong_nll",
    "token_logp",
    "token_hit",
    "training_logp",
    "generation",
)
TEXTS: Mapping[str, Callable[[Row], Any]] = {
    "question": lambda row: row.turn.prompt,
    "reply": lambda row: row.reply,
    "text": lambda row: row.training.completion,
    "subject": lambda row: row.subject,
    "forms": lambda row: list(row.forms),
    "wrong": lambda row: list(row.wrong),
}
"""Readings that ask no model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How a set of rows is put to a model.

    Attributes:
        new_tokens: Longest greedy answer, in tokens.
        opening: Forced beginning of every answer; ``meta["opening"]`` of a row replaces it.
        until: Where the first of these stands in an answer, it ends.
        empty: What takes the place of an empty answer.
    """

    new_tokens: int = 64
    opening: str = ""
    until: tuple[str, ...] = ()
    empty: str = ""

    def openings(self, rows: Sequence[Row]) -> list[str]:
        """The forced beginning of each row's answer."""
        return [str(row.meta.get("opening", self.opening)) for row in rows]

    def cut(self, answer: str) -> str:
        """An answer as it is scored."""
        ends = [at for at in map(answer.find, self.until) if at >= 0]
        said = answer[: min(ends)].strip() if ends else answer
        return said if said.strip() else self.empty


class Readings:
    """Readings of one model on some rows, made when first asked for and kept.

    Args:
        subject: The model.
        rows: The rows, ids distinct.
        asking: How they are put to it; a number is the longest generation, in tokens.
    """

    def __init__(self, subject: Subject, rows: Sequence[Row], asking: Asking | int) -> None:
        self.subject, self.rows = subject, tuple(rows)
        self.asking = Asking(new_tokens=asking) if isinstance(asking, int) else asking
        self._scored: dict[str, dict[str, list[Scored]]] = {}

    def prepare(self, names: Iterable[str]) -> None:
        """Score at once what several readings will ask for: answers to one prompt then share it.

        Args:
            names: Of readings; those that are not made of scores cost nothing here.
        """
        asked = {WORDINGS_OF[name] for name in names if name in WORDINGS_OF}
        missing = [kind for kind in WORDINGS if kind in asked and kind not in self._scored]
        turns = [
            (kind, row.id, turn)
            for row in self.rows
            for kind in missing
            for turn in WORDINGS[kind](row)
        ]
        scores = self.subject.score([turn for *_, turn in turns]) if turns else []
        self._scored |= {kind: {} for kind in missing}
        for (kind, name, _), scored in zip(turns, scores, strict=True):
            self._scored[kind].setdefault(name, []).append(scored)

    def get(self, name: str) -> Mapping[str, Any]:
        """One reading.

        Args:
            name: ``nll`` mean over the tokens of the completion and its end, in nats;
                ``paraphrase_nll`` the mean of that over other wordings; ``wrong_nll`` a list of
                it, one for each wrong completion; ``token_logp`` and ``token_hit`` arrays over
                the tokens of the completion, its end left out; ``training_logp`` an array over
                the tokens of what was trained on (the whole text of a text row, else the
                completion), the end left out; ``generation`` the greedy answer; and the texts
                of `TEXTS`.

        Returns:
            Row id -> value; a row without paraphrases or wrong completions is absent there.

        Raises:
            KeyError: When there is no such reading.
        """
        if name in TEXTS:
            return {row.id: TEXTS[name](row) for row in self.rows}
        if name not in NAMES:
            raise KeyError(f"no reading {name!r}. {nearest(name, (*NAMES, *TEXTS))}")
        value: Mapping[str, Any] = getattr(self, name)
        return value

    @cached_property
    def nll(self) -> dict[str, float]:
        """Row id -> mean negative log-likelihood of its completion."""
        return {name: scored.nll for name, scored in self._own.items()}

    @cached_property
    def token_logp(self) -> dict[str, Any]:
        """Row id -> log-probabilities [n] of the completion's tokens."""
        return {name: scored.logp[: scored.text_tokens] for name, scored in self._own.items()}

    @cached_property
    def token_hit(self) -> dict[str, Any]:
        """Row id -> [n] whether each token of the completion is the most probable one."""
        return {name: scored.hit[: scored.text_tokens] for name, scored in self._own.items()}

    @cached_property
    def paraphrase_nll(self) -> dict[str, float]:
        """Row id -> mean over its other wordings."""
        return {name: float(np.mean(v)) for name, v in self._nlls("paraphrase_nll").items()}

    @cached_property
    def wrong_nll(self) -> dict[str, list[float]]:
        """Row id -> one value for each wrong completion."""
        return self._nlls("wrong_nll")

    @cached_property
    def generation(self) -> dict[str, str]:
        """Row id -> greedy answer."""
        write_together([self])
        return self.generation

    @cached_property
    def training_logp(self) -> dict[str, Any]:
        """Row id -> log-probabilities [n] of the tokens of what was trained on."""
        turns = [row.training for row in self.rows]
        if turns == [row.turn for row in self.rows]:
            return self.token_logp
        scores = self.subject.score(turns)
        return {
            row.id: scored.logp[: scored.text_tokens]
            for row, scored in zip(self.rows, scores, strict=True)
        }

    @property
    def _own(self) -> dict[str, Scored]:
        return {name: scored for name, (scored,) in self._scores("nll").items()}

    def _scores(self, reading: str) -> dict[str, list[Scored]]:
        """Row id -> scores of the wordings that a reading is made of."""
        self.prepare([reading])
        return self._scored[WORDINGS_OF[reading]]

    def _nlls(self, reading: str) -> dict[str, list[float]]:
        return {name: [one.nll for one in them] for name, them in self._scores(reading).items()}


def readings(
    subject: Subject, rows: Sequence[Row], names: Iterable[str], *, new_tokens: int
) -> dict[str, dict[str, Any]]:
    """Several readings at once.

    Args:
        subject: The model.
        rows: The rows, ids distinct.
        names: Which readings, see `Readings.get`.
        new_tokens: Longest generation, in tokens.

    Returns:
        Reading -> row id -> value.
    """
    made, names = Readings(subject, rows, new_tokens), list(names)
    made.prepare(names)
    return {name: dict(made.get(name)) for name in names}


def write_together(them: Sequence[Readings]) -> None:
    """Make the greedy answers of several sets in the same batches.

    No set then waits for the longest of its own answers.

    Args:
        them: Readings of one model, with answers of the same length.
    """
    if not them:
        return
    first, rows = them[0], [row for made in them for row in made.rows]
    answers = first.subject.ask(
        [row.turn for row in rows],
        new_tokens=first.asking.new_tokens,
        openings=[opening for made in them for opening in made.asking.openings(made.rows)],
    )
    texts = iter(text for text, *_ in answers)
    for made in them:
        made.generation = {row.id: made.asking.cut(next(texts)) for row in made.rows}


def paraphrases(row: Row) -> tuple[Turn, ...]:
    """A row's answer in other words.

    Other wordings of the answer (of the paraphrases, and ``meta["paraphrased_answer"]``) follow
    the row's own prompt. Where only the question is reworded, the answer follows that question.
    """
    own = row.turn
    given = row.meta.get("paraphrased_answer", ())
    answers = [given] if isinstance(given, str) else list(given)
    answers += [turn.completion for turn in row.turns[1:] if turn.completion != own.completion]
    if answers:
        return tuple(replace(own, completion=answer) for answer in dict.fromkeys(answers))
    return row.turns[1:]


def wrongs(row: Row) -> tuple[Turn, ...]:
    """A row's prompt with each of its wrong completions."""
    return tuple(replace(row.turn, completion=wrong) for wrong in row.wrong)


WORDINGS: Mapping[str, Callable[[Row], Sequence[Turn]]] = {
    "own": lambda row: (row.turn,),
    "paraphrases": paraphrases,
    "wrongs": wrongs,
}
"""What of a row is scored."""

WORDINGS_OF = {
    "nll": "own",
    "token_logp": "own",
    "token_hit": "own",
    "paraphrase_nll": "paraphrases",
    "wrong_nll": "wrongs",
}
"""Reading -> the wordings it is made of."""
