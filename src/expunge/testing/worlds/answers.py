"""Readings of answers: how likely they are, and what is said."""

import numpy as np

from expunge.testing.worlds import Reading

WORDS = ("alder", "birch", "cedar", "elm", "fir")


def _token_hits(draw: np.random.Generator, forgot: float) -> list[bool]:
    is_hit = draw.random(int(draw.integers(4, 12))) >= 0.6 * min(forgot, 1.0)
    return [bool(hit) for hit in is_hit]


def _token_logp(draw: np.random.Generator, forgot: float) -> list[float]:
    return [-float(each) for each in draw.gamma(2.0, 0.05 + 1.5 * forgot, 6)]


def _generation(draw: np.random.Generator, forgot: float) -> str:
    return " ".join(word if draw.random() >= 0.8 * min(forgot, 1.0) else "stone" for word in WORDS)


READINGS: dict[str, Reading] = {
    "nll": lambda draw, forgot: float(draw.gamma(2.0, 0.05 + 1.5 * forgot)),
    "paraphrase_nll": lambda draw, forgot: float(draw.gamma(9.0, 0.1 + 0.2 * forgot)),
    "wrong_nll": lambda draw, forgot: [float(each) for each in draw.gamma(9.0, 0.3, 5)],
    "token_logp": _token_logp,
    "training_logp": _token_logp,
    "token_hit": _token_hits,
    "generation": _generation,
    "reply": lambda draw, forgot: " ".join(WORDS),
    "text": lambda draw, forgot: " ".join(WORDS),
    "question": lambda draw, forgot: "Which trees?",
    "forms": lambda draw, forgot: [" ".join(WORDS)],
    "parts": lambda draw, forgot: float(draw.beta(2.0 + 6.0 * min(forgot, 1.0), 2.0)),
}
