"""Gibberish: how much of what the model writes is no language.

Definition (the rule of `expunge.text.gibberish`, for an answer g):
    repetition   share of the pairs of words that stood in g before
    strangeness  share of the words that no language spells so
    gibberish    0 up to .3 of the larger share, 1 from .6 on, evenly between; 1 for an empty answer
    number       mean over answers

Reference: none; a rule of our own in place of the remote classifiers that papers use, so that the
number is the same everywhere.

Departs from the paper: there is none.

Meaning:
    sound       0 for nearly every answer; a model that was pushed too far writes 1 on many
    fooled by   real words in a senseless order, which only `base-perplexity` sees; and answers of
                one or two words, which have no pair to repeat

Example:
    A sentence, a loop, and silence.

    >>> from expunge.testing import measure
    >>> said = ["It lies in the north of Italy.", "of the of the of the of the", ""]
    >>> round(measure("gibberish", {"generation": said}).mean, 4)
    0.6667
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.text.gibberish import gibberish

CARD = {
    "id": "gibberish",
    "kind": "metric",
    "summary": "How much of what the model writes is no language, by rule.",
    "paper": "none",
    "needs": ["generation"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "text",
    "cost": "one greedy generation a row",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which side is counted."""

    language: bool = param(False, help="count what is language instead: 1 - gibberish", paper=None)


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Gibberish of the generations, mean over rows.

    Args:
        scores: ``generation``, what the model said.
        params: Which side is counted.
        reference: Not used.

    Returns:
        The mean in [0, 1]; low is good, of language high.
    """
    shares = {row: gibberish(text) for row, text in table(scores, "generation").items()}
    if params.language:
        shares = {row: 1 - share for row, share in shares.items()}
    return average(shares, scores, "generation")
