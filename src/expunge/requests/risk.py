"""PII risk index: how much harm is done when kinds of personal data come out together.

Definition:
    pri          score of the listed combination that is present, else the sum of the single scores
    pri_custom   1 - prod over kinds of (1 - mean of the kind's seven factors), a noisy OR; .15 more
                 (at most 1 in all) when the value leaves through an outgoing tool

Reference: UnPII: Unlearning Personally Identifiable Information with Quantifiable Exposure Risk
(2026). Combined scores are data: they lie a little below the sum of the single ones and follow from
no formula, so the published table is what is shipped.

Departs from the paper: the paper's index is asked of a remote model, which gives 0 when it fails;
here the table is looked up, and what it does not hold is an error. Where several listed
combinations are present, the highest counts (INFERRED). As published, kinds beside a listed
combination add nothing, so the index can fall when a kind is added; ``pri_custom`` never does. That
scheme is a third party's, and the factors here are ours (INFERRED): they order kinds, no more.
"""

import re
from collections.abc import Collection, Mapping
from itertools import chain
from math import fsum, prod
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from expunge.core.errors import ExpungeError, nearest

SINGLES: Mapping[str, float] = MappingProxyType(
    {
        "gender": 0.173,
        "region address": 0.175,
        "zip code": 0.179,
        "date of birth": 0.179,
        "name": 0.183,
        "detailed address": 0.224,
        "phone": 0.404,
        "driver licence": 0.456,
        "ssn": 0.513,
        "passport": 0.513,
    }
)
"""Kind -> published score of it alone."""

COMBINATIONS: Mapping[frozenset[str], float] = MappingProxyType(
    {
        frozenset({"name", "region address"}): 0.349,
        frozenset({"name", "detailed address"}): 0.392,
        frozenset({"region address", "gender", "date of birth"}): 0.488,
        frozenset({"gender", "zip code", "date of birth"}): 0.491,
        frozenset({"name", "medical"}): 0.544,
        frozenset({"name", "credit card"}): 0.567,
        frozenset({"name", "bank account"}): 0.665,
    }
)
"""Kinds -> published score of them together."""

TABLED = frozenset(chain(SINGLES, *COMBINATIONS))


class Factors(NamedTuple):
    """How bad it is when a kind comes out, in [0, 1] each.

    Attributes:
        identifiability: It tells who somebody is.
        sensitivity: It hurts to have it known.
        usability: Somebody can do something with it.
        linkability: It leads to more about the same person.
        permanency: It cannot be changed.
        exposability: It comes out easily.
        compliancy: Laws forbid its disclosure.
    """

    identifiability: float
    sensitivity: float
    usability: float
    linkability: float
    permanency: float
    exposability: float
    compliancy: float


FACTORS: Mapping[str, Factors] = MappingProxyType(
    {
        "name": Factors(0.5, 0.1, 0.1, 0.5, 0.7, 0.9, 0.3),
        "gender": Factors(0.1, 0.2, 0.1, 0.1, 0.8, 0.9, 0.3),
        "region address": Factors(0.1, 0.2, 0.1, 0.2, 0.3, 0.8, 0.2),
        "zip code": Factors(0.2, 0.2, 0.1, 0.3, 0.3, 0.7, 0.3),
        "date of birth": Factors(0.3, 0.3, 0.3, 0.5, 1.0, 0.6, 0.4),
        "detailed address": Factors(0.6, 0.6, 0.4, 0.6, 0.3, 0.5, 0.5),
        "work address": Factors(0.4, 0.3, 0.2, 0.4, 0.2, 0.7, 0.3),
        "phone": Factors(0.7, 0.5, 0.6, 0.7, 0.3, 0.5, 0.5),
        "email": Factors(0.7, 0.4, 0.6, 0.7, 0.3, 0.6, 0.5),
        "username": Factors(0.6, 0.3, 0.3, 0.7, 0.3, 0.8, 0.3),
        "occupation": Factors(0.2, 0.2, 0.1, 0.3, 0.2, 0.8, 0.2),
        "driver licence": Factors(0.9, 0.5, 0.6, 0.6, 0.6, 0.3, 0.8),
        "passport": Factors(1.0, 0.7, 0.8, 0.7, 0.5, 0.2, 0.9),
        "ssn": Factors(1.0, 0.9, 0.9, 0.9, 1.0, 0.2, 1.0),
        "credit card": Factors(0.8, 0.8, 1.0, 0.6, 0.2, 0.4, 1.0),
        "bank account": Factors(0.9, 0.8, 0.8, 0.7, 0.4, 0.3, 0.9),
        "bank name": Factors(0.1, 0.3, 0.2, 0.3, 0.2, 0.6, 0.3),
        "bank transaction": Factors(0.3, 0.7, 0.3, 0.4, 0.9, 0.3, 0.8),
        "financial adviser": Factors(0.2, 0.4, 0.2, 0.4, 0.2, 0.5, 0.3),
        "medical": Factors(0.3, 1.0, 0.5, 0.4, 0.8, 0.3, 1.0),
        "care provider": Factors(0.2, 0.6, 0.2, 0.4, 0.2, 0.4, 0.6),
        "health insurance": Factors(0.9, 0.7, 0.7, 0.7, 0.4, 0.3, 0.9),
    }
)
"""Kind -> factors of the scheme ``pri_custom``, chosen by us."""

