"""Selective score: was what only the forget source says forgotten, and all else kept?

Definition (UFK, SK, URK: knowledge told only by the source to forget, by both, only by the sources
to keep; index o: of the original model):
    selective = ((1 - UFK / UFK_o) + SK / SK_o + URK / URK_o) / 3

Reference: none: the score is ours (INFERRED), made of the numbers of DUSK: Do Not Unlearn Shared
Knowledge (2025).

Departs from the paper: it is not in the paper, which reports the three side by side.

Meaning: 1 forgot all that is unique to the source and kept all else. The original itself gets 2/3,
for it kept everything; a model that knows nothing any more gets 1/3. So 2/3 is where nothing was
achieved, not 0. Above 1 the kept knowledge rose over the original's. Read the three parts: their
mean hides which of them gave way.

Example: unique knowledge halved twice over, shared knowledge halved, the rest whole.

    >>> from expunge.testing import measure
    >>> parts = {"ufk": 20.0, "ufk_original": 80.0, "sk": 40.0, "sk_original": 80.0}
    >>> measure("selective-score", {"parts": {**parts, "urk": 60.0, "urk_original": 60.0}}).mean
    0.75
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.results import Value
from expunge.core.scores import table, unmeasurable

CARD = {
    "id": "selective-score",
    "kind": "metric",
    "summary": "Unique knowledge forgotten, shared and other knowledge kept, as one number.",
    "paper": "DUSK: Do Not Unlearn Shared Knowledge (2025); the score itself is inferred",
    "needs": ["parts"],
    "better": "high",
    "range": [None, None],
    "access": "text",
    "cost": "none beyond its parts",
    "maturity": "paper",
    "version": 1,
}

KNOWLEDGE = ("ufk", "sk", "urk")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """This metric has nothing to set."""


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The selective score of a model beside the original.

    Args:
        scores: ``parts``: ``ufk``, ``sk``, ``urk`` of the model, and each with ``_original``.
        params: Nothing to set.
        reference: Not used.

    Returns:
        The mean of ``forgotten``, ``shared_kept`` and ``unique_kept``, which are the parts.
    """
    parts = table(scores, "parts")
    wanted = [f"{name}{of}" for name in KNOWLEDGE for of in ("", "_original")]
    if lacking := [name for name in wanted if name not in parts]:
        return unmeasurable(f"{', '.join(lacking)} was not measured")
    if never := [name for name in KNOWLEDGE if parts[f"{name}_original"] <= 0]:
        return unmeasurable(f"the original knows nothing of {', '.join(never)}")
    kept = {name: parts[name] / parts[f"{name}_original"] for name in KNOWLEDGE}
    found = {
        "forgotten": 1 - kept["ufk"],
        "shared_kept": kept["sk"],
        "unique_kept": kept["urk"],
    }
    return Value(mean=sum(found.values()) / len(found), parts=found)
