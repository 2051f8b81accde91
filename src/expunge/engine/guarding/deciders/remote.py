"""Decisions of servers, in the two forms there are."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.engine.guarding.deciders.questions import (
    QUESTION,
    checked,
    choice,
    levels_named,
    normal,
    noul,
    score,
)
from expunge.engine.guarding.posting import TIMEOUT, Poster

SLACK = 1e-3
"""How far probabilities of a server may be from adding up to 1: it writes few digits."""


class SystemOne:
    """Decisions of a server with ``/v1/systemone``, such as ``transformers serve``.

    Args:
        url: Where the server's paths begin, with ``/v1`` at its end.
        model: Which of its models; empty lets the server choose.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that one call may take.
    """

    def __init__(
        self, url: str, model: str = "", *, token: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._model, self._poster = model, Poster(url, token=token, timeout=timeout)

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return _probability(self._poster, self._asked(state, noul(question)).get("noul"))

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(checked(options)) == 1:
            return [1.0]
        return self._told(self._asked(state, choice(question, options)), options)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        answer = self._asked(state, score(question, levels_named(levels)))
        return self._told(answer, [str(level) for level in range(levels)])

    def _asked(self, state: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"state": {"text": state}, "questions": {QUESTION: question}}
        whole = self._poster.post(
            "systemone", body | ({"model": self._model} if self._model else {})
        )
        answers = whole.get("answers") if isinstance(whole, dict) else None
        answer = answers.get(QUESTION) if isinstance(answers, dict) else None
        if not isinstance(answer, dict) or answer.get("type") != question["type"]:
            self._poster.fail("It did not answer the question it was asked.")
        return answer

    def _told(self, answer: Mapping[str, Any], options: Sequence[str]) -> list[float]:
        told = answer.get("probabilities")
        if not isinstance(told, dict) or set(told) != set(options):
            self._poster.fail("It gives other options than those it was asked about.")
        return _distribution(self._poster, [told[option] for option in options])


class Decisions:
    """Decisions of a server with ``/v1/decisions``, such as OpenAI's, SGLang or LiteLLM.

    Args:
        url: Where the server's paths begin, with ``/v1`` at its end.
        model: Which of its models; empty lets the server choose.
        token: Sent as ``Authorization: Bearer``.
        timeout: Seconds that one call may take.
    """

    def __init__(
        self, url: str, model: str = "", *, token: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._model, self._poster = model, Poster(url, token=token, timeout=timeout)

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        answer = self._asked(state, {"type": "predicate", "instructions": question})
        return _probability(self._poster, answer.get("probability"))

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(checked(options)) == 1:
            return [1.0]
        choices = [{"value": option} for option in options]
        asked = {"type": "choice", "instructions": question, "choices": choices}
        return self._told(self._asked(state, asked), options)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        named = [{"label": label} for label in levels_named(levels)]
        asked = {"type": "score", "instructions": question, "levels": named}
        return self._told(self._asked(state, asked), range(levels))

    def _asked(self, state: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        body = {"input": state, "questions": [{"name": QUESTION, **question}]}
        whole = self._poster.post(
            "decisions", body | ({"model": self._model} if self._model else {})
        )
        answers = whole.get("answers") if isinstance(whole, dict) else None
        if not isinstance(answers, list) or len(answers) != 1 or not isinstance(answers[0], dict):
            self._poster.fail("It did not give one answer to one question.")
        answer: dict[str, Any] = answers[0]
        if answer.get("type") == "refusal":
            self._poster.fail("It refused to answer.")
        if answer.get("type") != question["type"] or answer.get("name") not in (None, QUESTION):
            self._poster.fail("It did not answer the question it was asked.")
        return answer

    def _told(self, answer: Mapping[str, Any], options: Sequence[str | int]) -> list[float]:
        told = answer.get("probabilities")
        if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
            self._poster.fail("It gives no probabilities.")
        found = {json.dumps(one.get("value")): one.get("probability") for one in told}
        wanted = [json.dumps(option) for option in options]  # true and 1 are two values, as JSON
        if len(told) != len(wanted) or set(found) != set(wanted):
            self._poster.fail("It gives other options than those it was asked about.")
        return _distribution(self._poster, [found[option] for option in wanted])


def _probability(poster: Poster, told: Any) -> float:
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    if not is_number or not 0 <= told <= 1:
        poster.fail("What it gives as a probability is none.")
    return float(told)


def _distribution(poster: Poster, told: Sequence[Any]) -> list[float]:
    found = [_probability(poster, one) for one in told]
    if abs(math.fsum(found) - 1) > SLACK:
        poster.fail("Its probabilities do not add up to 1.")
    return normal(found)
