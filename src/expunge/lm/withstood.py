"""How hard an attack may push: the strongest change of its states that the original withstands.

An attack that changes activations must change them enough to undo a suppression, and not so much
that nothing is known any more. How much that is can be seen on the original alone: on facts to be
kept, which it knows. So the choice is the same whichever model is attacked, and looks at no row
that is attacked.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple
from weakref import WeakKeyDictionary

from expunge.lm.arch import Slots
from expunge.lm.relearn import draw_rows
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

WITHSTOOD = 0.8
"""Share of the facts told without a change that must be told under it."""

TRIED = 20
"""Facts the original is tried on, at most."""


class Push(NamedTuple):
    """Where an attack changes the states, and how strongly."""

    layer: int
    strength: float


Telling = Callable[[Subject, Sequence[Row], Push], float]
"""How much of some facts a model tells when it is pushed."""

_KNOWN: WeakKeyDictionary[Subject, dict[tuple[object, ...], Push]] = WeakKeyDictionary()


def bands(depth: int) -> tuple[int, ...]:
    """Four blocks of the lower half, evenly spread, all with at least one block above them.

    Example:
        >>> bands(32), bands(3)
        ((4, 8, 12, 16), (0, 1))
    """
    places = (min(depth * eighths // 8, max(0, depth - 2)) for eighths in range(1, 5))
    return tuple(dict.fromkeys(places))


def choose(
    scene: Scene,
    telling: Telling,
    *,
    layers: Sequence[int],
    strengths: Sequence[float],
    name: str,
    default: Push,
) -> Push:
    """The strongest push under which the original still tells what it tells by itself.

    Among layers it is the one that leaves most, of equal ones the first. Where no strength is
    withstood, the weakest is taken.

    Args:
        scene: Has the original and the rows to be kept.
        telling: How much of some facts is told; a push of strength 0 changes nothing.
        layers: Blocks to choose from.
        strengths: Strengths to choose from.
        name: Of the attack and all its settings: what is chosen once for them is kept.
        default: The choice where there is no original of this depth, or none that tells some of
            the facts to be kept: what comes nearest to it.
    """
    options = [Push(*pair) for pair in product(layers, strengths)]
    if len(options) == 1:
        return options[0]
    nearest = min(options, key=lambda one: _distance(one, default))
    original = scene.original
    if original is None or not scene.retain or max(layers) >= len(Slots(original.model)):
        return nearest
    rows = draw_rows(scene.retain, TRIED, scene.seed, "withstood")
    known = _KNOWN.setdefault(original, {})
    setting = (name, tuple(layers), tuple(strengths), scene.new_tokens, scene.seed)
    key = (original.digest, *setting, *map(repr, rows))
    if key not in known:
        known[key] = _strongest(original, rows, layers, strengths, telling) or nearest
    return known[key]


def _strongest(
    original: Subject,
    rows: Sequence[Row],
    layers: Sequence[int],
    strengths: Sequence[float],
    telling: Telling,
) -> Push | None:
    """None where the original tells nothing that could be lost."""
    enough = WITHSTOOD * telling(original, rows, Push(layers[0], 0.0))
    if not enough:
        return None
    for strength in sorted(strengths, reverse=True):
        left = {layer: telling(original, rows, Push(layer, strength)) for layer in layers}
        best = max(left, key=lambda layer: left[layer])
        if left[best] >= enough:
            break
    return Push(best, strength)


def _distance(one: Push, default: Push) -> tuple[int, float]:
    return abs(one.layer - default.layer), abs(one.strength - default.strength)
