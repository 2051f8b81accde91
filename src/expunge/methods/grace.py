"""GRACE: a codebook beside one layer that answers for the forgotten prompts; no weight moves.

Objective (h: what goes into the output matrix of one MLP, at one position; o: what comes out):
    o' = value_j   where j is the entry nearest to h and ||h - key_j|| <= radius_j,   else o

    key_j is h at the last token of a prompt. An entry is made for every prompt that is farther than
    its radius from all others. A prompt inside the radius of an entry with the same target widens
    that entry; one with another target splits it: both get half of their distance as radius. Each
    value is trained, by Adam from random numbers (``cold``) or from the output that is there
    (``warm``), so that the prompt leads to its target.

    h depends only on what stands before it, so an entry answers in the same way whether a text is
    read at once or written token by token, and every position is looked up by itself.

Reference: Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors, 2023; as
unlearning in Editing as Unlearning: Are Knowledge Editing Methods Strong Baselines for LLM
Unlearning?, 2025.

Departs from the paper:
    Its code looks only at the last position of a pass, can put a value at every position of a
    prompt as well (that is left out), and tells two targets apart by the mean of
    their token ids; here targets are compared token by token. ``radius=auto`` is half of the
    smallest distance between the key of a prompt to be forgotten and one of a prompt to be kept
    (INFERRED): the paper's 1.0 means another thing in every model. In models of few blocks the
    layer is at most the last but one, since what the last one puts out never reaches the next
    token. A row's other wordings get entries as well (INFERRED). The facts stay in the weights:
    whoever goes past the codebook gets them. Keys are hidden states of prompts; who holds the
    change can compare them with those of a guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.families import RewriteParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association, associations
from expunge.engine.editing.values import entering_at, unlikely, values_at
from expunge.engine.editing.wording import targets_of
from expunge.engine.finish import Finishing
from expunge.engine.runtime import Attached, Part
from expunge.engine.slots.mask import Mask
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots, base_of

CARD = {
    "id": "grace",
    "kind": "edit",
    "summary": "A codebook beside one layer that answers for the forgotten prompts.",
    "paper": "Aging with GRACE: Lifelong Model Editing with Discrete Key-Value Adaptors (2023)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "50 forwards and backwards over the forget prompts; at run time one distance to each "
    "entry for each token",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 27 / 32
"""Where the paper's layer was."""

HALF = 1e-5
"""What the older of two entries that are split keeps less than half of their distance."""

