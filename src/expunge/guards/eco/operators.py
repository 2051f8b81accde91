"""What is done to the embeddings of the chosen tokens of one prompt."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

Operator = Callable[[Tensor, np.random.Generator, int, Tensor], Tensor]
"""[L, d] embeddings, random numbers, n and sigma [1] or [n] -> [L, d], new ones."""


def noise_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] += sigma g``."""
    return _onto(e, _first(e, n), e[:, :n] + sigma * _normal(e, rng, n))


def noise_random(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[S] += sigma g`` on n dimensions S drawn once for the prompt."""
    drawn = torch.from_numpy(rng.permutation(e.shape[1])[:n]).to(e.device)
    at = drawn.expand(len(e), -1)
    return _onto(e, at, e.gather(1, at) + sigma * _normal(e, rng, at.shape[1]))


def noise_top(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[S_i] += sigma g`` on the n largest absolute values of each token."""
    at = _top(e, n)
    return _onto(e, at, e.gather(1, at) + sigma * _normal(e, rng, at.shape[1]))


def zero_top(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """The n largest absolute values of each token become 0."""
    at = _top(e, n)
    return _onto(e, at, torch.zeros_like(at, dtype=e.dtype))


def flip_top(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """The n largest absolute values of each token change sign."""
    at = _top(e, n)
    return _onto(e, at, -e.gather(1, at))


def zero_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] = 0``."""
    return _onto(e, _first(e, n), torch.zeros_like(e[:, :n]))


def flip_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] = -e_i[:n]``."""
    return _onto(e, _first(e, n), -e[:, :n])


def plus_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] += sigma``."""
    return _onto(e, _first(e, n), e[:, :n] + sigma)


def minus_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] -= sigma``."""
    return _onto(e, _first(e, n), e[:, :n] - sigma)


def replace_first(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """``e_i[:n] = sigma g``."""
    return _onto(e, _first(e, n), sigma * _normal(e, rng, n))


def reverse(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """The chosen tokens change places, the last one first."""
    return e.flip(0)


def shuffle(e: Tensor, rng: np.random.Generator, n: int, sigma: Tensor) -> Tensor:
    """The chosen tokens change places at random; an order that is the old one is no shuffle."""
    order = rng.permutation(len(e))
    if np.array_equal(order, np.arange(len(e))):
        order = np.roll(order, 1)
    return e[torch.from_numpy(order).to(e.device)]


OPERATORS: Mapping[str, Operator] = {
    "noise-first": noise_first,
    "noise-random": noise_random,
    "noise-top": noise_top,
    "zero-top": zero_top,
    "flip-top": flip_top,
    "zero-first": zero_first,
    "flip-first": flip_first,
    "plus-first": plus_first,
    "minus-first": minus_first,
    "replace-first": replace_first,
    "reverse": reverse,
    "shuffle": shuffle,
}
"""By the names of the parameter ``operator``."""

STRONG = frozenset(
    {"noise-first", "noise-random", "noise-top", "plus-first", "minus-first", "replace-first"}
)
"""Those that sigma makes stronger."""


def corrupted(
    e: Tensor, operator: str, rng: np.random.Generator, n: int, sigma: np.ndarray
) -> Tensor:
    """The chosen embeddings of one prompt, corrupted.

    Computed in float32 at least. What comes out stays so far below the largest number of the
    embeddings' own type that scaling by the root of the width does not overflow it.

    Args:
        e: [L, d], all chosen tokens of the prompt in their order.
        operator: A key of `OPERATORS`.
        rng: Random numbers of this prompt.
        n: Dimensions; more than there are means all.
        sigma: [1] or [n].
    """
    precise = torch.promote_types(e.dtype, torch.float32)
    n = min(n, e.shape[1])
    strength = torch.from_numpy(sigma[: max(n, 1)]).to(e.device, precise)
    found = OPERATORS[operator](e.to(precise), rng, n, strength)
    most = torch.finfo(e.dtype).max / (4 * e.shape[1] ** 0.5)
    return found.clamp(-most, most).to(e.dtype)


def _first(e: Tensor, n: int) -> Tensor:
    return torch.arange(n, device=e.device).expand(len(e), -1)


def _top(e: Tensor, n: int) -> Tensor:
    return e.abs().topk(n, dim=1).indices


def _onto(e: Tensor, at: Tensor, values: Tensor) -> Tensor:
    return e.scatter(1, at, values)


def _normal(e: Tensor, rng: np.random.Generator, n: int) -> Tensor:
    """[L, n], the same on every device."""
    return torch.from_numpy(rng.standard_normal((len(e), n))).to(e.device, e.dtype)
