"""Readings of what units of the MLPs add to an answer."""

from expunge.testing.worlds import Reading

READINGS: dict[str, Reading] = {
    "attribution_gone": lambda draw, forgot: float(min(forgot, 1.0) * draw.uniform(0.6, 1.0)),
    "attribution_against": lambda draw, forgot: float(
        (1.0 - 0.8 * min(forgot, 1.0)) * draw.gamma(2.0, 0.5)
    ),
}
