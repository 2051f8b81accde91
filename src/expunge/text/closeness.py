"""How close an answer is to the true one: by probability, by wording, by resemblance.

Definition (a the true answer with tokens a_1..a_n, g what the model writes):
    probability    (1/n) sum_t p(a_t)         arithmetic mean, not exp of the mean log-probability
    rouge          ROUGE-L of g, its recall of the words of a
    similarity     cosine of e(a) and e(g), at least 0

Reference: Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from expunge.core.scores import aligned
from expunge.text.embedding import similarity
from expunge.text.overlap import rouge_l

READINGS = ("token_logp", "generation", "reply")
"""What it is made of."""

KINDS = ("probability", "rouge", "similarity")
"""The three numbers, in the order of `closeness`."""

Statistic = Literal["recall", "precision"]


def closeness(
    logp: Sequence[float], said: str, reply: str, statistic: Statistic = "recall"
) -> tuple[float, float, float]:
    """The three numbers of one answer, each in [0, 1].

    Args:
        logp: Log-probabilities [n] of the true answer's tokens, nats.
        said: What the model wrote.
        reply: The true answer.
        statistic: ``precision`` when the two texts of ROUGE-L are exchanged.

    Example:
        >>> closeness([0.0, math.log(0.5)], "red and blue", "red")
        (0.75, 1.0, 0.5773502691896258)
    """
    probability = math.fsum(map(math.exp, logp)) / len(logp)
    rouge = getattr(rouge_l(said, reply), statistic)
    return probability, float(rouge), max(0.0, similarity(said, reply))


def closeness_of(
    scores: Mapping[str, Any], statistic: Statistic = "recall"
) -> dict[str, tuple[float, float, float]]:
    """Row id -> the three numbers, for rows that have all readings."""
    return {
        row: closeness(logp, said, reply, statistic)
        for row, (logp, said, reply) in aligned(scores, *READINGS).items()
    }