BATCH = 64
"""Prompts of one forward pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(RewriteParams):
    """The shared parameters of editing, and those of the codebook."""

    layer: int | None = param(
        None,
        help="block whose MLP has the codebook, negative from the top; none takes 27/32 of the "
        "depth",
        paper=27,
    )
    radius: float | Literal["auto"] = param(
        "auto", help="how far a new entry reaches (eps); auto keeps retain prompts out", paper=1.0
    )
    init: Literal["cold", "warm"] = param(
        "cold",
        help="where values begin: at random numbers or at what is there",
        paper="cold",
        choices=("cold", "warm"),
    )
    v_num_grad_steps: int = param(50, help="steps to find the values", paper=50, low=0)
    v_lr: float = param(1.0, help="rate of these steps", paper=1.0, low=0.0)
    wordings: bool = param(True, help="whether a row's other wordings get entries")


@dataclass(slots=True)
class Entry:
    """One line of the codebook.

    Attributes:
        prompt: The number of the prompt it was made for.
        label: Tokens of its target.
        radius: How far it reaches.
    """

    prompt: int
    label: tuple[int, ...]
    radius: float


class Codebook:
    """Puts values in the place of outputs, where the input is near a key; a forward hook.

    Args:
        keys: [n, d_in].
        values: [n, d_out].
        radii: [n].
    """

    def __init__(self, keys: Tensor, values: Tensor, radii: Tensor) -> None:
        self.keys, self.values, self.radii = keys, values, radii

    def __call__(self, _: nn.Module, given: Any, output: Tensor) -> Tensor:
        """The output, with the positions that are known answered for."""
        if not len(self.keys):
            return output
        which, hit = self.nearest(given[0])
        if not bool(hit.any()):
            return output
        return torch.where(hit[..., None], self.values[which].to(output.dtype), output)

    def nearest(self, entering: Tensor) -> tuple[Tensor, Tensor]:
        """The entry nearest to each position of [B, T, d_in], and whether it reaches it."""
        flat = entering.detach().to(self.keys.dtype).flatten(0, -2)
        away, which = torch.cdist(flat, self.keys).min(1)
        hit = away <= self.radii[which]
        return which.view(entering.shape[:-1]), hit.view(entering.shape[:-1])


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """No weight moves."""
    return {name: False for name, _ in model.named_parameters()}


def edit(change: Finishing, params: Params) -> None:
    """Make the entries, then train all their values at once."""
    task, model = change.task, change.task.model
    datasets, layer = Datasets(task, device=str(model.device)), layer_of(model, params)
    asked = prompts_of(task, params)[: params.max_steps]
    keys = entering_at(model, datasets, [one.bare for one in asked], layer, "mlp_out")
    radius = radius_of(task, datasets, keys, layer, params)
    labels = [tuple(label for label in one.bare.item.labels if label >= 0) for one in asked]
    entries = booked(keys, labels, radius)
    made_for = [entry.prompt for entry in entries]
    book = Codebook(
        keys[made_for],
        start(model, datasets, [asked[at] for at in made_for], layer, params),
        keys.new_tensor([entry.radius for entry in entries]),
    )
    train(datasets, [asked[at] for at in made_for], layer, book, params)
    change.steps = len(asked)
    change.record |= {"layer": layer, "radius": radius, "entries": len(entries)}
    tensors = {"keys": book.keys, "values": book.values, "radii": book.radii}
    change.runtime = Part(
        settings={"layer": layer},
        tensors={name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        moves=len(entries),
    )


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put a codebook beside its layer.

    Raises:
        ValueError: When it is not made for this model.
    """
    out = Slots(model).module(int(part.settings["layer"]), "mlp_out")
    device = next(out.parameters()).device
    tensors = {name: tensor.to(device) for name, tensor in part.tensors.items()}
    book = Codebook(tensors["keys"], tensors["values"], tensors["radii"])
    width = int(base_of(model).config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
    if book.values.shape != (len(book.keys), width):
        raise ValueError(f"values of width {book.values.shape[-1]}, the model has {width}")
    return Attached([out.register_forward_hook(book)])


def layer_of(model: PreTrainedModel, params: Params) -> int:
    """The block, from the bottom; never the last one of several, unless it is asked for."""
    slots = Slots(model)
    if params.layer is not None:
        return slots.index(params.layer)
    return max(0, min(round(DEPTH * len(slots)), len(slots) - 2))


def prompts_of(task: Task, params: Params) -> list[Association]:
    """Every forget prompt with its target, other wordings one by one."""
    targets = targets_of(task, params)
    found = associations(
        task.forget, targets, task.encoder, place="last",
        paraphrased=max(len(row.turns) for row in task.forget) if params.wordings else 0,
    )  # fmt: skip
    return [
        Association(one.rows, one.subject, one.target, (prompt,), None)
        for one in found
        for prompt in one.prompts
    ]


def radius_of(task: Task, datasets: Datasets, keys: Tensor, layer: int, params: Params) -> float:
    """How far a new entry reaches.

    Raises:
        ExpungeError: ``E-USE-007`` for ``auto`` without rows to keep.
    """
    if params.radius != "auto":
        return float(params.radius)
    if not task.retain:
        raise ExpungeError(
            "E-USE-007",
            "grace with radius=auto and no rows to keep.",
            "rows that tell how near a prompt may come.",
            "Give --retain FILE, or --set radius=NUMBER.",
        )
    own = {row.id: row.reply.strip() for row in task.retain}
    kept = associations(task.retain, own, task.encoder, place="last")
    others = entering_at(task.model, datasets, [one.bare for one in kept], layer, "mlp_out")
    return float(torch.cdist(keys, others).min() / 2)


def booked(keys: Tensor, labels: Sequence[tuple[int, ...]], radius: float) -> list[Entry]:
    """Which prompts get entries, and how far each reaches.

    Args:
        keys: [n, d_in], of the prompts, in the order in which they are edited.
        labels: Tokens of their targets.
        radius: Of a new entry.
    """
    entries: list[Entry] = []
    for at, label in enumerate(labels):
        if not entries:
            entries.append(Entry(at, label, radius))
            continue
        known = keys[[entry.prompt for entry in entries]]
        away, nearest = torch.cdist(keys[at : at + 1], known)[0].min(0)
        distance, near = float(away), entries[int(nearest)]
        if distance > radius + near.radius:
            entries.append(Entry(at, label, radius))
        elif label == near.label:
            near.radius = max(near.radius, distance)
        else:
            near.radius = distance / 2 - HALF
            entries.append(Entry(at, label, distance / 2))
    return entries


def start(
    model: PreTrainedModel,
    datasets: Datasets,
    asked: Sequence[Association],
    layer: int,
    params: Params,
) -> Tensor:
    """[n, d_out]: where values begin."""
    there = values_at(model, datasets, [one.bare for one in asked], layer, "mlp_out")
    if params.init == "warm":
        return there
    draw = torch.Generator().manual_seed(derive(datasets.task.seed, "grace") % (1 << 63))
    return torch.rand(there.shape, generator=draw).to(there)


def train(
    datasets: Datasets,
    asked: Sequence[Association],
    layer: int,
    book: Codebook,
    params: Params,
) -> None:
    """Adam on all values at once; the codebook is in the model meanwhile."""
    model = datasets.task.model
    book.values = book.values.clone().requires_grad_()
    optimiser = torch.optim.Adam([book.values], lr=params.v_lr)
    parts = [asked[at : at + BATCH] for at in range(0, len(asked), BATCH)]
    batches = [datasets.batch([one.bare.item for one in part]) for part in parts]
    handle = Slots(model).module(layer, "mlp_out").register_forward_hook(book)
    try:
        with torch.enable_grad(), progress("grace", params.v_num_grad_steps) as bar:
            for _ in range(params.v_num_grad_steps):
                total = torch.zeros_like(book.values)
                for inputs in batches:
                    owner = torch.arange(len(inputs.items), device=book.values.device)
                    loss = unlikely(View(inputs, Live(model)), owner, len(owner)).sum()
                    total += torch.autograd.grad(loss, book.values)[0]
                book.values.grad = total
                optimiser.step()
                bar.advance(1)
    finally:
        handle.remove()
    book.values = book.values.detach()
