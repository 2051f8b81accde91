"""Telling states apart by numbers: a logistic regression, judged on rows it did not see.

Definition (x [d] standardised features, W [C, d + 1] the weights, a constant 1 after x):
    p(c | x)   = exp(W_c x) / sum_c' exp(W_c' x)
    W          = argmin sum_i -log p(c_i | x_i) + penalty/2 |W without constants|^2
    score      = mean_c AUC of p(c | x) between rows of c and all others
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from expunge.numbers.membership import auc

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FOLDS = 5
"""Parts that take turns in being judged."""


def multiclass_auc(
    features: FloatArray, states: Sequence[int], *, penalty: float = 1.0
) -> float | None:
    """How well the states are told apart by rows that the regression did not see.

    Args:
        features: [n, d]; every fifth row of a state, in the order given, is one part.
        states: [n], 0 to C - 1.
        penalty: Weight of the squared length.

    Returns:
        The mean over the states of one against the rest, .5 for a guess; None where a state has
        fewer rows than there are parts.
    """
    labels = np.asarray(states)
    names = np.unique(labels)
    if len(names) < 2 or min(int((labels == name).sum()) for name in names) < FOLDS:
        return None
    part = np.empty(len(labels), dtype=np.int64)
    for name in names:
        part[labels == name] = np.arange(int((labels == name).sum())) % FOLDS
    judged = np.empty((len(labels), len(names)))
    for fold in range(FOLDS):
        seen, held = part != fold, part == fold
        inputs = _standardised(features, seen)
        weights = _fitted(inputs[seen], np.searchsorted(names, labels[seen]), len(names), penalty)
        judged[held] = _log_softmax(inputs[held] @ weights.T)
    found = [
        auc(judged[labels != name, at], judged[labels == name, at]) for at, name in enumerate(names)
    ]
    return float(np.mean(found))


def _standardised(features: FloatArray, seen: npt.NDArray[np.bool_]) -> FloatArray:
    """Mean 0 and variance 1 over the rows seen, and a constant behind them."""
    spread = features[seen].std(0)
    scaled = (features - features[seen].mean(0)) / np.where(spread > 0, spread, 1.0)
    return np.hstack([scaled, np.ones((len(features), 1))])


def _fitted(inputs: FloatArray, labels: IntArray, count: int, penalty: float) -> FloatArray:
    from scipy.optimize import minimize

    shape = (count, inputs.shape[1])
    is_label = np.eye(count)[labels]
    weighs = np.ones(shape)
    weighs[:, -1] = 0.0

    def objective(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(shape)
        logp = _log_softmax(inputs @ weights.T)
        value = -float((is_label * logp).sum()) + penalty / 2 * float((weighs * weights**2).sum())
        gradient = (np.exp(logp) - is_label).T @ inputs + penalty * weighs * weights
        return value, gradient.ravel()

    found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64).reshape(shape)


def _log_softmax(values: FloatArray) -> FloatArray:
    shifted = values - values.max(1, keepdims=True)
    found: FloatArray = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found
