"""What ``auto`` stands for in edits: how far a value may go, what the length of a change weighs.

The papers' limits are those of models whose values and keys are long. In a small model they may
leave every edit short of its target, and nothing is edited; in another they suffice, and more costs
what is to be kept. So the papers' limits are tried first, and wider ones only where a few
associations do not reach their target under them. INFERRED; measured on tiny models of four
families.
"""

from torch import Tensor

from expunge.core.families import EditParams, NullSpaceParams
from expunge.engine.rates import FULL_SIZE

LIMITS = ((0.5, 0.75), (0.01, 1.5))
"""Weight of the length of a value and longest value: the papers', then wider ones, at which 80
edits by `memit` cost the embedded model a fifth of its token accuracy; at 4 lengths nearly all."""

REACHED = 1.0
"""Mean objective at which a target is reached, in nats a token, the weight of the length in it."""

LENGTH, SHARE = 10.0, 0.01
"""L2 of large models; of small ones as a share of the mean squared length of keys."""


def is_large(size: int) -> bool:
    """Whether the papers' numbers hold for a model of so many parameters."""
    return size >= FULL_SIZE


def limits_of(params: EditParams) -> list[tuple[float, float]]:
    """Weights of length and longest values to try, in order; what is given stands in all."""
    given = (params.v_weight_decay, params.clamp_norm_factor)
    tried = [
        (
            float(decay if given[0] == "auto" else given[0]),
            float(clamp if given[1] == "auto" else given[1]),
        )
        for decay, clamp in LIMITS
    ]
    return list(dict.fromkeys(tried))


def length_weight(params: NullSpaceParams, keys: Tensor, size: int) -> float:
    """L2 as given, or what ``auto`` stands for.

    Args:
        params: Where it is given.
        keys: [n, d_in], the keys of what is written.
        size: Parameters of the model.
    """
    if params.l2 != "auto":
        return float(params.l2)
    return LENGTH if is_large(size) else SHARE * float(keys.square().sum(1).mean())
