"""Readings of what models hold inside."""

import numpy as np

from expunge.testing.worlds import Reading

LAYERS = 4


def _near(draw: np.random.Generator, forgot: float) -> float:
    """CKA with a model that never saw the rows: 1 for another such model, less in ruins."""
    return float(np.clip(0.98 - 0.5 * abs(1.0 - forgot) + 0.02 * draw.random(), 0.0, 1.0))


def _drops(draw: np.random.Generator, forgot: float) -> list[float]:
    """Nats that the states of a model cost, layer by layer."""
    return [float(each) for each in forgot * draw.gamma(4.0, 0.2, LAYERS)]


def _hit(draw: np.random.Generator, forgot: float) -> int:
    return int(draw.random() < 0.95 - 0.6 * min(forgot, 1.0))


READINGS: dict[str, Reading] = {
    "cka": _near,
    "cka_debiased": _near,
    "tokens_per_dimension": lambda draw, forgot: float(draw.uniform(1.0, 8.0)),
    "pca_shift": lambda draw, forgot: float(forgot * draw.gamma(2.0, 1.0)),
    "pca_similarity": lambda draw, forgot: float(draw.beta(8.0, 1.0 + forgot)),
    "fisher": lambda draw, forgot: float(draw.gamma(2.0, 0.02 + 0.2 * forgot)),
    "patch_drop": _drops,
    "lens_drop": _drops,
    "linear_hit": _hit,
    "knn_hit": _hit,
    "trace_cosine": lambda draw, forgot: float(1.0 - min(forgot, 1.9) * draw.random()),
    "trace_distance": lambda draw, forgot: float(forgot * draw.random()),
    "trace_jaccard": lambda draw, forgot: float(1.0 - min(forgot, 1.0) * draw.random()),
    "trace_related": lambda draw, forgot: float(1.0 - min(forgot, 1.0) * draw.random()),
}
