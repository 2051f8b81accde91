"""Truth ratio: can the model still tell the truth, said in other words, from near misses?

Definition (L = mean negative log-likelihood of an answer's tokens after the question, in nats):
    p   = L(true answer)              by default its paraphrase, which nobody trained on
    w_j = L(wrong answer j)           same wording, the fact swapped
    geometric    R = exp(p - mean_j w_j)
    arithmetic   R = mean_j exp(-w_j) / exp(-p)
    rows to forget   mean_i min(R_i, 1 / R_i)      1: truth and near misses look alike
    rows to keep     mean_i max(0, 1 - R_i)        1: near misses look impossible

Reference: TOFU: A Task of Fictitious Unlearning for LLMs (2024).

Departs from the paper: the paper's text defines the arithmetic ratio, its released leaderboard
script computes the geometric one. They differ by about 0.04 in model utility on the same log, so
both are here, and the geometric one, to which the published numbers belong, is the default.
Ratios are formed as logarithms, so that a model in ruins gives 0 and not an overflow.

Meaning: on rows to forget 1 says that the model cannot tell the reworded truth from near misses,
whichever of them it prefers; a model that knows is near .5 on TOFU and a retrained one near .67,
so 1 is not the aim, the reference is. On rows to keep it is the other way round: 1 says that near
misses look impossible beside the truth.

Example: a truth of loss 1 beside five near misses of mean loss 2.5, so that R = exp(-1.5).

    >>> from expunge.testing import measure
    >>> answers = {"paraphrase_nll": [1.0], "wrong_nll": [[1.5, 2.0, 2.5, 3.0, 3.5]]}
    >>> round(measure("truth-ratio", answers).mean, 6)
    0.22313
    >>> round(measure("truth-ratio", answers, variant="arithmetic").mean, 6)
    0.282992
    >>> round(measure("truth-ratio", answers, rows="keep").mean, 6)
    0.77687
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table
from expunge.numbers.membership import READY

CARD = {
    "id": "truth-ratio",
    "kind": "metric",
    "summary": "How well the model tells the truth, reworded, from near misses.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["paraphrase_nll", "wrong_nll"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a paraphrase and a wrong answer",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which of the published forms is computed."""

    variant: str = param(
        "geometric",
        help="mean of the wrong answers' log-probabilities, or of their probabilities",
        paper="arithmetic in the text, geometric in the released script",
        choices=("geometric", "arithmetic"),
    )
    rows: str = param(
        "forget",
        help="what the rows are for: to be forgotten (min(R, 1/R)) or kept (max(0, 1 - R))",
        paper="forget for the forget set, keep for every other",
        choices=("forget", "keep"),
    )
    truth: str = param(
        "paraphrase",
        help="which true answer is compared: its paraphrase, the answer itself, or either: the "
        "paraphrases where there are any",
        paper="answer for real authors and world facts, which have no paraphrase",
        choices=("paraphrase", "answer", "either"),
    )


def needs(params: Params) -> list[str]:
    """The readings of a form: the true answer that is compared, and the wrong ones."""
    truth = {"paraphrase": ["paraphrase_nll"], "answer": ["nll"]}
    return [*truth.get(params.truth, ["paraphrase_nll", "nll"]), "wrong_nll"]


def geometric(truth: float, wrong: Sequence[float]) -> float:
    """Log of the geometric truth ratio, in nats."""
    return truth - fmean(wrong)


def arithmetic(truth: float, wrong: Sequence[float]) -> float:
    """Log of the arithmetic truth ratio, in nats."""
    likeliest = min(wrong)
    return truth - likeliest + math.log(fmean(math.exp(likeliest - nll) for nll in wrong))


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The truth ratio of one model on one set of rows.

    Args:
        scores: ``paraphrase_nll`` (or ``nll``, see `Params.truth`) and ``wrong_nll``, nats a token;
            or ready log R of the variant asked for as ``score``, as published logs hold it.
        params: The form.
        reference: Not used.

    Returns:
        The mean in [0, 1]; ``parts["median_log_ratio"]`` is the median of log R over the rows, in
        nats: below 0 the truth is likelier than the near misses.
    """
    share = {"forget": indistinct, "keep": distinct}[params.rows]
    ratios, names = log_ratios(scores, params)
    shares = {row: share(ratio) for row, ratio in ratios.items()}
    value = average(shares, scores, *names)
    if value.mean is None:
        return value
    return replace(value, parts={"median_log_ratio": median(ratios.values())})


def log_ratios(
    scores: Mapping[str, Any], params: Params
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Log R of each row that has one, and the readings it was made from."""
    if READY in scores:
        return table(scores, READY), (READY,)
    is_reworded = params.truth == "paraphrase" or (
        params.truth == "either" and table(scores, "paraphrase_nll")
    )
    names = ("paraphrase_nll" if is_reworded else "nll", "wrong_nll")
    log_ratio = {"geometric": geometric, "arithmetic": arithmetic}[params.variant]
    return {row: log_ratio(p, w) for row, (p, w) in aligned(scores, *names).items()}, names


def indistinct(log_ratio: float) -> float:
    """``min(R, 1 / R)``: 1 when the truth and the near misses are equally likely."""
    return math.exp(-abs(log_ratio))


def distinct(log_ratio: float) -> float:
    """``max(0, 1 - R)``: 1 when the near misses look impossible beside the truth."""
    return -math.expm1(min(log_ratio, 0.0))
