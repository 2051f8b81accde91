"""Probability of the answer: how likely the model finds the very words it was trained on.

Definition (L = mean negative log-likelihood of an answer's tokens after the question, in nats):
    prob(a) = exp(-L(a))                                    geometric mean over the answer's tokens
    plain       mean_i prob(y_i)
    options     mean_i prob(y_i) / (prob(y_i) + sum_j prob(w_ij))       w: the wrong answers
    mean        mean_i prob(y_i) / (prob(y_i) + mean_j prob(w_ij))

Reference: TOFU: A Task of Fictitious Unlearning for LLMs (2024); the share beside the mean wrong
answer, and paraphrases, as in OpenUnlearning: Accelerating LLM Unlearning via Unified Benchmarking
(2025).

Departs from the paper: nothing; note that the paper's "probability" is a mean over tokens and not
the probability of the whole answer.

Meaning: 1 is an answer known by heart. On rows to forget a retrained model is not at 0: it gives
some .1 to the wording that such answers have. 0 is a model that was pushed away from the answer,
which shows that it was there. Lengths do not matter, because it is a mean over tokens.

Example: an answer of mean loss ln 2; then among two options that are as likely and half as likely.

    >>> from math import log
    >>> from expunge.testing import measure
    >>> measure("probability", {"nll": [log(2)]}).mean
    0.5
    >>> options = {"nll": [log(2)], "wrong_nll": [[log(2), log(4)]]}
    >>> round(measure("probability", options, among="options").mean, 6)
    0.4
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table
from expunge.numbers.membership import READY

CARD = {
    "id": "probability",
    "kind": "metric",
    "summary": "Geometric mean probability of the answer's tokens.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["nll"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a row",
    "maturity": "beta",
    "version": 1,
}


TRUTHS = {"answer": "nll", "paraphrase": "paraphrase_nll"}
"""Which true answer -> its reading."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which of the published forms is computed."""

    among: str = param(
        "plain",
        help="plain; options: the answer's share of the probability of all offered answers; mean: "
        "its share beside the mean probability of the wrong ones",
        paper="plain for forget and retain rows, options for real authors and world facts",
        choices=("plain", "options", "mean"),
    )
    truth: str = param(
        "answer",
        help="which true answer: the one trained on, or its paraphrase",
        paper="answer",
        choices=("answer", "paraphrase"),
    )


def needs(params: Params) -> list[str]:
    """The readings of a form: a share needs the wrong answers."""
    truth = TRUTHS[params.truth]
    return [truth] if params.among == "plain" else [truth, "wrong_nll"]


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The answer's probability, mean over rows.

    Args:
        scores: ``nll`` (or ``paraphrase_nll``, see `Params.truth`), and ``wrong_nll`` for a share;
            nats a token. Or ready probabilities of the form asked for as ``score``, as published
            logs hold them.
        params: The form.
        reference: Not used.

    Returns:
        The mean in [0, 1]. On rows to forget low is good, on rows to keep high is.
    """
    if READY in scores:
        return average(table(scores, READY), scores, READY)
    truth = TRUTHS[params.truth]
    if params.among == "plain":
        plain = {row: math.exp(-nll) for row, nll in table(scores, truth).items()}
        return average(plain, scores, truth)
    rows = aligned(scores, truth, "wrong_nll")
    shares = {
        row: share(nll, wrong, len(wrong) if params.among == "mean" else 1)
        for row, (nll, wrong) in rows.items()
    }
    return average(shares, scores, truth, "wrong_nll")


def share(nll: float, wrong: Sequence[float], over: int = 1) -> float:
    """The true answer's share beside the wrong ones, their probabilities divided by ``over``."""
    # Only differences matter; taken first, so that improbable options do not underflow to 0 / 0.
    likeliest = min(nll, *wrong)
    true, *others = (math.exp(likeliest - each) for each in (nll, *wrong))
    return true / (true + math.fsum(others) / over)
