"""Stratum utility: what is kept of the kind of rows that lost most.

Definition (s a stratum: directly connected rows, rows of the same domain, general ones; means over
its rows of p, probability of the true answer's tokens; R, ROUGE-L of the written answer; c, cosine
of the two, at least 0; HM the harmonic mean, 0 if a part is 0):
    utility(s) = HM( p(s), R(s), c(s) )
    number     = min over s of utility(s)

Reference: Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025).

Departs from the paper: the minimum over strata in place of a table of them (its rule is to report
every stratum; each is a part here). Its code exchanges the two texts of ROUGE-L
(``rouge=precision``) and takes its cosine from an embedding model, ours from the pieces of words.
Compare feeding schemes on all rows to keep, never on those that a scheme trained on.

Meaning: read it beside the original's, which is the most that can be kept. A mean over all rows
hides a method that ruined the few rows next to the forgotten ones; the minimum does not. The
stratum is ``meta["stratum"]`` of a row, else its role. Strata of fewer than some ten rows make the
minimum a matter of luck, and it falls with their number: compare equal strata only.

Example: a stratum that is known, and one of whose answer half is said, half alike, at p = 1/4:
3 / (4 + 2 + 2).

    >>> from math import log
    >>> from expunge.testing import measure
    >>> value = measure("stratum-utility", {
    ...     "token_logp": [[0.0], [log(0.25)]], "reply": ["red", "red owl"],
    ...     "generation": ["red", "red elk"], "stratum": ["general", "direct"]})
    >>> value.parts["utility:general"], round(value.parts["utility:direct"], 6)
    (1.0, 0.375)
    >>> round(value.mean, 6)
    0.375
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import average, table
from expunge.text.closeness import KINDS, READINGS, closeness_of

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "stratum-utility",
    "kind": "metric",
    "summary": "Utility of the stratum of rows to keep that lost most.",
    "paper": "Standard vs. Modular Sampling: Best Practices for Reliable LLM Unlearning (2025)",
    "needs": ["token_logp", "generation", "reply", "stratum"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass and one greedy generation of 50 tokens a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Which ROUGE-L is taken."""

    rouge: Literal["recall", "precision"] = param(
        "recall",
        help="recall of the true answer's words, or the precision that the paper's code forms",
        paper="recall; precision in its code",
        choices=("recall", "precision"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, str]]:
    """The stratum of each row."""
    own = rows.get("", ())
    return {"stratum": {row.id: str(row.meta.get("stratum", row.role)) for row in own}}


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """The smallest utility of a stratum.

    Args:
        scores: ``token_logp`` (nats), ``generation``, ``reply`` and ``stratum`` (a name).
        params: Which ROUGE-L.
        reference: Not used.

    Returns:
        The minimum in [0, 1], with ``utility:NAME`` of every stratum among the parts.
    """
    strata = table(scores, "stratum")
    found = {row: t for row, t in closeness_of(scores, params.rouge).items() if row in strata}
    shares = {row: harmonic_mean(three) for row, three in found.items()}
    value = average(shares, scores, *READINGS, "stratum")
    if value.mean is None:
        return value
    beside: dict[str, dict[str, float]] = {}
    for row, three in found.items():
        for kind, number in zip(KINDS, three, strict=True):
            beside.setdefault(f"{strata[row]}/{kind}", {})[row] = number
    arrays = {name: np.array(list(of.values())) for name, of in beside.items()}
    parts = aggregate(np.array([]), arrays, params)
    return replace(value, mean=parts.pop("mean"), parts=parts, beside=beside)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The number and every stratum's utility, from its rows' three numbers [n]."""
    strata = sorted({name.rpartition("/")[0] for name in beside})
    parts = {
        f"utility:{name}": harmonic_mean([float(beside[f"{name}/{kind}"].mean()) for kind in KINDS])
        for name in strata
    }
    return {"mean": min(parts.values()), **parts}
