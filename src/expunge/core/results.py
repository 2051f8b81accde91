"""What metrics and attacks return, and what the audit says of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One measured number.

    Attributes:
        mean: The number, or None when it cannot be measured (then `note` says why).
        per_row: Row id -> this row's share of it.
        beside: What the number is formed from beside `per_row`: name (``holdout``, ``reference``
            ...) -> row id -> value.
        interval: 95% interval of the mean.
        parts: Named parts of the number (for instance ``d`` of a Kolmogorov-Smirnov test).
        intervals: 95% intervals of the parts that have one.
        units: How many entities were resampled for the intervals; None where there are none.
        seed: Of that resampling.
        against: Name of the model it was compared with; empty when it compares with none.
        note: What a reader must know.
        behind: How many rows stand behind a number that has none itself, being made of numbers.
    """

    mean: float | None
    per_row: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    interval: tuple[float, float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    units: int | None = None
    seed: int | None = None
    against: str = ""
    note: str = ""
    behind: int = 0

    @property
    def n(self) -> int:
        """Number of rows measured."""
        return len(self.per_row) or self.behind

    def as_dict(self) -> dict[str, Any]:
        """The JSON value, from which every aggregate can be computed again."""
        fields = asdict(self)
        del fields["behind"]
        for name in ("interval", "intervals"):
            fields[name] = _lists(fields[name])
        return {"n": self.n, **fields}


def _lists(value: Any) -> Any:
    """Pairs as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _lists(each) for name, each in value.items()}
    return value and list(value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """What one attack got out of one model on one set of rows.

    Attributes:
        per_row: Row id -> leak in [0, 1], only for rows this attack tested.
        beside: What stands beside the leaks, name -> row id -> value in [0, 1]: ``holdout``, the
            placements of hold-out rows; ``clean``, the damage without the attack.
        transcript: What was asked and answered, one entry a row, for the report.
        curve: For training attacks: step -> mean leak on the tested rows.
        layers: For attacks that look at every block: block -> mean leak read there.
        parts: Named secondary numbers (``pinpoint``, ``identity_rate``, ``retain_after`` ...).
        invalid: Non-empty when the attack broke its own rules (for instance destroyed the model).
        threshold: A threshold that replaces the card's, where a fallback form demands it.
        note: What a reader must know.
    """

    per_row: Mapping[str, float]
    transcript: tuple[Mapping[str, Any], ...] = ()
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    layers: Mapping[int, float] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    invalid: str = ""
    threshold: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What mounting an attack once will cost, for the estimate made before any weights load.

    Attributes:
        answers: Answers written.
        forwards: Rows scored.
        backwards: Rows with a gradient.
        copies: Copies of the weights.
    """

    answers: float = 0
    forwards: float = 0
    backwards: float = 0
    copies: float = 0


class Outcome(StrEnum):
    """What one attack says about one claim."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNINFORMATIVE = "uninformative"
    INCONCLUSIVE = "inconclusive"


class Verdict(StrEnum):
    """The class an audit puts a model in; the order is that of the rules (first match)."""

    INVALID = "invalid"
    BROKEN = "broken"
    NOT_FORGOTTEN = "not-forgotten"
    GUARDED = "guarded"
    HIDDEN = "hidden"
    INCONCLUSIVE = "inconclusive"
    RETRAIN_EQUIVALENT = "retrain-equivalent"
    FORGOTTEN_WHITEBOX = "forgotten-whitebox"
    FORGOTTEN_BLACKBOX = "forgotten-blackbox"

    def at_least(self, required: "Verdict") -> bool:
        """Whether this class satisfies ``--require required``."""
        order = [
            Verdict.FORGOTTEN_BLACKBOX,
            Verdict.FORGOTTEN_WHITEBOX,
            Verdict.RETRAIN_EQUIVALENT,
        ]
        if self == required:
            return True
        return self in order and required in order and order.index(self) >= order.index(required)
