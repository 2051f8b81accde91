"""First-epoch gradient ascent: give back what a row's first contribution to training took.

Objective:
    g_i    = grad nll_i at theta_t(i), the weights as they were when row i was first met
    theta <- theta + eta * sum over i in F of g_i        until the rows are at the stop level

    nll_i is the token mean over the answer of row i, and g_i is raw: before any clipping, momentum
    or scaling. One step of plain SGD on the row is undone exactly by it. The first epoch is
    replayed from ``base``, in a fixed order and with its own updates; of the replay only the sum of
    the g_i is kept. By default the table of input embeddings alone is changed, where only the rows
    of the tokens met have a gradient.

    scope=embeddings  input embeddings; where they are the head as well, its side of the gradient
                      is left out, which would touch every token
    scope=all         every weight
    scope=blocks      the blocks of ``layers``
    replay_epochs     > 1 sums a row's gradients over several epochs
    fuzzy             < 1 also gives back rows to be kept whose embedding is as close as this to a
                      forget row's

    The record tells how well the kept gradient points where the row's gradient points now
    (``alignment``), and its curvature g.Hg / g.g there, taken by a difference of gradients.

Reference: A More Practical Approach to Machine Unlearning, 2024.

Departs from the paper:
    INFERRED from its abstracts: the formula itself, that it is repeated, when it ends (the stop
    level, looked at after every application, since few look like success on the exact text only),
    the size of eta (``lr=auto``: each application moves the changed weights by ``share`` of their
    length), the threshold of fuzzy matches. Gradients of a run that is long over are not at hand,
    so its first epoch is replayed; without ``base`` the rows are met by the original as it is,
    which is plain ascent with one fixed gradient, and the record says so. The curvature is not
    taken by a second backward pass.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.finish import Finishing
from expunge.engine.slots.mask import Mask, all_trainable, blocks_only
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import without_dropout
from expunge.lm.load import load

CARD = {
    "id": "fega",
    "kind": "edit",
    "summary": "Adds back the gradients that forget rows had in the first epoch of training.",
    "paper": "A More Practical Approach to Machine Unlearning (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 epoch of training over forget and retain rows; then 1 pass over the forget rows for "
    "each application",
    "maturity": "paper",
    "version": 1,
}

APPLICATIONS = 100
"""At most, where nothing else is asked for."""

NUDGE = 1e-3
"""Length of the step of the difference that curvature is taken by, in lengths of the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """What is replayed, which weights take the gradients back, and how far."""

    retain_term: str = param("none", help="nothing is trained", paper="none", choices=("none",))
    base: str | None = param(
        None,
        help="folder of the model before it was trained on any of the rows; none meets the rows "
        "with the original itself",
    )
    scope: Literal["embeddings", "all", "blocks"] = param(
        "embeddings",
        help="weights that are changed: input embeddings, all, or the blocks of layers",
        paper="embeddings",
        choices=("embeddings", "all", "blocks"),
    )
    lr: float | Literal["auto"] = param("auto", help="step size (eta); auto: by share", low=0.0)
    share: float = param(
        0.02,
        help="lr=auto: how far one application moves the changed weights, as a share of their "
        "length",
        low=0.0,
    )
    max_steps: int | None = param(
        None, help="most applications; none means 100, or 1 without a stop level", low=1
    )
    replay_epochs: int = param(
        1, help="epochs whose gradients are summed", paper=1, low=1, high=1000
    )
    replay_lr: float = param(1e-3, help="rate of the replayed training", low=0.0)
    optimiser: Literal["adamw", "sgd"] = param(
        "adamw", help="of the replayed training", choices=("adamw", "sgd")
    )
    fuzzy: float = param(
        1.0,
        help="cosine of embeddings from which a row to be kept is given back too; 1 for none",
        paper=0.9,
        low=-1.0,
        high=1.0,
    )


Gradients = dict[str, Tensor]
"""Name of a parameter -> its gradient."""


def mask(model: Any, task: Task, params: Params) -> Mask:
    """Only what is given back may move."""
    if params.scope == "all":
        return all_trainable(model, task, params)
    if params.scope == "blocks":
        if params.layers is None:
            raise ExpungeError(
                "E-USE-007",
                "scope=blocks without layers.",
                "the blocks to change.",
                "Give --set layers=..., or another scope.",
            )
        return blocks_only(model, params.layers)
    table = model.get_input_embeddings().weight
    return {name: p is table for name, p in model.named_parameters() if p.requires_grad}


def edit(change: Finishing, params: Params) -> None:
    """Replay, sum, and give back until it is enough."""
    task, names = change.task, list(change.original)
    kept = first_gradients(task, params, names)
    with progress("fega", most(params, change)) as bar:
        change.record |= {f"{name}_before": x for name, x in looked_at(task, kept).items()}
        eta = step_size(task.model, kept, params)
        for done in range(1, most(params, change) + 1):
            change.steps = done
            give_back(task.model, kept, eta)
            now = change.levels()[0]
            bar.advance(1, text=f"forget rows: {now.nll:.2f} nats a token")
            if change.stop is not None and change.stop.reached(now):
                change.stopped_by = "level"
                break
    change.record |= {f"{name}_after": x for name, x in looked_at(task, kept).items()}
    change.record |= {"eta": eta, "replayed_from": params.base or "original"}


def most(params: Params, change: Finishing) -> int:
    """Applications at most."""
    return params.max_steps or (1 if change.stop is None else APPLICATIONS)


@torch.no_grad()
def give_back(model: nn.Module, kept: Gradients, eta: float) -> None:
    """``theta <- theta + eta * g``."""
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.add_(kept[name].to(parameter.dtype), alpha=eta)


