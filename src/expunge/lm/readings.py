"""What metrics read from a model: each thing made once, however many metrics want it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from expunge.core.errors import nearest
from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn

NAMES = ("nll", "paraphrase_nll", "wrong_nll", "token_logp", "token_hit", "generation")


class Readings:
    """Readings of one model on some rows, made when first asked for and kept.

    Args:
        subject: The model.
        rows: The rows, ids distinct.
        new_tokens: Longest generation, in tokens.
    """

    def __init__(self, subject: Subject, rows: Sequence[Row], new_tokens: int) -> None:
        self.subject, self.rows, self.new_tokens = subject, tuple(rows), new_tokens

    def get(self, name: str) -> Mapping[str, Any]:
        """One reading.

        Args:
            name: ``nll`` mean over the tokens of the completion and its end, in nats;
                ``paraphrase_nll`` the mean of that over other wordings; ``wrong_nll`` a list of
                it, one for each wrong completion; ``token_logp`` and ``token_hit`` arrays over
                the tokens of the completion, its end left out; ``generation`` the greedy answer.

        Returns:
            Row id -> value; a row without paraphrases or wrong completions is absent there.

        Raises:
            KeyError: When there is no such reading.
        """
        if name not in NAMES:
            raise KeyError(f"no reading {name!r}. {nearest(name, NAMES)}")
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
        return {name: float(np.mean(v)) for name, v in self._nlls(paraphrases).items()}

    @cached_property
    def wrong_nll(self) -> dict[str, list[float]]:
        """Row id -> one value for each wrong completion."""
        return self._nlls(wrongs)

    @cached_property
    def generation(self) -> dict[str, str]:
        """Row id -> greedy answer."""
        answers = self.subject.ask([row.turn for row in self.rows], new_tokens=self.new_tokens)
        return {row.id: texts[0] for row, texts in zip(self.rows, answers, strict=True)}

    @cached_property
    def _own(self) -> dict[str, Scored]:
        scores = self.subject.score([row.turn for row in self.rows])
        return {row.id: scored for row, scored in zip(self.rows, scores, strict=True)}

    def _nlls(self, wordings: Callable[[Row], Sequence[Turn]]) -> dict[str, list[float]]:
        """All wordings of all rows scored together, so that batches stay full."""
        turns = [(row.id, turn) for row in self.rows for turn in wordings(row)]
        found: dict[str, list[float]] = {}
        for (name, _), scored in zip(
            turns, self.subject.score([turn for _, turn in turns]), strict=True
        ):
            found.setdefault(name, []).append(scored.nll)
        return found


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
    made = Readings(subject, rows, new_tokens)
    return {name: dict(made.get(name)) for name in names}


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
