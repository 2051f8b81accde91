"""UWC score: what is left of the forget rows once the retain rows are given back.

Definition (theta_o the original's weights, theta_u the unlearned model's; ES extraction strength):
    theta(a) = a theta_o + (1 - a) theta_u            every parameter; buffers stay those of u
    a*       = smallest a in [0, 1] with ES(theta(a), retain) >= tau ES(theta_o, retain)
    score    = ES(theta(a*), forget)                  low: forgetting did not cost the rest

a* is looked for on a grid, 0, .05, ... 1, and between two points of it by bisection where
retention only rises along the grid.

Meaning: two methods are compared at the same retention, whatever each did to the model. A method
that forgets by breaking needs much of the original back (``share`` near 1) and scores as the
original does; one that is clean needs none (``share`` 0) and scores what it scored before,
``uncalibrated``. A retrained model has share 0 and what its answers give away by their last words.
It asks for weights that mix: models far from each other may be bad between two good ends.

Example:
    Half of the original is needed to have 96% of its retention, and then .25 is left to extract.

    >>> from expunge.testing import measure
    >>> scores = {"mixed_strength": [0.5, 0.0], "strength": [0.0, 0.0], "mixing_share": [0.5, 0.5],
    ...           "retain.mixed_strength": [0.96], "original:retain.strength": [1.0]}
    >>> value = measure("uwc-score", scores)
    >>> value.mean, value.parts["share"], value.parts["retention"], value.parts["uncalibrated"]
    (0.25, 0.5, 0.96, 0.0)

Reference: Towards Effective Evaluations and Comparisons for LLM Unlearning Methods (2024).

Departs from the paper: its code finds ES by one generation for every word of an answer; here one
forward pass gives it for every token (``es_mode=generate`` for the paper's). The two agree where
a beginning of an answer is cut into the same tokens as the whole. The paper's tau is quoted from
memory. Sums are formed in float32 and rounded to the models' own precision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING, Any

from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table, unmeasurable

if TYPE_CHECKING:
    from expunge.core.bootstrap import FloatArray
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "uwc-score",
    "kind": "metric",
    "summary": "What is left of the forget rows once the retain rows are given back.",
    "paper": "Towards Effective Evaluations and Comparisons for LLM Unlearning Methods (2024)",
    "needs": [
        "mixed_strength",
        "mixing_share",
        "retain.mixed_strength",
        "original:retain.strength",
    ],
    "models": ["original"],
    "roles": ["retain"],
    "better": "low",
    "range": [0.0, 1.0],
    "access": "weights",
    "cost": "21 to 27 forward passes a retain row, 3 a forget row; a copy of the weights",
    "maturity": "paper",
    "version": 1,
}

BESIDE = {
    "retain": "retain.mixed_strength",
    "original_retain": "original:retain.strength",
    "share": "mixing_share",
    "uncalibrated": "strength",
    "original": "original:strength",
}
"""What stands beside the score -> its reading."""

OPTIONAL = {"uncalibrated", "original"}
"""Those that are compared with, and enter nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much is given back, and how it is measured."""

    tau: float = param(
        0.95, help="share of the original's retention to be given back", paper=0.95, low=0, high=1
    )
    grid: int = param(20, help="steps of the grid from 0 to 1", paper=20, low=1)
    tolerance: float = param(1e-3, help="width at which the bisection ends", low=1e-6, high=1)
    es_mode: str = param(
        "forced",
        help="extraction strength by one forward pass, or by a generation for every word",
        paper="generate",
        choices=("forced", "generate"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, float]]:
    """Mix the weights of a copy until the retain rows are back, and measure what came with them."""
    from expunge.lm.mixing import Mixture
    from expunge.lm.strength import forced_strength, written_strength

    if models.original is None:
        return {}
    strength = forced_strength if params.es_mode == "forced" else written_strength
    mixture = Mixture(models.original, models.model)
    retained = _Retained(lambda share: strength(mixture.at(share), rows["retain"]))
    if not retained.rows(1.0):
        return {}
    share = smallest_share(retained, params)
    forget = {a: strength(mixture.at(a), rows[""]) for a in {0.0, share, 1.0}}
    return {
        "mixed_strength": forget[share],
        "mixing_share": dict.fromkeys(forget[share], share),
        "strength": forget[0.0],
        "original:strength": forget[1.0],
        "retain.mixed_strength": retained.rows(share),
        "original:retain.strength": retained.rows(1.0),
    }


class _Retained:
    """Retention of the mixtures, each measured once."""

    def __init__(self, measured: Callable[[float], dict[str, float]]) -> None:
        self._measured = measured
        self._known: dict[float, dict[str, float]] = {}

    def rows(self, share: float) -> dict[str, float]:
        if share not in self._known:
            self._known[share] = self._measured(share)
        return self._known[share]

    def __call__(self, share: float) -> float:
        return fmean(self.rows(share).values())


def smallest_share(retention: Callable[[float], float], params: Params) -> float:
    """The smallest share of the original that brings its retention back.

    Args:
        retention: Share of the original -> retention; that of 1 is the original's.
        params: The bar, the grid and the tolerance.

    Example:
        >>> round(smallest_share(lambda a: 0.5 + a / 2, Params(tau=0.83)), 2)
        0.66
    """
    grid = [step / params.grid for step in range(params.grid + 1)]
    kept = [retention(share) for share in grid]
    wanted = params.tau * kept[-1]
    first = next(place for place, value in enumerate(kept) if value >= wanted)
    only_rises = all(one <= other for one, other in pairwise(kept))
    if first == 0 or not only_rises:
        return grid[first]
    low, high = grid[first - 1], grid[first]
    while high - low > params.tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if retention(middle) >= wanted else (middle, high)
    return high


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Extraction strength of the forget rows at the retention asked for, mean over rows.

    Args:
        scores: What `read` gives: extraction strengths in [0, 1], and for each forget row the
            share of the original in the mixture.
        params: Not looked at.
        reference: Not used.

    Returns:
        The mean in [0, 1]. ``parts``: ``share`` a*; ``retention`` that of the mixture as a share
        of the original's; ``uncalibrated`` and ``original`` the score of the model as it is and
        of the original, where they were read; ``retain`` and ``original_retain`` the means behind
        the retention.
    """
    beside = {name: found for name, need in BESIDE.items() if (found := table(scores, need))}
    lacking = [
        BESIDE[name] for name in ("retain", "original_retain", "share") if name not in beside
    ]
    if lacking:
        return unmeasurable(f"no row has {' and '.join(lacking)}")
    if not any(beside["original_retain"].values()):
        return unmeasurable("the original itself completes none of the retain rows")
    value = average(table(scores, "mixed_strength"), scores, "mixed_strength")
    if value.mean is None:
        return value
    return replace(value, beside=beside, parts=_parts(value, beside, params))


def _parts(
    value: Value, beside: Mapping[str, Mapping[str, float]], params: Params
) -> dict[str, float]:
    import numpy as np

    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    found = aggregate(np.array(list(value.per_row.values())), arrays, params)
    return {name: number for name, number in found.items() if name != "mean"}


def aggregate(
    rows: "FloatArray", beside: Mapping[str, "FloatArray"], params: Params
) -> dict[str, float]:
    """The score, and the numbers behind the mixture it was taken at."""
    found = {"mean": float(rows.mean())}
    found |= {name: float(values.mean()) for name, values in beside.items() if len(values)}
    if found.get("original_retain", 0.0) > 0.0:
        found["retention"] = found["retain"] / found["original_retain"]
    return found
