"""Forget quality: could this model, by its truth ratios, be the one that never saw the rows?

Definition (R_i as in the geometric truth ratio; M the model, M_r the retrained reference):
    R_i = exp(p_i - mean_j w_ij)        p: NLL of the paraphrased answer, w: of the wrong answers
    d   = sup_x |F_M(x) - F_Mr(x)|      two-sample Kolmogorov-Smirnov distance of the two sets {R_i}
    forget quality = P(D >= d)          exact two-sided p-value when both come from one distribution

Reference: TOFU: A Task of Fictitious Unlearning for LLMs (2024).

Departs from the paper: d and log10 p are reported beside p, which alone says more about the number
of rows than about the model; two models measured on different rows are refused. The test is made on
log R: it depends on the order of the values only. A collapsed model can reach a high p, so never
read it without utility beside it.

Meaning: above .05 the two sets of truth ratios could come from one distribution, so by this sign
the model could be the retrained one; far below it cannot. p depends on the number of rows, so it
does not compare across splits: d does. A model in ruins can reach a high p, and a model that
forgot too much has a low one, as has one that forgot nothing.

Example: log ratios 1, 2, 3, 4 against 2.5, 3.5, 4.5, 5.5.

    >>> from expunge.testing import measure
    >>> wrong = {"wrong_nll": [[0.0]] * 4}
    >>> ours = {"paraphrase_nll": [1.0, 2.0, 3.0, 4.0], **wrong}
    >>> retrained = {"paraphrase_nll": [2.5, 3.5, 4.5, 5.5], **wrong}
    >>> value = measure("forget-quality", ours, reference=retrained)
    >>> round(value.mean, 6), value.parts["d"]
    (0.771429, 0.5)
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scipy.stats import ks_2samp

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, lacking, matched, table, unmeasurable
from expunge.numbers.membership import READY

CARD = {
    "id": "forget-quality",
    "kind": "metric",
    "summary": "p-value of the test that truth ratios are those of the retrained model.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["paraphrase_nll", "wrong_nll", "reference"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "logits",
    "cost": "one forward pass a paraphrase and a wrong answer, on both models",
    "maturity": "beta",
    "version": 1,
}

EXACT_UP_TO = 10_000
"""Rows up to which the distribution of d is computed exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Whether different rows may be compared."""

    allow_unmatched: bool = param(
        False,
        help="compare even when the two models were measured on different rows",
        paper=True,
    )


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Forget quality of a model against the retrained reference.

    Args:
        scores: ``paraphrase_nll`` and ``wrong_nll`` of the model, nats a token; or ready log R as
            ``score``, as published logs hold it.
        params: Whether different rows may be compared.
        reference: The same readings of the retrained model.

    Returns:
        p, with ``d``, ``log10_p`` and ``n`` / ``n_reference`` among the parts and log R per row.

    Raises:
        ExpungeError: E-DATA-013 when the two models were measured on different rows.
    """
    if reference is None:
        return unmeasurable("it compares with a retrained reference, and none was given")
    ratios, expected = log_ratios(scores), log_ratios(reference)
    if not ratios or not expected:
        return unmeasurable("no row has paraphrase_nll and wrong_nll")
    matched(ratios, expected, allow_unmatched=params.allow_unmatched)
    if any(map(math.isnan, (*ratios.values(), *expected.values()))):
        return unmeasurable("a truth ratio is not a number")

    p, d = kolmogorov_smirnov(list(ratios.values()), list(expected.values()))
    parts = {"d": d, "n": float(len(ratios)), "n_reference": float(len(expected))}
    if p > 0:
        parts["log10_p"] = math.log10(p)
    needs = (READY,) if READY in scores else ("paraphrase_nll", "wrong_nll")
    absent = lacking(ratios, scores, *needs)
    note = "; ".join(filter(None, (absent, caution(ratios, expected, p))))
    beside = {"reference": expected}
    return Value(mean=p, per_row=ratios, beside=beside, parts=parts, note=note)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """P and d of log ratios [n] beside those of the reference [m]."""
    p, d = kolmogorov_smirnov(rows, beside["reference"])
    return {"mean": p, "d": d}


def log_ratios(scores: Mapping[str, Any]) -> dict[str, float]:
    """Log of the geometric truth ratio of each row that has one."""
    if READY in scores:
        return table(scores, READY)
    rows = aligned(scores, "paraphrase_nll", "wrong_nll")
    return {row: truth - fmean(wrong) for row, (truth, wrong) in rows.items()}


def kolmogorov_smirnov(
    first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray
) -> tuple[float, float]:
    """Two-sided p-value and distance of the two-sample Kolmogorov-Smirnov test."""
    is_small = max(len(first), len(second)) <= EXACT_UP_TO
    with warnings.catch_warnings():
        # Where p is 1, rounding may carry the exact sum beyond it; scipy then says so and gives
        # the asymptotic value, which is 1 to many digits too.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful")
        result = ks_2samp(first, second, method="exact" if is_small else "asymp")
    return float(result.pvalue), float(result.statistic)


def caution(ratios: Mapping[str, float], expected: Mapping[str, float], p: float) -> str:
    """What a reader of this p must know."""
    notes = []
    if ratios.keys() != expected.keys():
        notes.append("not like for like: the two models were measured on different rows")
    if p == 0:
        notes.append("p is below the smallest number that can be written")
    return "; ".join(notes)
