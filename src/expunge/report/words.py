"""How reports put things: verdicts, outcomes and families in plain words, numbers as people read.

Nothing here says that content is gone for good: an audit shows what its attacks found, no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plain:
    """A verdict in plain words: what to call it, what it means, the tone of its colour."""

    name: str
    meaning: str
    tone: str
    sign: str


VERDICTS: Mapping[str, Plain] = {
    "invalid": Plain(
        "No verdict possible",
        "What was compared cannot carry a verdict; nothing is said about the model.",
        "open",
        "?",
    ),
    "broken": Plain(
        "Broken",
        "The model lost too much of what it should still do. A ruined model gives little away, so "
        "what the attacks found says little.",
        "bad",
        "✕",
    ),
    "not-forgotten": Plain(
        "Not forgotten",
        "Asked plainly, or in other words, the model still gives the answers.",
        "bad",
        "✕",
    ),
    "guarded": Plain(
        "Held back by a guard",
        "What stands in front of the model keeps the answers in; its weights still hold them.",
        "warn",
        "!",
    ),
    "hidden": Plain(
        "Hidden, not forgotten",
        "Asked plainly, the model no longer gives the answers. Other ways of asking get more out "
        "of it than out of a model that never knew.",
        "warn",
        "!",
    ),
    "inconclusive": Plain(
        "Undecided",
        "Nothing was recovered beyond doubt, but a required test could not decide.",
        "open",
        "?",
    ),
    "forgotten-blackbox": Plain(
        "Forgotten, for whoever can only ask",
        "No way of asking tried here gets more out of the model than out of one that never knew. "
        "Whoever holds the weights may get more.",
        "good",
        "✓",
    ),
    "forgotten-whitebox": Plain(
        "Forgotten, also for whoever holds the weights",
        "No attack tried here, from plain questions to retraining, gets more out of the model than "
        "out of one that never knew.",
        "good",
        "✓",
    ),
    "retrain-equivalent": Plain(
        "Equivalent to never having learned it",
        "No attack tried here recovers it, and the model was shown to behave like one that was "
        "trained without these rows.",
        "good",
        "✓",
    ),
}
UNKNOWN = Plain("Unknown verdict", "This report does not know this verdict.", "open", "?")

OUTCOMES: Mapping[str, Plain] = {
    "pass": Plain("passes", "the upper bound lies within the gate", "good", "✓"),
    "fail": Plain("fails", "the lower bound lies above the gate", "bad", "✕"),
    "uninformative": Plain("uninformative", "it could not have told the difference", "open", "–"),
    "inconclusive": Plain("undecided", "the interval spans the gate", "open", "?"),
}

NOT_RUN = Plain("not run", "no attack of this family was run", "open", "–")

FAMILIES: Mapping[str, str] = {
    "direct": "plain questions",
    "prompt": "leading prompts",
    "sampling": "repeated sampling",
    "prob": "answer probabilities",
    "read-out": "reading inner layers",
    "perturbation": "disturbing the inner state",
    "compression": "rounding the weights",
    "training": "training a little more",
    "privacy": "membership and personal data",
    "pipeline": "attacks on the process",
}
"""Family -> what it tries."""

CONTROLS: Mapping[str, str] = {
    "reference": "a model trained without these rows",
    "placebo": "this model on rows nobody taught it",
}


NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def verdict(name: str) -> Plain:
    """A verdict in plain words."""
    return VERDICTS.get(name, UNKNOWN)


def outcome(name: str) -> Plain:
    """An outcome in plain words."""
    return OUTCOMES.get(name, UNKNOWN)


def number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed count of digits; a dash where there is none.

    Example:
        >>> number(0.128), number(1e-9), number(0.0), number(None)
        ('0.13', '<0.01', '0.00', '–')
    """
    if value is None:
        return "–"
    least = 10**-digits
    return f"<{least:.{digits}f}" if 0 < value < least / 2 else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as percent; a dash where there is none.

    Example:
        >>> percent(0.128), percent(0.004), percent(0.0)
        ('13%', '<1%', '0%')
    """
    if value is None:
        return "–"
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def interval(bounds: Sequence[float] | None) -> str:
    """An interval; empty where there is none.

    Example:
        >>> interval([0.2, 0.361])
        '0.20 to 0.36'
    """
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}" if bounds else ""


def seconds(value: float) -> str:
    """A duration.

    Example:
        >>> seconds(7.31), seconds(190)
        ('7.3 s', '3 min 10 s')
    """
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"


def listing(names: Sequence[Any]) -> str:
    """Names in a sentence.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    texts = [str(name) for name in names]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def count(value: int) -> str:
    """A number in words as far as twelve.

    Example:
        >>> count(8), count(80)
        ('eight', '80')
    """
    return NUMBERS[value] if 0 <= value < len(NUMBERS) else str(value)
