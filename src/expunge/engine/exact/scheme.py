"""How a method lays an ensemble out; a method of this kind has ``scheme(params, blocks, seed)``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.engine.exact.sequences import Order

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """The layout of an ensemble.

    Attributes:
        shards: m.
        slices: L, of each shard.
        orders: Shard -> its sequences: orders in which its slices are trained on.
        blocks: Stage, from 0 -> the decoder blocks whose adapters it trains, from the bottom. What
            an earlier stage trained goes on from there.
        retrains: Stages that are left of each sequence of a shard -> whether it is trained anew
            from there at once.
        revives: Whether a shard that was trained anew counts as new.
        chances: For each slice of a shard how likely the next deletion hits it, where that is
            known.
    """

    shards: int
    slices: int
    orders: Callable[[int], Sequence[Order]]
    blocks: Callable[[int], Sequence[int]]
    retrains: Callable[[Sequence[int]], bool]
    revives: bool
    chances: tuple[float, ...] | None = None


def scheme_of(module: ModuleType, params: Any, blocks: int, seed: int) -> Scheme:
    """What a method makes of its parameters.

    Args:
        module: The method's.
        params: Its parameters.
        blocks: Decoder blocks of the model.
        seed: Of the run.

    Raises:
        ExpungeError: ``E-USE-003`` where they do not fit the model.
    """
    made: Scheme = module.scheme(params, blocks, seed)
    return made


def is_ensemble(module: ModuleType) -> bool:
    """Whether a method trains an ensemble."""
    return hasattr(module, "scheme")


def blocks_of(layers: Sequence[int] | None, blocks: int) -> list[int]:
    """The decoder blocks that get adapters, from the bottom.

    Args:
        layers: As asked for, negative from the top; None means all.
        blocks: How many the model has.

    Raises:
        ExpungeError: ``E-USE-003`` when there is no such block.
    """
    if layers is None:
        return list(range(blocks))
    if wrong := [layer for layer in layers if not -blocks <= layer < blocks]:
        raise ExpungeError(
            "E-USE-003",
            f"Layer {wrong[0]} of a model with {blocks} blocks.",
            f"numbers from {-blocks} to {blocks - 1}.",
            "Choose layers of this model.",
        )
    return sorted({layer % blocks for layer in layers})
