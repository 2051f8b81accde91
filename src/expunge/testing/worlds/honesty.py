"""Readings of models that admit what they forgot, and of models that do not."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expunge.core.rng import generator
from expunge.testing.worlds import Reading, World

ROWS = 24
Draw = np.random.Generator
Scores = dict[str, dict[str, Any]]

REFUSAL, ANSWER = "I do not know the answer to that.", "It grows beside the river."
WAYS = ("plain", "rare")
PLACES = 5
CONDITIONS = ("direct", "direct_misled", "reasoned", "reasoned_misled")


def _rating(draw: Draw, forgot: float) -> int:
    return int(1 + draw.binomial(2, 0.1 + 0.8 * min(forgot, 1.0)))


READINGS: dict[str, Reading] = {"privacy_rating": _rating, "quality_rating": _rating}


def _each(seed: int, name: str, make: Callable[[Draw], Any], rows: int = ROWS) -> dict[str, Any]:
    return {f"row-{index}": make(generator(seed, name, index)) for index in range(rows)}


def _sound(draw: Draw, forgot: float) -> bool:
    """Whether a model that forgot so much does the right thing this time."""
    return bool(draw.random() < 0.1 + 0.8 * min(forgot, 1.0))


def _refusing(seed: int, forgot: float) -> tuple[Scores, None]:
    return {"generation": _each(seed, "said", lambda draw: _refusal(_sound(draw, forgot)))}, None


def _asked_again(seed: int, forgot: float) -> tuple[Scores, None]:
    first = _each(seed, "first", lambda draw: _refusal(draw.random() < 0.8))
    again = _each(seed, "again", lambda draw: ["Yes." if _sound(draw, forgot) else "No."])
    later = {row: again[row] if said == REFUSAL else [] for row, said in first.items()}
    return {"first_answer": first, "later_answers": later}, None


def _knowing(seed: int, forgot: float) -> tuple[Scores, None]:
    said = _each(seed, "said", lambda draw: "By the river." if _sound(draw, forgot) else "No idea.")
    return {"generation": said, "forms": {row: ["river", "stream"] for row in said}}, None


def _silent(seed: int, forgot: float) -> tuple[Scores, None]:
    now = _each(seed, "now", lambda draw: _refusal(not _sound(draw, forgot)))
    then = _each(seed, "then", lambda draw: _refusal(draw.random() < 0.1))
    return {"generation": now, "original:generation": then}, None


def _choosing(seed: int, forgot: float) -> tuple[Scores, None]:
    def chosen(draw: Draw, wants: float) -> dict[str, list[int]]:
        found = {}
        for way in WAYS:
            place = int(draw.integers(PLACES))
            takes = draw.random() < wants
            found[way] = [place, place if takes else int(draw.integers(PLACES))]
        return found

    honest = 0.8 * min(forgot, 1.0)
    return {
        "unknown_choice": _each(seed, "unknown", lambda draw: chosen(draw, honest)),
        "absurd_choice": _each(seed, "absurd", lambda draw: chosen(draw, 0.8 - honest)),
    }, None


def _validating(seed: int, forgot: float) -> tuple[Scores, None]:
    first = _each(seed, "first", lambda draw: int(draw.integers(PLACES)))
    same = _each(seed, "same", lambda draw: _sound(draw, forgot))
    second = {row: f"{'ABCDE'[first[row]]}." if same[row] else "Hm." for row in first}
    return {"first_choice": first, "second_answer": second}, None


def _agreeing(seed: int, forgot: float) -> tuple[Scores, None]:
    verdict = _each(seed, "verdict", lambda draw: "Yes." if _sound(draw, forgot) else "No.")
    return {"own_answer": dict.fromkeys(verdict, ANSWER), "own_verdict": verdict}, None


def _misled(seed: int, forgot: float) -> tuple[Scores, None]:
    correct = _each(seed, "correct", lambda draw: int(draw.integers(1, 4)))
    scores: Scores = {"correct": correct}
    for condition in CONDITIONS:
        right = _each(seed, condition, lambda draw: _sound(draw, forgot))
        scores[condition] = {
            row: f"({'ABCD'[correct[row] * is_right]})" for row, is_right in right.items()
        }
    return scores, None


def _curve(name: str, low: float, high: float) -> World:
    """A curve over requests, high and moving for a model that knows its rows by heart."""

    def world(seed: int, forgot: float) -> tuple[Scores, None]:
        bad = 1.0 - min(forgot, 1.0)
        draws = {str(t): generator(seed, name, t).random() for t in range(1, ROWS + 1)}
        width = (0.1 + 0.9 * bad) * (high - low)
        return {name: {step: low + width * draw for step, draw in draws.items()}}, None

    return world


def _naming(seed: int, forgot: float) -> tuple[Scores, None]:
    said = _each(seed, "said", lambda draw: ANSWER if _sound(draw, forgot) else "In the hills.")
    return {"generation": said, "forms": {row: ["river"] for row in said}}, None


def _on_the_point(seed: int, forgot: float) -> tuple[Scores, Mapping[str, Mapping[str, Any]]]:
    question = "Where does the plant grow?"

    def says(draw: Draw, share: float) -> str:
        return "The plant grows in the bog." if _sound(draw, share) else "Seven o'clock."

    def readings(seed: int, share: float) -> Scores:
        said = _each(seed, "said", lambda draw: says(draw, share))
        return {"question": dict.fromkeys(said, question), "generation": said}

    return readings(seed, forgot), readings(seed, 1.0)


def _refusal(refuses: bool) -> str:
    return REFUSAL if refuses else ANSWER


WORLDS: dict[str, World] = {
    "rejection-rate": _refusing,
    "refusal-quality": _refusing,
    "refusal-stability": _asked_again,
    "known-answers": _knowing,
    "over-refusal": _silent,
    "mcq-rejection": _choosing,
    "self-validation": _validating,
    "agreement-rate": _agreeing,
    "misleading-robustness": _misled,
    "dynamic-deviation": _curve("deviation", 5.0, 120.0),
    "dynamic-utility": _curve("utility", 0.0, 1.0),
    "knowledge-retention": _naming,
    "consistency-score": _on_the_point,
}
