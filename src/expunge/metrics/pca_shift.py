"""PCA shift: how far the representations of the rows have moved from the original's.

Definition (o, u: states of the original and of this model, one row a token that predicts the fact,
taken after block l and before the final norm; p1, p2: first principal directions of o):
    shift_l      = || (p1, p2) (mean u - mean o) ||
    similarity_l = | cos(first principal direction of o, first principal direction of u) |
    score        = mean over layers of shift_l

Meaning:
    0 and similarity 1: nothing moved, as in the original itself. The shift is a length in the units
    of the layer, and layers high up have long states, so compare models of one original only. A
    large shift with a small one on rows to keep says that the rows were treated apart; beside the
    retrained model, which usually moves little, a very large one says damage rather than
    forgetting. What fools it: movement is not removal. Rotating what is known moves it and keeps
    it. The values in `per_row` are those of layers, and the interval is over layers.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026) for the states;
Unlearning Isn't Deletion: Investigating Reversibility of Machine Unlearning in LLMs (2025) for
similarity and shift.

Departs from the paper: directions have no sign, so the similarity is the absolute cosine
(INFERRED); both means are projected after the original's mean is taken out.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"pca_shift": [0.5, 1.5], "pca_similarity": [1.0, 0.5]}
    >>> value = measure("pca-shift", scores)
    >>> value.mean, value.parts["similarity"]
    (1.0, 0.75)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

NEEDS = ("pca_shift", "pca_similarity")

CARD = {
    "id": "pca-shift",
    "kind": "metric",
    "summary": "How far the representations have moved from the original's.",
    "paper": "Unlearning Isn't Deletion: Investigating Reversibility of Machine Unlearning in LLMs "
    "(2025)",
    "needs": ["pca_shift", "pca_similarity"],
    "models": ["original"],
    "better": "high",
    "range": [0.0, None],
    "access": "activations",
    "cost": "one forward pass a row on two models",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which tokens, how many directions."""

    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        choices=("value", "answer"),
    )
    directions: int = param(2, help="principal directions of the original", paper=2, low=1)


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, float]]:
    """Shift and similarity, layer -> value; a layer without variance is left out.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when the two models do not fit each other.
    """
    from expunge.lm.representations import clouds
    from expunge.numbers.geometry import pca_shift, pca_similarity

    states = clouds(replace(models, reference=None), rows[""], params.tokens)
    found: dict[str, dict[str, float]] = {name: {} for name in NEEDS}
    for layer, o in states["original"].items():
        u = states["model"][layer]
        found["pca_shift"][layer] = pca_shift(o, u, params.directions)
        found["pca_similarity"][layer] = pca_similarity(o, u)
    return {
        name: {layer: value for layer, value in table.items() if math.isfinite(value)}
        for name, table in found.items()
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean shift over layers.

    Args:
        scores: ``pca_shift`` and ``pca_similarity``, layer -> value.
        params: Not used.
        reference: Not used.

    Returns:
        The shift of each layer as ``per_row``; the mean similarity as a part.
    """
    layers = aligned(scores, *NEEDS)
    value = average({layer: shift for layer, (shift, _) in layers.items()}, scores, *NEEDS)
    if value.mean is None:
        return value
    similarity = fmean(alike for _, alike in layers.values())
    note = "; ".join(filter(None, ("rows are layers", value.note)))
    return replace(value, parts={"similarity": similarity}, note=note)
