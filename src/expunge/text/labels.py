"""Labels: told from the text before them, scored, and what their scores say of membership.

Definition (p a distribution, y a label; s a score, s_in and s_out those of models trained with the
point and without it):
    score   = log( p(y) + 1e-35 ) - log( sum over y' != y of p(y') + 1e-35 )
    ratio   = log N( s; mean s_in, var s_in ) - log N( s; mean s_out, var s_out )

A point whose ratio is above a threshold is taken for a member. Forgetting a point is to bring the
ratios of points that were trained on to where those of others are: AUC .5 between the two.

Reference: Membership Inference Attacks From First Principles, 2022; In-Context Unlearning: Language
Models as Few Shot Unlearners, 2023, which leaves the label's whole complement in the sum.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist, fmean, pvariance

SMALLEST = 1e-35
"""Stands inside both logarithms."""

LEAST_VARIANCE = 1e-12
"""Floor of a variance, for models that all score alike (INFERRED)."""


def parted(text: str, labels: Collection[str]) -> tuple[str, str] | None:
    """A text and the label it ends with, told by the string and never by a token.

    Args:
        text: The text, its label last.
        labels: What may be a label; of several that fit the longest is one.

    Returns:
        The text without the label and without the white space before it, and the label; None where
        the text ends with no label, or is nothing else.

    Example:
        >>> parted("a fine film not bad", ["bad", "not bad"]), parted("embad", ["bad"])
        (('a fine film', 'not bad'), None)
    """
    whole = text.rstrip()
    for label in sorted(labels, key=len, reverse=True):
        before = whole.removesuffix(label)
        if before != whole and before.strip() and before[-1:].isspace():
            return before.rstrip(), label
    return None


def stable_score(probabilities: Mapping[str, float], label: str) -> float:
    """The stable logit score of a label.

    Args:
        probabilities: Of the label and of whatever else may stand there.
        label: The label.

    Example:
        >>> round(stable_score({"good": 0.8, "bad": 0.2}, "good"), 6)
        1.386294
    """
    others = math.fsum(value for name, value in probabilities.items() if name != label)
    return math.log(probabilities[label] + SMALLEST) - math.log(others + SMALLEST)


def likelihood_ratio(score: float, trained: Sequence[float], others: Sequence[float]) -> float:
    """How much more a score is like those of models trained with a point, in nats.

    Args:
        score: Of the model in question, on the point.
        trained: Scores on it of models that were trained with it; at least one.
        others: Those of models that were not.

    Example:
        >>> likelihood_ratio(1.0, [0.0, 2.0], [-2.0, 0.0])
        2.0
    """
    return _log_density(score, trained) - _log_density(score, others)


def _log_density(score: float, seen: Sequence[float]) -> float:
    spread = math.sqrt(max(pvariance(seen), LEAST_VARIANCE))
    deviation = NormalDist(fmean(seen), spread).zscore(score)
    return -0.5 * deviation * deviation - math.log(spread) - 0.5 * math.log(2 * math.pi)