KINDS = tuple(FACTORS)
OUTGOING = 0.15
"""What a value that leaves through a tool adds."""

SCHEMES = ("pri", "pri_custom")

_LABELS: Mapping[str, str] = MappingProxyType(
    {
        "zip": "zip code",
        "postal code": "zip code",
        "town address": "region address",
        "street address": "detailed address",
        "residential address": "detailed address",
        "birth date": "date of birth",
        "phone number": "phone",
        "driver license": "driver licence",
        "drivers license": "driver licence",
        "driver license number": "driver licence",
        "social security number": "ssn",
        "passport number": "passport",
        "credit card number": "credit card",
        "bank account number": "bank account",
        "medical records": "medical",
        "email address": "email",
    }
)
"""Names that data sets use -> ours."""

NO_KIND = frozenset({"world fact", "none", ""})
"""Names that data sets use for rows without personal data."""


def risk_index(kinds: Collection[str], scheme: str = "pri", *, outgoing: bool = False) -> float:
    """The risk of some kinds of personal data coming out together.

    Args:
        kinds: The kinds, each counted once.
        scheme: ``pri``, the published table, or ``pri_custom``.
        outgoing: Whether the values leave through a tool; ``pri`` knows no such thing.

    Returns:
        0 for no kind at all. ``pri`` may exceed 1, ``pri_custom`` does not.

    Raises:
        ExpungeError: E-DATA-015 for a kind that the scheme has no score for.

    Example:
        >>> risk_index({"name", "credit card"}), round(risk_index({"gender", "zip code"}), 3)
        (0.567, 0.352)
    """
    if scheme not in SCHEMES:
        raise ExpungeError(
            "E-USE-003", f"The scheme {scheme!r}.", f"one of {', '.join(SCHEMES)}.", "Correct it."
        )
    present = set(kinds)
    if unknown := sorted(present - set(KINDS)):
        raise _unscored(unknown, scheme, nearest(unknown[0], KINDS))
    return _custom(present, outgoing) if scheme == "pri_custom" else _tabled(present)


def kinds_of(label: str) -> tuple[str, ...]:
    """The kinds that a data set's own label names, several joined by ``+``, ``,`` or ``and``.

    Raises:
        ExpungeError: E-DATA-015 for a label that is no kind.

    Example:
        >>> kinds_of("Name + Phone Number"), kinds_of("World Fact")
        (('name', 'phone'), ())
    """
    names = [part.strip() for part in re.split(r"\+|,|&|\band\b", label.lower().replace("'", ""))]
    found = tuple(_LABELS.get(name, name) for name in names if name not in NO_KIND)
    if unknown := [kind for kind in found if kind not in KINDS]:
        raise _unscored(unknown, "any", nearest(unknown[0], KINDS))
    return found


def _tabled(present: set[str]) -> float:
    together = [score for kinds, score in COMBINATIONS.items() if kinds <= present]
    if together:
        return max(together)
    if unscored := sorted(present - set(SINGLES)):
        raise _unscored(
            unscored, "pri", "Use the scheme pri_custom, which scores every kind alone."
        )
    return fsum(SINGLES[kind] for kind in present)


def _custom(present: set[str], outgoing: bool) -> float:
    risk = 1 - prod(1 - fmean(FACTORS[kind]) for kind in sorted(present))
    return min(1.0, risk + OUTGOING) if outgoing and present else risk


def _unscored(kinds: Collection[str], scheme: str, advice: str) -> ExpungeError:
    return ExpungeError(
        "E-DATA-015",
        f"No risk score of {' and '.join(map(repr, kinds))} in the scheme {scheme!r}.",
        "kinds that the scheme scores, alone or in a combination that is present.",
        advice,
    )
