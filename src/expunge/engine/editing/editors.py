"""The two ways in which values are written: one association after the other, or all at once.

    one by one   W <- W + (v* - v) u^T / (u . k),   u = C^-1 k*          (rome)
    all at once  W_l <- W_l + T_l K_l^T (lambda C_l + K_l K_l^T)^-1     (memit)

Reference: Locating and Editing Factual Associations in GPT, 2022; Mass-Editing Memory in a
Transformer, 2022.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.events import progress
from expunge.core.families import EditParams
from expunge.engine.editing.associations import Association
from expunge.engine.editing.keys import keys_of, moment
from expunge.engine.editing.locating import Plan, texts_of
from expunge.engine.editing.sizes import is_large
from expunge.engine.editing.spreading import spread
from expunge.engine.editing.values import entering_at, values_at, wanted
from expunge.engine.editing.writing import least_squares, rank_one, ridged, write
from expunge.engine.finish import Finishing

OTHERS = 15000.0
"""Lambda of the papers."""


def one_by_one(change: Finishing, params: EditParams, plan: Plan) -> None:
    """An edit for each association, each on the model as the one before left it."""
    model, texts = change.task.model, texts_of(change.task, params)
    others = ridged(moment(model, plan.datasets, texts, plan.layer))
    with progress("edits", len(plan.asked)) as bar:
        for done, one in enumerate(plan.asked, 1):
            write(model, plan.layer, update(model, plan, one, others))
            change.steps = done
            bar.advance(1)


def update(model: PreTrainedModel, plan: Plan, one: Association, others: Tensor) -> Tensor:
    """[d_out, d_in]: the change that makes one prompt give its value.

    Args:
        model: The model as it now is.
        plan: Where is edited, and how values are found.
        one: The association.
        others: C.
    """
    found = wanted(model, plan.datasets, [one], plan.search)
    (key,) = keys_of(model, plan.datasets, [one], plan.layer)
    (bare,) = entering_at(model, plan.datasets, [one.bare], plan.layer, "mlp_out")
    (now,) = values_at(model, plan.datasets, [one.bare], plan.layer, "mlp_out")
    return rank_one(others, key, bare, found.values[0] - now)


def all_at_once(
    change: Finishing,
    params: EditParams,
    plan: Plan,
    layers: Sequence[int],
    mom2_update_weight: float | Literal["auto"],
) -> None:
    """One edit for all associations, over several blocks.

    Args:
        change: What is edited.
        params: Says which texts second moments are taken over.
        plan: What is edited, at the top one of the blocks.
        layers: The blocks, from the bottom.
        mom2_update_weight: Lambda, or ``auto``.
    """
    model, texts = change.task.model, texts_of(change.task, params)
    others = {layer: ridged(moment(model, plan.datasets, texts, layer)) for layer in layers}
    weight = weight_of(mom2_update_weight, len(plan.asked), model.num_parameters())

    def solve(layer: int, keys: Tensor, missing: Tensor) -> Tensor:
        return least_squares(weight * others[layer].to(keys), keys, missing)

    spread(model, plan, layers, solve)
    change.steps = len(plan.asked)
    change.record["mom2_update_weight"] = weight


def weight_of(given: float | Literal["auto"], edits: int, size: int) -> float:
    """Lambda: as given, or 15000 for models of 0.5B parameters and more and half the edits below.

    It weighs a mean, so with 15000 a small model is not edited at all; the rule is INFERRED.
    """
    if given != "auto":
        return float(given)
    return OTHERS if is_large(size) else edits / 2
