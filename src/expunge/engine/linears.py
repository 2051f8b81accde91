"""Which linears of the blocks get something beside them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError

if TYPE_CHECKING:
    from expunge.lm.arch import Slots


def linears_in(
    slots: "Slots", layers: Iterable[int] | None = None, targets: Sequence[str] | None = None
) -> list[str]:
    """Dotted names of the linears of some blocks, by whole parts of names.

    Args:
        slots: Of the model.
        layers: Blocks, negative from the top; None takes all.
        targets: Ends of names, as ``q_proj``; None takes all.

    Raises:
        ExpungeError: ``E-MODEL-008`` when there is none.
    """
    blocks = range(len(slots)) if layers is None else [slots.index(layer) for layer in layers]
    inside = tuple(f"{slots.names(block, 'block')[0]}." for block in blocks)
    ends = tuple(f".{target}" for target in targets or ())
    found = [
        name
        for name in slots.linears()
        if name.startswith(inside) and (not ends or f".{name}".endswith(ends))
    ]
    if not found:
        raise ExpungeError(
            "E-MODEL-008",
            f"No linear of the blocks {list(blocks)} ends in {' or '.join(targets or ())}.",
            "at least one linear layer that gets something beside it.",
            "Give other --set layers or --set lora_targets.",
        )
    return found
