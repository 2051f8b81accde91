"""TIES: several changes of the same weights as one.

Definition (d_i: the changes, w_i: their weights):
    kept_i   d_i without all but its ``density`` largest entries
    sign     that of sum_i w_i kept_i, entry by entry; where it is 0, plus
    merged   mean of those kept_i that have this sign, weighted by w_i; 0 where none has

Reference: TIES-Merging: Resolving Interference When Merging Models, 2023.
"""

from collections.abc import Sequence

import torch
from peft.utils.merge_utils import (
    calculate_majority_sign_mask,
    prune,
    reshape_weight_task_tensors,
)
from torch import Tensor


def ties(changes: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """Merge changes.

    Args:
        changes: At least one, all of one shape.
        weights: How much each counts, above 0.
        density: Share of its entries that each keeps, in (0, 1].
    """
    kept = torch.stack(
        [prune(one, density, "magnitude") if density < 1 else one for one in changes]
    )
    share = reshape_weight_task_tensors(kept, kept.new_tensor(list(weights)))
    weighted = kept * share
    agrees = calculate_majority_sign_mask(weighted)
    counted = (share * agrees).sum(0)
    merged: Tensor = (weighted * agrees).sum(0) / counted.where(counted > 0, 1.0)
    return merged
