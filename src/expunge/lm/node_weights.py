"""Which weights belong to which attention head or MLP.

A head has its rows of the query, key and value projections, with their biases, and its columns of
the output projection; an MLP has all its weights. Norms, embeddings and the bias of the output
projection belong to no node.

Where heads share keys and values (grouped and multi-query attention), their rows belong to all
heads that read them. Of an adapter ``B A`` the rows of B go as the outputs of its linear do and the
columns of A as the inputs; the factor on the other side belongs to all nodes of the linear.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.lm.arch import Slots
from expunge.lm.circuits import MLP, Node, heads_of

Nodes = frozenset[Node]
Runs = list[tuple[Nodes, int]]
"""Whose so many neighbouring outputs (or inputs) are, in order."""

NOBODY = -1


class Owned(NamedTuple):
    """Whose a parameter is, along one of its axes.

    Attributes:
        axis: The axis.
        owner: [size along it], number of a set of nodes, or `NOBODY`.
    """

    axis: int
    owner: Tensor

    def mask(self, like: Tensor) -> Tensor:
        """Bool of the shape of the parameter ``like``: the entries that somebody owns."""
        return self.along(self.owner != NOBODY, like).expand(like.shape)

    def along(self, values: Tensor, like: Tensor) -> Tensor:
        """Values [size along the axis] in a shape that broadcasts over ``like``."""
        shape = [1] * like.dim()
        shape[self.axis] = -1
        return values.to(like.device).reshape(shape)


class Owners(NamedTuple):
    """The weights of some nodes.

    Attributes:
        modules: Sets of nodes that have weights of their own; sets of several share theirs.
        parameters: Name, as ``named_parameters`` of the base model has it -> whose it is. Whatever
            is not named belongs to nobody.
    """

    modules: list[Nodes]
    parameters: dict[str, Owned]


def owners(model: nn.Module, nodes: Collection[Node]) -> Owners:
    """The weights of some nodes, those of adapters included.

    Args:
        model: A causal language model, with or without adapters.
        nodes: The nodes; others count for nothing, so what one of these shares with them is its.

    Raises:
        ExpungeError: ``E-MODEL-007`` when the parts of a projection cannot be told apart.
    """
    slots, chosen = Slots(model), frozenset(nodes)
    numbers: dict[Nodes, int] = {}
    found: dict[str, Owned] = {}

    def number(those: Nodes) -> int:
        mine = those & chosen
        return numbers.setdefault(mine, len(numbers)) if mine else NOBODY

    for layer in sorted({node.layer for node in chosen}):
        for name, by_output, runs in _linears(slots, layer):
            sizes = torch.tensor([size for _, size in runs])
            owner = torch.tensor([number(those) for those, _ in runs]).repeat_interleave(sizes)
            whole = number(frozenset().union(*(those for those, _ in runs)))
            module = slots.model.get_submodule(name)
            found |= _of_linear(module, name, owner, whole, by_output=by_output)
    return Owners(list(numbers), found)


def _of_linear(
    module: Any, name: str, owner: Tensor, whole: int, *, by_output: bool
) -> dict[str, Owned]:
    """Whose the parameters of one linear are.

    Args:
        module: The linear, perhaps inside an adapter.
        name: Its name.
        owner: [outputs or inputs], whose each is.
        whole: Whose all of them are together.
        by_output: Which of both.
    """
    below = getattr(module, "base_layer", module)
    inner = f"{name}.base_layer" if below is not module else name
    is_transposed = isinstance(below, Conv1D)
    found = {f"{inner}.weight": Owned(int(by_output == is_transposed), owner)}
    if by_output and getattr(below, "bias", None) is not None:
        found[f"{inner}.bias"] = Owned(0, owner)
    for factor, is_outer in (("lora_A", False), ("lora_B", True)):
        for adapter, linear in getattr(module, factor, {}).items():
            axis = 0 if is_outer else 1
            mine = by_output == is_outer
            everyone = torch.full((linear.weight.shape[axis],), whole)
            found[f"{name}.{factor}.{adapter}.weight"] = Owned(axis, owner if mine else everyone)
    return found


def _linears(slots: Slots, layer: int) -> Iterator[tuple[str, bool, Runs]]:
    """Name of each linear of a block, whether its outputs or its inputs are divided, and how."""
    mlp = frozenset({Node(layer, MLP)})
    for slot in ("mlp_in", "mlp_out"):
        for name in slots.names(layer, slot):
            yield name, True, [(mlp, _size(slots, name, outputs=True))]
    (out,) = slots.names(layer, "attention_out")
    heads = heads_of(slots.model)
    width = _size(slots, out, outputs=False) // heads
    own = [frozenset({Node(layer, head)}) for head in range(heads)]
    for name in slots.names(layer, "attention_in"):
        yield name, True, _inputs_of_attention(slots, name, own, width)
    yield out, False, _repeated(own, width)


def _inputs_of_attention(slots: Slots, name: str, own: Sequence[Nodes], width: int) -> Runs:
    """Whose the outputs of a projection to queries, keys or values are."""
    size, heads = _size(slots, name, outputs=True), len(own)
    match name.rpartition(".")[2]:
        case "q_proj" if size == heads * width:
            return _repeated(own, width)
        case "k_proj" | "v_proj" if size % width == 0:
            return _shared(own, size // width, width)
        case "qkv_proj" | "c_attn" if size > heads * width and size % width == 0:
            groups = (size // width - heads) // 2  # all queries, then all keys, then all values
            keys = _shared(own, groups, width)
            return [*_repeated(own, width), *keys, *keys]
        case "query_key_value" if size == 3 * heads * width:
            return _repeated(own, 3 * width)  # query, key and value of one head after the other
    raise ExpungeError(
        "E-MODEL-007",
        f"{type(slots.model).__name__} makes {size} outputs in {name}, for {heads} heads of "
        f"{width} channels.",
        "projections whose parts are known.",
        "Use a model of another family, or a method that moves whole blocks.",
    )


def _repeated(own: Sequence[Nodes], width: int) -> Runs:
    return [(those, width) for those in own]


def _shared(own: Sequence[Nodes], groups: int, width: int) -> Runs:
    """Each of some groups of neighbouring heads reads the same keys and values."""
    each = len(own) // groups
    read = (own[group * each : (group + 1) * each] for group in range(groups))
    return _repeated([frozenset().union(*those) for those in read], width)


def _size(slots: Slots, name: str, *, outputs: bool) -> int:
    module: Any = slots.model.get_submodule(name)
    below = getattr(module, "base_layer", module)
    if isinstance(below, Conv1D):
        return int(below.weight.shape[1 if outputs else 0])
    return int(below.out_features if outputs else below.in_features)
