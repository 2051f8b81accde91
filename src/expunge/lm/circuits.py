"""Which attention heads and MLPs a choice between tokens goes through.

A *node* is one attention head of a block (what it hands to the output matrix) or a block's MLP
(its output). See `Contrast` for the rows.

Definition (M: the choice, h_n: what node n puts out, over all positions both rows share):
    M        logit(answer) - mean logit(rivals), at the tokens asked for
    effect   sum_t < h_n^corr - h_n^clean, dM / dh_n^clean >     attribution patching
    patched  M( h_n := h_n^corr ) - M                            true patching

The output matrix of a head is linear: its part of the residual stream has the same inner product as
what it hands to that matrix.

Reference: Attribution Patching Outperforms Automated Circuit Discovery, 2023.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded, by_length, collate
from expunge.lm.arch import Slots
from expunge.lm.contrasts import Contrast, aligned
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import masked_logits

MLP = -1
"""Number of the head that stands for a block's MLP."""

Change = Callable[[Tensor], Tensor]


class Node(NamedTuple):
    """A head of a block, or its MLP (head `MLP`)."""

    layer: int
    head: int

    def __str__(self) -> str:
        """As in tables: ``3.h0``, ``3.mlp``."""
        return f"{self.layer}.mlp" if self.head == MLP else f"{self.layer}.h{self.head}"


def heads_of(model: nn.Module) -> int:
    """Number of attention heads of each block."""
    return int(Slots(model).model.config.get_text_config().num_attention_heads)  # type: ignore[union-attr, operator]


def nodes_of(model: nn.Module) -> list[Node]:
    """All nodes, bottom first; of each block its heads, then its MLP."""
    heads = range(heads_of(model))
    layers = range(len(Slots(model)))
    return [Node(layer, head) for layer in layers for head in (*heads, MLP)]


def effects(model: nn.Module, contrasts: Sequence[Contrast], pad: int, batch_size: int) -> Tensor:
    """Attribution patching: to first order, what each node alone would change of M.

    One backward pass a batch; the graph runs through all nodes, so each gradient sees what later
    nodes make of it.

    Args:
        model: A causal language model.
        contrasts: The rows.
        pad: Id to pad with.
        batch_size: Rows of one pass.

    Returns:
        [contrasts, nodes] in float64, in the order of `nodes_of`.
    """
    found = torch.zeros(len(contrasts), len(nodes_of(model)), dtype=torch.float64)
    heads = heads_of(model)
    with evaluating(model):
        for places, batch in _batches(model, contrasts, pad, batch_size):
            other = batch.states(model)
            with torch.enable_grad(), _outputs(model) as own:
                value = batch.choices(model).sum()
            gradients = torch.autograd.grad(value, own)
            parts = [
                _by_head((b[batch.there] - a[batch.here]) * g[batch.here], parts)
                for a, b, g, parts in zip(own, other, gradients, cycle((heads, 1)))
            ]
            rows = torch.zeros(len(places), found.shape[1], dtype=torch.float64)
            rows.index_add_(0, batch.here[0].cpu(), torch.cat(parts, 1).cpu())
            found[places] = rows
    return found


def patched(
    model: nn.Module, contrasts: Sequence[Contrast], nodes: Sequence[Node], pad: int,
    batch_size: int,
) -> Tensor:  # fmt: skip
    """True patching: what each of some nodes changes of M when it says what it says without.

    Args:
        model: A causal language model.
        contrasts: The rows.
        nodes: The nodes, one at a time.
        pad: Id to pad with.
        batch_size: Rows of one pass.

    Returns:
        [contrasts, nodes] in float64.
    """
    found = torch.zeros(len(contrasts), len(nodes), dtype=torch.float64)
    heads = heads_of(model)
    with evaluating(model):
        for places, batch in _batches(model, contrasts, pad, batch_size):
            other, before = batch.states(model), batch.choices(model)
            for number, node in enumerate(nodes):
                states = other[2 * node.layer + (node.head == MLP)]
                with _changed(model, node, batch.replacing(states, node, heads)):
                    found[places, number] = (batch.choices(model) - before).double().cpu()
    return found


