"""The difference of two sets of weights as bits, so that undoing it is exact.

Subtracting floating-point numbers loses bits; XOR does not.
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
        b: The same names, shapes and types.

    Returns:
        Name -> integer tensor, only for tensors that differ. ``apply_xor(a, patch)`` is ``b`` and
        ``apply_xor(b, patch)`` is ``a``, bit for bit.

    Raises:
        ExpungeError: ``E-MODEL-009`` when the states do not have the same layout.
    """
    if a.keys() != b.keys():
        raise _unfit(f"{len(a.keys() ^ b.keys())} tensors are in one model only")
    for name in a:
        if (a[name].shape, a[name].dtype) != (b[name].shape, b[name].dtype):
            raise _unfit(f"{name} differs in shape or type")
    patch = {name: _as_bits(a[name]) ^ _as_bits(b[name]) for name in a}
    return {name: bits for name, bits in patch.items() if bool(bits.any())}


def apply_xor(state: State, patch: State) -> dict[str, Tensor]:
    """Turn one state into the other.

    Args:
        state: Either of the two states the patch was made from.
        patch: What `xor` returned.

    Returns:
        The other state; tensors the patch does not name are passed on as they are.

    Raises:
        ExpungeError: ``E-MODEL-009`` when the patch was made for something else.
    """
    changed = dict(state)
    for name, bits in patch.items():
        if name not in state:
            raise _unfit(f"there is no tensor {name}")
        own = _as_bits(state[name])
        if (own.shape, own.dtype) != (bits.shape, bits.dtype):
            raise _unfit(f"{name} differs in shape or width")
        changed[name] = (own ^ bits.to(own.device)).view(state[name].dtype)
    return changed


def _as_bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(BITS[tensor.element_size()])


def _unfit(why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-009",
        f"This patch does not fit these weights: {why}.",
        "the weights the patch was made for.",
        "Apply it to its parent, named in change.json.",
    )
