"""The difference of two sets of weights as bits, so that undoing it is exact.

Subtracting floating-point numbers loses bits; XOR does not. Where a tensor has got more rows, as an
embedding does when tokens are added, the difference is that of the rows both have.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError

State = Mapping[str, Tensor]

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type by the number of bytes of an element."""


def xor(a: State, b: State) -> dict[str, Tensor]:
    """The bits in which two states differ.

    Args:
        a: Name -> tensor.
        b: The same names, shapes and types; a tensor may have fewer rows, which are the first ones.

    Returns:
        Name -> integer tensor, only for tensors that differ, shaped as in ``b``.
        ``apply_xor(a, patch)`` is ``b`` bit for bit, and where no rows were added
        ``apply_xor(b, patch)`` is ``a``.

    Raises:
        ExpungeError: ``E-MODEL-009`` when the states do not have the same layout.
    """
    if a.keys() != b.keys():
        raise _unfit(f"{len(a.keys() ^ b.keys())} tensors are in one model only")
    for name in a:
        if a[name].dtype != b[name].dtype or not _holds(a[name], b[name]):
            raise _unfit(f"{name} differs in shape or type")
    patch = {name: _as_bits(_first(a[name], b[name])) ^ _as_bits(b[name]) for name in a}
    return {
        name: bits
        for name, bits in patch.items()
        if bits.shape != a[name].shape or bool(bits.any())
    }


def apply_xor(state: State, patch: State) -> dict[str, Tensor]:
    """Turn one state into the other.

    Args:
        state: Either of the two states the patch was made from.
        patch: What `xor` returned.

    Returns:
        The other state; tensors the patch does not name are passed on as they are. Rows that the
        patch does not reach are cut off.

    Raises:
        ExpungeError: ``E-MODEL-009`` when the patch was made for something else.
    """
    changed = dict(state)
    for name, bits in patch.items():
        if name not in state:
            raise _unfit(f"there is no tensor {name}")
        own = _as_bits(state[name])
        if own.dtype != bits.dtype or not _holds(own, bits):
            raise _unfit(f"{name} differs in shape or width")
        changed[name] = (_first(own, bits) ^ bits.to(own.device)).view(state[name].dtype)
    return changed


def _holds(tensor: Tensor, part: Tensor) -> bool:
    """Whether one tensor is of the other's shape, or of that with more rows."""
    if tensor.shape == part.shape:
        return True
    is_wider = tensor.dim() and tensor.dim() == part.dim() and len(tensor) > len(part)
    return bool(is_wider) and tensor.shape[1:] == part.shape[1:]


def _first(tensor: Tensor, part: Tensor) -> Tensor:
    """Those rows of a tensor that the other one has as well."""
    return tensor[: len(part)] if tensor.dim() else tensor


def _as_bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(BITS[tensor.element_size()])


def _unfit(why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-009",
        f"This patch does not fit these weights: {why}.",
        "the weights the patch was made for.",
        "Apply it to its parent, named in change.json.",
    )