@dataclass(frozen=True, slots=True)
class _Batch:
    """Padded contrasts.

    Attributes:
        clean: Ids and mask [B, T].
        corrupted: Likewise.
        keep: [B, T] bool, where something is asked, N times.
        tokens: [N, 1 + rivals], the answer's token first; padded with it.
        weights: [N, 1 + rivals], what each logit counts in M.
        row: [N], row of each.
        here: Rows and positions of the clean side that are aligned.
        there: Of the corrupted side.
    """

    clean: tuple[Tensor, Tensor]
    corrupted: tuple[Tensor, Tensor]
    keep: Tensor
    tokens: Tensor
    weights: Tensor
    row: Tensor
    here: tuple[Tensor, Tensor]
    there: tuple[Tensor, Tensor]

    def choices(self, model: nn.Module) -> Tensor:
        """[B], M of each clean row."""
        logits = masked_logits(model, *self.clean, self.keep)
        told = (logits.gather(1, self.tokens) * self.weights.to(logits)).sum(1)
        return told.new_zeros(len(self.keep)).index_add(0, self.row, told)

    def states(self, model: nn.Module) -> list[Tensor]:
        """What all nodes put out on the corrupted rows, see `_outputs`."""
        with _outputs(model) as seen:
            keep = torch.zeros_like(self.corrupted[0], dtype=torch.bool)
            keep[:, 0] = True
            masked_logits(model, *self.corrupted, keep)
        return [one.detach() for one in seen]

    def replacing(self, states: Tensor, node: Node, heads: int) -> Change:
        """What puts the states of a node into the clean pass, where rows are aligned."""

        def change(own: Tensor) -> Tensor:
            width = own.shape[-1] // heads
            whole = node.head == MLP
            part = slice(None) if whole else slice(node.head * width, (node.head + 1) * width)
            put = own.clone()
            put[(*self.here, part)] = states[self.there][:, part].to(own)
            return put

        return change


def _batches(
    model: nn.Module, contrasts: Sequence[Contrast], pad: int, batch_size: int
) -> Iterator[tuple[list[int], _Batch]]:
    """Which contrasts, and their batch, the longest first."""
    device = next(model.parameters()).device
    for places in by_length([len(one.clean) for one in contrasts], batch_size):
        yield places, _padded([contrasts[place] for place in places], pad, device)


def _padded(contrasts: Sequence[Contrast], pad: int, device: torch.device) -> _Batch:
    def rectangle(rows: Iterable[Sequence[int]]) -> tuple[Tensor, Tensor]:
        made = collate([Encoded([*ids], [*ids], [], -1) for ids in rows], pad)
        return made.input_ids.to(device), made.attention_mask.to(device)

    clean = rectangle(one.clean for one in contrasts)
    keep = torch.zeros_like(clean[0], dtype=torch.bool)
    asked = [(row, one) for row, c in enumerate(contrasts) for one in sorted(c.asked)]
    most = max(len(one.rivals) for _, one in asked)
    tokens = torch.tensor(
        [[*([o.answer, *o.rivals] + [o.answer] * most)[: most + 1]] for _, o in asked]
    )
    weights = torch.zeros(tokens.shape, dtype=torch.float64)
    for number, (row, one) in enumerate(asked):
        keep[row, one.at] = True
        share = 1 / len(contrasts[row].asked)
        weights[number, 0] = share
        weights[number, 1 : 1 + len(one.rivals)] = -share / len(one.rivals)
    pairs = [
        (row, *pair)
        for row, one in enumerate(contrasts)
        for pair in aligned(one.clean, one.corrupted)
    ]
    rows, here, there = torch.tensor(pairs, device=device).T
    return _Batch(
        clean, rectangle(one.corrupted for one in contrasts), keep, tokens.to(device),
        weights.to(device), torch.tensor([row for row, _ in asked], device=device),
        (rows, here), (rows, there),
    )  # fmt: skip


def _sites(model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    """Where nodes put something out: into the module (true, heads) or out of it (MLP)."""
    slots = Slots(model)
    for layer in range(len(slots)):
        yield slots.module(layer, "attention_out"), True
        yield slots.module(layer, "mlp"), False


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what nodes put out: of each block all heads side by side, then the MLP, [B, T, ...].

    With gradients on they are in the graph, also where no weight asks for a gradient.
    """
    seen: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        if torch.is_grad_enabled() and not value.requires_grad:
            value = value.detach().requires_grad_()
        seen.append(value)
        return value

    with ExitStack() as hooks:
        for module, entering in _sites(model):
            hooks.enter_context(_hooked(module, note, entering=entering))
        yield seen


@contextmanager
def _changed(model: nn.Module, node: Node, change: Change) -> Iterator[None]:
    """One node says something else, during the context."""
    module, entering = list(_sites(model))[2 * node.layer + (node.head == MLP)]
    with _hooked(module, change, entering=entering):
        yield


@contextmanager
def _hooked(module: nn.Module, change: Change, *, entering: bool) -> Iterator[None]:
    """What goes into a module, or comes out of it, goes through ``change``."""

    def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(given[0]), *given[1:])

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    if entering:
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _by_head(products: Tensor, heads: int) -> Tensor:
    """[N, heads], sums over the channels of each head."""
    if products.shape[-1] % heads:
        raise ExpungeError(
            "E-MODEL-007",
            f"An attention of {heads} heads in {products.shape[-1]} channels.",
            "heads of one width.",
            "Use a model of another family, or a method that needs no heads.",
        )
    return products.double().reshape(len(products), heads, -1).sum(-1)
