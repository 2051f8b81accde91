"""Decisions whose probabilities were fitted to known answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.engine.guarding.deciders.questions import normal
from expunge.engine.guarding.deciding import Decider


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A decider whose probabilities were fitted to known answers.

    Attributes:
        decider: Who decides.
        temperature: Above 1 it is less sure of itself than the decider, below 1 surer.
        threshold: Above it, yes is meant.
    """

    decider: Decider
    temperature: float = 1.0
    threshold: float = 0.5

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        sure = self.decider.yes(state, question)
        return _tempered([1 - sure, sure], self.temperature)[1]

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        return _tempered(self.decider.choose(state, question, options), self.temperature)

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        return _tempered(self.decider.rate(state, question, levels), self.temperature)

    def says_yes(self, state: str, question: str) -> bool:
        """Whether the answer is taken for yes."""
        return self.yes(state, question) > self.threshold


def calibrate(
    decider: Decider, question: str, known: Sequence[tuple[str, bool]], *, wrong: float = 0.01
) -> Calibrated:
    """Fit the temperature and the threshold of a question.

    Args:
        decider: Who decides.
        question: The question.
        known: Texts with their right answers, some of each; not those that a classifier learnt
            from.
        wrong: Share of the no-texts that may be taken for yes.

    Raises:
        ValueError: When all texts have the same answer.
    """
    answers = [is_yes for _, is_yes in known]
    if len(set(answers)) < 2:
        raise ValueError("texts of both answers are needed")
    raw = [decider.yes(state, question) for state, _ in known]
    temperature = _temperature(raw, answers)
    no = sorted(
        (_tempered([1 - p, p], temperature)[1] for p, is_yes in zip(raw, answers, strict=True)
         if not is_yes),
        reverse=True,
    )  # fmt: skip
    return Calibrated(decider, temperature, no[math.floor(wrong * len(no))])


def _temperature(sure: Sequence[float], answers: Sequence[bool]) -> float:
    from scipy.optimize import minimize_scalar

    right = [[1 - p, p] if is_yes else [p, 1 - p] for p, is_yes in zip(sure, answers, strict=True)]

    def loss(log: float) -> float:
        return -math.fsum(math.log(max(_tempered(one, math.exp(log))[1], 1e-300)) for one in right)

    bounds = (-math.log(20), math.log(20))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _tempered(probabilities: Sequence[float], temperature: float) -> list[float]:
    logs = [math.log(max(one, 1e-12)) / temperature for one in probabilities]
    return normal([math.exp(log - max(logs)) for log in logs])
