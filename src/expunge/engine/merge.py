"""Weight arithmetic: how far to go from the original along what training changed."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.engine.finish import Finishing
from expunge.lm.arch import Slots


def inside(model: PreTrainedModel, slot: str) -> set[nn.Parameter]:
    """The parameters inside one slot of every block, those of an adapter included.

    Args:
        model: A causal language model, adapted in place or not.
        slot: A name that `expunge.lm.arch.Slots.module` knows.
    """
    slots = Slots(model)
    modules = (slots.module(layer, slot) for layer in range(len(slots.blocks)))
    return {parameter for module in modules for parameter in module.parameters()}


def climb(
    change: Finishing,
    grid: Sequence[float],
    *,
    bar: float,
    within: set[nn.Parameter] | None = None,
) -> float:
    """Step away from what was trained, as far as the retain rows allow and forgetting needs.

    The model is left where the climb ended. What was tried stands in the change's record.

    Args:
        change: The trained model.
        grid: Multiples of the trained difference to subtract; tried from the smallest up.
        bar: Share of the original's greedy token accuracy on retain rows to keep.
        within: Parameters that take part, or None for all.

    Returns:
        The multiple chosen: the first at the stop level, else the last before the bar.

    Raises:
        ExpungeError: ``E-RUN-003`` when already the smallest multiple falls below the bar.
    """
    tried: list[dict[str, Any]] = []
    change.record["tried"] = tried
    kept = bar * change.before[1].accuracy
    chosen = None
    for alpha in sorted(grid):
        change.rescale(-alpha, within)
        forget, retain = change.levels()
        tried.append({"alpha": alpha, "forget_nll": forget.nll, "retain": retain.accuracy})
        if not retain.accuracy >= kept:
            break
        chosen = alpha
        if change.stop is not None and change.stop.reached(forget):
            break
    if chosen is None:
        raise _too_much(tried, kept)
    change.rescale(-chosen, within)
    return chosen


def _too_much(tried: Sequence[dict[str, Any]], kept: float) -> ExpungeError:
    found = (
        f"Already at alpha {tried[0]['alpha']} the accuracy on retain rows is "
        f"{tried[0]['retain']:.3f}."
        if tried
        else "The grid of alpha is empty."
    )
    return ExpungeError(
        "E-RUN-003",
        found,
        f"a smallest alpha that leaves at least {kept:.3f}.",
        "Begin --set grid lower, lower --set bar, or over-fit less (--set max_steps, --set lr).",
    )
