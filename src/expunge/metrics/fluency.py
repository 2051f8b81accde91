"""Fluency: how varied what the model writes is, as entropy of its n-grams.

Definition (p the distribution of n-grams of words and punctuation in an answer g, in bits):
    H_n(g)  = -sum p log2 p
    fluency = mean over answers of (2/3 H_2(g) + 4/3 H_3(g)) / 2

Reference: RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024);
Locating and Editing Factual Associations in GPT (2022).

Departs from the paper: words are cut by a rule of our own in place of a library's; contractions
stay one word.

Meaning:
    sound       6 to 8 bits for 256 tokens of prose; an endlessly repeated word gives 0
    fooled by   noise: random words are varied too, and longer answers have more entropy, so read it
                beside `base-perplexity` and compare models on answers of the same length

Example:
    Four pairs and three triples, all different: (2/3 * 2 + 4/3 * log2 3) / 2.

    >>> from expunge.testing import measure
    >>> round(measure("fluency", {"generation": ["a b c d e"]}).mean, 7)
    1.7233083
    >>> measure("fluency", {"generation": ["a a a a a"]}).mean
    0.0
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.text.ngrams import entropy, pieces

CARD = {
    "id": "fluency",
    "kind": "metric",
    "summary": "Entropy of the n-grams in what the model writes.",
    "paper": "RWKU: Benchmarking Real-World Knowledge Unlearning for Large Language Models (2024)",
    "needs": ["generation"],
    "better": "high",
    "range": [0.0, None],
    "access": "text",
    "cost": "one greedy generation of 256 tokens a row",
    "maturity": "beta",
    "version": 1,
}

WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""n -> weight of its entropy in the mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Weighted entropy of pairs and triples of words, mean over rows.

    Args:
        scores: ``generation``, what the model said.
        params: Nothing to set.
        reference: Not used.

    Returns:
        Bits; high is good. An answer of fewer than three words has 0, as upstream has it.
    """
    shares = {row: _fluency(text) for row, text in table(scores, "generation").items()}
    return average(shares, scores, "generation")


def _fluency(text: str) -> float:
    parts = pieces(text)
    return sum(weight * entropy(parts, n) for n, weight in WEIGHTS.items()) / len(WEIGHTS)
