"""Worlds of multiple choice, of probes, and of what a model writes at length."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World

ROWS = 24
OPTIONS = 4
KINDS = ("blank", "question", "role play")
PROSE = (
    "the garden behind the old mill is full of herbs and in spring the children of the village "
    "come to pick them for soup while their parents mend the wall along the stream"
)


def _scores(draw: np.random.Generator, forgot: float) -> list[list[float]]:
    """Four orders of four options; the first is true, and known by heart where nothing is gone."""
    scores = draw.normal(-3.0, 0.7, (OPTIONS, OPTIONS))
    scores[:, 0] += 3.0 * (1 - min(forgot, 1.0))
    return [[float(each) for each in order] for order in scores]


READINGS: dict[str, Reading] = {
    "choice_scores": _scores,
    "choice_correct": lambda draw, forgot: [0],
    "kind": lambda draw, forgot: KINDS[int(draw.integers(len(KINDS)))],
    "subject": lambda draw, forgot: f"target-{draw.integers(6)}",
}


def _rows(make: Callable[[np.random.Generator], Any], *of: Any) -> dict[str, Any]:
    return {f"row-{i}": make(generator(*of, i)) for i in range(ROWS)}


def _prose(metric: str) -> World:
    """Utility is lost where nothing is forgotten: the model loops in more and more rows."""

    def world(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
        sound = min(forgot, 1.0)

        def said(draw: np.random.Generator) -> str:
            words = PROSE.split()
            start = int(draw.integers(len(words)))
            turned = [*words[start:], *words[:start]]
            return " ".join(turned if draw.random() < sound else turned[:2] * 16)

        return {"generation": _rows(said, seed, metric)}, None

    return world


def _judged(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    lost = 1 - min(forgot, 1.0)
    judged = _rows(lambda draw: float(draw.gamma(4.0, 0.5 + lost)), seed, "judged")
    return {"judged_nll": judged, "judge": dict.fromkeys(judged, "base")}, None


def _entailed(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
    known = _rows(lambda draw: bool(draw.random() >= 0.9 * min(forgot, 1.0)), seed, "entails")
    said = {row: "It is told." if told else "It is not." for row, told in known.items()}
    return {"generation": said, "entails": {row: {said[row]: known[row]} for row in said}}, None


def _parts(**ends: tuple[float, float]) -> World:
    """Parts that go from one end, nothing forgotten and utility lost, to the other."""

    def world(seed: int, forgot: float) -> tuple[Mapping[str, Any], None]:
        draw, share = generator(seed, *ends), min(forgot, 1.0)
        noise = draw.uniform(-0.02, 0.02, len(ends))
        return {
            "parts": {
                name.replace("_", " "): float(first + share * (last - first) + off)
                for (name, (first, last)), off in zip(ends.items(), noise, strict=True)
            }
        }, None

    return world


WORLDS: dict[str, World] = {
    "fluency": _prose("fluency"),
    "repetition": _prose("repetition"),
    "gibberish": _prose("gibberish"),
    "base-perplexity": _judged,
    "entailment-score": _entailed,
    "unlearning-effectiveness": _parts(accuracy=(0.6, 0.25), original=(0.6, 0.6)),
    "utility-retained": _parts(
        mmlu=(0.3, 0.6), original_mmlu=(0.6, 0.6), gsm8k=(0.1, 0.4), original_gsm8k=(0.4, 0.4)
    ),
    "robustness": _parts(quantising=(0.6, 0.3), relearning=(0.6, 0.4), original=(0.6, 0.6)),
}
