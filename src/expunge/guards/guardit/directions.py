"""Where the residual stream is pushed, and how."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Vector = npt.NDArray[np.float64]

EPS = 1e-6


def direction(mu: "Vector", retain: "Vector", kind: str) -> "Vector":
    """The direction away from what is to be kept, not scaled yet.

    Args:
        mu: [..., d], mean activations of forget groups.
        retain: [d], mean activation of what is to be kept.
        kind: ``orthogonal``, ``diff_means`` or ``orth_diff_means``.
    """
    base = mu if kind == "orthogonal" else mu - retain
    if kind == "diff_means":
        return base
    share = base @ retain / (retain @ retain + EPS)
    return base - share[..., None] * retain


def scaled(v: "Vector", rho: Any, retain_rho: float, scaling: str) -> "Vector":
    """The direction at the length that one coefficient fits.

    Args:
        v: [..., d].
        rho: [...], mean norms of the forget groups' activations.
        retain_rho: That of what is to be kept.
        scaling: ``activation_norm``, ``unit`` or ``none``.
    """
    import numpy as np

    if scaling == "none":
        return v
    unit: Vector = v / (np.linalg.norm(v, axis=-1, keepdims=True) + EPS)
    if scaling == "unit":
        return unit
    length: Vector = (np.asarray(rho, dtype=float) + retain_rho) / 2
    return np.asarray(unit * length[..., None], dtype=float)


def pushed(h: "Tensor", shift: "Tensor") -> "Tensor":
    """``h' = (h - shift) |h| / |h - shift|``, position by position.

    Args:
        h: [B, T, d].
        shift: [B, 1, d] or [1, T, d]; where it is 0 the position stays as it is, bit for bit.
    """
    import torch

    precise = torch.promote_types(h.dtype, torch.float32)
    wide, shift = h.to(precise), shift.to(h.device, precise)
    moved = wide - shift
    lengths = moved.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(precise).tiny)
    found = (moved * (wide.norm(dim=-1, keepdim=True) / lengths)).to(h.dtype)
    return torch.where(shift.any(-1, keepdim=True), found, h)