def step_size(model: nn.Module, kept: Gradients, params: Params) -> float:
    """Eta; by its rule each application moves the weights by a share of their length."""
    if params.lr != "auto":
        return float(params.lr)
    held = torch.stack([p.norm() for n, p in model.named_parameters() if n in kept]).norm()
    return float(params.share * held / _length(kept).clamp(min=1e-12))


def first_gradients(task: Task, params: Params, names: Sequence[str]) -> Gradients:
    """The sum over forget rows of the gradient each had when the replayed training met it.

    Args:
        task: Its forget and retain rows are what was trained on.
        params: What is replayed, and how.
        names: Parameters whose gradients are wanted.
    """
    datasets = Datasets(task, device=str(task.model.device))
    items = {role: [own for own, *_ in datasets.items(role)] for role in ("forget", "retain")}
    given_back = [*items["forget"], *_alike(task, datasets, items, params.fuzzy)]
    if params.base is None:
        return _summed(task.model, datasets, given_back, names)
    model: Any = load(params.base).model
    model.to(task.model.device)
    wanted = {id(item) for item in given_back}
    rows = [*items["forget"], *items["retain"]]
    total: Gradients = {}
    with without_dropout(model), progress("replay", params.replay_epochs * len(rows)) as bar:
        optimiser = _optimiser(model, params)
        for batch in batches(rows, params, task.seed):
            met = [item for item in batch if id(item) in wanted]
            if met:
                found = _summed(model, datasets, met, names)
                total = {name: total.get(name, 0.0) + found[name] for name in names}
            optimiser.zero_grad()
            View(datasets.batch(batch), Live(model)).nll.value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            bar.advance(len(batch))
    return total


def batches(rows: Sequence[Encoded], params: Params, seed: int) -> Iterator[list[Encoded]]:
    """The batches of the replayed epochs, each epoch in an order of its own."""
    for epoch in range(params.replay_epochs):
        order = generator(seed, "fega", "replay", epoch).permutation(len(rows))
        for start in range(0, len(rows), params.batch_size):
            yield [rows[int(at)] for at in order[start : start + params.batch_size]]


def looked_at(task: Task, kept: Gradients) -> dict[str, float]:
    """How the kept gradient lies to the present one, and its curvature at the present weights."""
    datasets = Datasets(task, device=str(task.model.device))
    items = [own for own, *_ in datasets.items("forget")]
    names, length = list(kept), _length(kept)
    now = _summed(task.model, datasets, items, names)
    across = _inner(kept, now)
    alignment = float(across / (length * _length(now)).clamp(min=1e-12))
    held = torch.stack([p.norm() for n, p in task.model.named_parameters() if n in kept]).norm()
    nudge = float(NUDGE * held / length.clamp(min=1e-12))
    before = {n: p.detach().clone() for n, p in task.model.named_parameters() if n in kept}
    give_back(task.model, kept, nudge)
    there = _inner(kept, _summed(task.model, datasets, items, names))
    with torch.no_grad():
        for name, parameter in task.model.named_parameters():
            if name in before:
                parameter.copy_(before[name])
    curvature = float((there - across) / (nudge * length.square()).clamp(min=1e-30))
    return {"alignment": alignment, "curvature": curvature}


def _summed(
    model: Any, datasets: Datasets, items: Sequence[Encoded], names: Sequence[str]
) -> Gradients:
    """Gradient of the sum over rows of the token mean of each."""
    wanted = {name: p for name, p in model.named_parameters() if name in set(names)}
    total = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in wanted.items()}
    size = datasets.task.params.batch_size
    with _apart(model), torch.enable_grad():
        for start in range(0, len(items), size):
            view = View(datasets.batch(items[start : start + size]), Live(model))
            found = torch.autograd.grad(
                -view.logp_mean.sum(), list(wanted.values()), allow_unused=True
            )
            for name, gradient in zip(wanted, found, strict=True):
                if gradient is not None:
                    total[name] += gradient.float()
    return total


@contextmanager
def _apart(model: Any) -> Iterator[None]:
    """Where the head is the embedding table, its side takes no gradient for the time being."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not table.weight:
        yield
        return
    tied = head.weight
    head.weight = nn.Parameter(tied.detach(), requires_grad=False)
    try:
        yield
    finally:
        head.weight = tied


def _optimiser(model: nn.Module, params: Params) -> torch.optim.Optimizer:
    if params.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=params.replay_lr)
    return torch.optim.AdamW(model.parameters(), lr=params.replay_lr, weight_decay=0.0)


def _alike(
    task: Task, datasets: Datasets, items: dict[str, list[Encoded]], threshold: float
) -> list[Encoded]:
    """Rows to be kept that are as close as this to a forget row, by their embeddings."""
    if threshold >= 1.0 or not items["retain"]:
        return []
    forget, retain = (_embedded(task, datasets, items[role]) for role in ("forget", "retain"))
    close = (retain @ forget.T).amax(1) >= threshold
    return [
        item for item, is_close in zip(items["retain"], close.tolist(), strict=True) if is_close
    ]


@torch.no_grad()
def _embedded(task: Task, datasets: Datasets, items: Sequence[Encoded]) -> Tensor:
    """[N, d] of length 1: the last block's output, a mean over where the answer is predicted."""
    found = []
    for item in items:
        view = View(datasets.batch([item]), Live(task.model))
        found.append(view.hidden(-1)[view.mask].double().mean(0))
    rows: Tensor = torch.stack(found)
    embedded: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return embedded


def _length(gradients: Gradients) -> Tensor:
    total: Tensor = torch.stack([g.norm() for g in gradients.values()]).norm()
    return total


def _inner(one: Gradients, other: Gradients) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()
