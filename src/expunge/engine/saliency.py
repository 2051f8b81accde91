"""Which weights matter for some rows: what masks and selections by gradient have in common.

Everything here looks at the model as it is before training, in evaluation mode, and leaves it as
it was.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.core.rng import generator
from expunge.data.encode import by_length
from expunge.engine.datasets import Datasets
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating

AT_ONCE = 1 << 24
"""Scores that are counted at a time."""

HALF = 1 << 16
"""Values of one half of the bits of a float32."""


def nll_gradients(task: Task, role: str, most: int | None = None) -> dict[str, Tensor]:
    """The gradient of the negative log-likelihood of a role's rows, in all their wordings.

    It is that of one mean over all tokens, however the rows are batched; rows that weigh more by
    the task's selection do so here.

    Args:
        task: Its model, at its start.
        role: Whose rows.
        most: Look at so many wordings at most, chosen by the seed; None takes all.

    Returns:
        Name -> gradient in float32 at least, of every parameter that asks for one.
    """
    weights = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
    found = {n: torch.zeros_like(p, dtype=_exact(p)) for n, p in weights.items()}
    tokens = 0
    with evaluating(task.model), torch.enable_grad():
        for view in _views(task, role, most):
            parts = torch.autograd.grad(view.nll.num, list(weights.values()), allow_unused=True)
            for whole, part in zip(found.values(), parts, strict=True):
                if part is not None:
                    whole.add_(part)
            tokens += len(view.labels)
    return {name: whole.div_(max(1, tokens)) for name, whole in found.items()}


def input_norms(task: Task, role: str) -> dict[str, Tensor]:
    """How large the inputs of the linears of the blocks are, over all real positions of some rows.

    Args:
        task: Its model, at its start.
        role: Whose rows.

    Returns:
        Name of each linear -> [in], Euclidean norm of each of its inputs.
    """
    squares: dict[str, Tensor] = {}
    with evaluating(task.model), _adding_squares(task.model, squares) as real:
        for view in _views(task, role, None):
            real[:] = [view.inputs.attention_mask.bool()]
            view.hidden(-1)
    return {name: square.sqrt() for name, square in squares.items()}


def unit_norms(gradients: Mapping[str, Tensor], transposed: Collection[str]) -> dict[str, Tensor]:
    """Norm of the gradient of each unit: a row of a matrix, or an element of a vector.

    Args:
        gradients: Name -> gradient.
        transposed: Names of matrices that are stored [in, out]: there a column is a unit.

    Returns:
        Name -> [units], float64.
    """

    def norms(name: str, gradient: Tensor) -> Tensor:
        units = gradient.T if name in transposed else gradient
        rows = units.flatten(1) if units.ndim > 1 else units[:, None]
        found: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
        return found

    return {name: norms(name, gradient) for name, gradient in gradients.items()}


def transposed(model: nn.Module) -> frozenset[str]:
    """Names of the matrices that are stored [in, out], GPT-2's ``Conv1D``."""
    return frozenset(f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Conv1D))


def over_units(units: Tensor, like: Tensor, *, is_transposed: bool) -> Tensor:
    """A mask [units] as one of the shape of the parameter ``like``, without taking memory."""
    if like.ndim < 2:
        return units
    return (units[None] if is_transposed else units[:, None]).expand(like.shape)


def top_share(scores: Mapping[str, Callable[[], Tensor]], share: float) -> dict[str, Tensor]:
    """The largest scores of all tensors taken together.

    Nothing is sorted and no scores are kept: they are counted twice, by the upper and then the
    lower half of their bits, which in float32 order as the numbers do. The number chosen is exact.
    Of equal scores at the limit the first ones are taken, in the order of the tensors.

    Args:
        scores: Name -> gives the scores of one tensor; asked three times each.
        share: Of all scores, above 0; at least one is chosen.

    Returns:
        Name -> bool tensor, true where the score is among the largest.

    Raises:
        ExpungeError: ``E-RUN-002`` for a score that is no finite number.
    """
    upper = _counts(scores, lambda keys: (keys >> 16) + HALF // 2)
    wanted = max(1, round(share * int(upper.sum())))
    high, above = _reached(upper, wanted)
    high -= HALF // 2
    lower = _counts(scores, lambda keys: keys[(keys >> 16) == high] & (HALF - 1))
    low, between = _reached(lower, wanted - above)
    limit, left = high * HALF + low, wanted - above - between
    chosen = {}
    for name, give in scores.items():
        keys = _keys(give())
        found = keys > limit
        equal = (keys == limit).flatten().nonzero()[:left]
        found.view(-1)[equal] = True
        left -= len(equal)
        chosen[name] = found
    return chosen


def simplest(mask: Tensor) -> Tensor | bool:
    """A mask as true or false where it is all one of them."""
    if bool(mask.all()):
        return True
    return mask if bool(mask.any()) else False


def _counts(scores: Mapping[str, Callable[[], Tensor]], half: Callable[[Tensor], Tensor]) -> Tensor:
    """[HALF], how often each value of one half of the bits occurs."""
    total = torch.zeros(HALF, dtype=torch.int64)
    for give in scores.values():
        for part in torch.split(give().flatten(), AT_ONCE):
            total += torch.bincount(half(_keys(part)), minlength=HALF).cpu()
    return total


def _reached(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The value at which the ``wanted`` largest are complete, and how many lie above it."""
    from_above = counts.flip(0).cumsum(0)
    place = int((from_above < wanted).sum())
    return len(counts) - 1 - place, int(from_above[place] - counts[len(counts) - 1 - place])


def _keys(scores: Tensor) -> Tensor:
    """Whole numbers (int32) in the order of the scores as float32."""
    exact = scores.float() + 0.0  # there are two zeros; they become one
    if not bool(exact.isfinite().all()):
        raise ExpungeError(
            "E-RUN-002",
            "A weight has a score that is not a finite number.",
            "finite gradients of the original model.",
            "Check the rows and the weights of the model.",
        )
    bits = exact.contiguous().view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _views(task: Task, role: str, most: int | None) -> Iterator[View]:
    """The rows of a role under the model as it is, in batches of like length."""
    datasets = Datasets(task, device=str(task.model.device))
    items = [item for wordings in datasets.items(role) for item in wordings]
    if most is not None and len(items) > most:
        rng = generator(task.seed, "saliency", role)
        items = [items[int(i)] for i in sorted(rng.choice(len(items), most, replace=False))]
    for places in by_length([len(item.ids) for item in items], task.params.batch_size):
        inputs = datasets.batch([items[place] for place in places])
        yield View(inputs, Live(task.model), weights=datasets.weights(role, inputs))


@contextmanager
def _adding_squares(model: nn.Module, squares: dict[str, Tensor]) -> Iterator[list[Tensor]]:
    """Add up the squared inputs of every linear, at the positions [B, T] put into what is given."""
    real: list[Tensor] = []
    slots, handles = Slots(model), []
    for name in slots.linears():

        def add(_: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
            square = given[0][real[0]].double().square().sum(0)
            squares[name] = squares[name] + square if name in squares else square

        handles.append(slots.model.get_submodule(name).register_forward_pre_hook(add))
    try:
        yield real
    finally:
        for handle in handles:
            handle.remove()


def _exact(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)
