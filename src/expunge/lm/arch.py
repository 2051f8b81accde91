"""Where the parts of a decoder are, whatever its family calls them.

Parts are found by name, never by position inside a block: the seventh parameter of a block is the
MLP output in Llama, the attention output in Qwen2 and a norm in GPT-2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Names of the parts inside one decoder block."""

    families: str
    mlp: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    attention: str
    attention_in: tuple[str, ...]
    attention_out: str

    def paths(self, slot: str) -> tuple[str, ...]:
        """Dotted names of a slot's modules, relative to the block."""
        match slot:
            case "mlp" | "attention":
                return (getattr(self, slot),)
            case "mlp_in" | "mlp_out":
                return tuple(f"{self.mlp}.{leaf}" for leaf in _as_tuple(getattr(self, slot)))
            case "attention_in" | "attention_out":
                return tuple(f"{self.attention}.{leaf}" for leaf in _as_tuple(getattr(self, slot)))
        raise ValueError(f"unknown slot {slot!r}, known are {', '.join(SLOTS)}")

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the linear modules of a block, without their parents."""
        return (*self.mlp_in, self.mlp_out, *self.attention_in, self.attention_out)


SLOTS = ("block", "mlp", "mlp_in", "mlp_out", "attention", "attention_in", "attention_out")

LAYOUTS = (
    Layout(
        families="Llama, Mistral, Qwen, Gemma, Cohere, Granite, OLMo",
        mlp="mlp",
        mlp_in=("gate_proj", "up_proj"),
        mlp_out="down_proj",
        attention="self_attn",
        attention_in=("q_proj", "k_proj", "v_proj"),
        attention_out="o_proj",
    ),
    Layout(
        families="Phi-3",
        mlp="mlp",
        mlp_in=("gate_up_proj",),
        mlp_out="down_proj",
        attention="self_attn",
        attention_in=("qkv_proj",),
        attention_out="o_proj",
    ),
    Layout(
        families="GPT-2",
        mlp="mlp",
        mlp_in=("c_fc",),
        mlp_out="c_proj",
        attention="attn",
        attention_in=("c_attn",),
        attention_out="c_proj",
    ),
    Layout(
        families="GPT-NeoX, Pythia",
        mlp="mlp",
        mlp_in=("dense_h_to_4h",),
        mlp_out="dense_4h_to_h",
        attention="attention",
        attention_in=("query_key_value",),
        attention_out="dense",
    ),
)


MLP_NORM = "post_feedforward_layernorm"
"""Name of the norm behind an MLP, in the families that have one (Gemma 2 and 3, OLMo 2)."""

UNSTATED_POSITIONS = 2048
"""Longest row for models whose configuration names no limit."""


class Slots:
    """The parts of one causal language model.

    Attributes:
        blocks: The decoder blocks, bottom first.

    Raises:
        ExpungeError: ``E-MODEL-007`` when there is no list of decoder blocks.
    """

    def __init__(self, model: "nn.Module") -> None:
        self.model: nn.Module = base_of(model)
        decoder = self._decoder()
        self.blocks, self._inner = self._blocks(decoder)
        self._top = decoder

    def __len__(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @cached_property
    def prefix(self) -> str:
        """Dotted name of ``blocks`` inside the model (inside the base model, for adapters)."""
        modules = self.model.named_modules()
        place = next(name for name, module in modules if module is self._top)
        return f"{place}.{self._inner}".lstrip(".")

    def index(self, layer: int) -> int:
        """The block number from the bottom; negative numbers count from the top.

        Raises:
            ExpungeError: ``E-USE-003`` when there is no such block.
        """
        if not -len(self) <= layer < len(self):
            raise ExpungeError(
                "E-USE-003",
                f"Layer {layer} of a model with {len(self)} blocks.",
                f"a number from {-len(self)} to {len(self) - 1}.",
                "Choose a layer of this model.",
            )
        return layer % len(self)

    def names(self, layer: int, slot: str) -> tuple[str, ...]:
        """Dotted names of a slot's modules, for ``model.get_submodule``."""
        block = f"{self.prefix}.{self.index(layer)}"
        if slot == "block":
            return (block,)
        return tuple(f"{block}.{path}" for path in self.layout.paths(slot))

    def module(self, layer: int, slot: str) -> "nn.Module":
        """The module of a slot.

        Args:
            layer: Block number, negative from the top.
            slot: One of `SLOTS`.

        Returns:
            The module. Where a family splits a slot into several linears (query, key, value), a
            ``ModuleList`` of them: good for parameters, not for hooks.
        """
        from torch import nn

        found = [self.model.get_submodule(name) for name in self.names(layer, slot)]
        return found[0] if len(found) == 1 else nn.ModuleList(found)

    def norms(self, layer: int) -> "list[nn.Module]":
        """All normalisations inside a block, in the order the family declares them."""
        return [module for module in self.blocks[self.index(layer)].modules() if _is_norm(module)]

    def mlp_norm(self, layer: int) -> "nn.Module | None":
        """What normalises the output of a block's MLP before it is added to the residual stream.

        None in families that add it as it is.
        """
        found: nn.Module | None = getattr(self.blocks[self.index(layer)], MLP_NORM, None)
        return found

    @property
    def final_norm(self) -> "nn.Module":
        """The normalisation after the last block."""
        return next(child for child in self._top.children() if _is_norm(child))

    @property
    def embed(self) -> "nn.Module":
        """The token embedding."""
        embedding: nn.Module = self.model.get_input_embeddings()  # type: ignore[operator]
        return embedding

    @property
    def head(self) -> "nn.Module":
        """The vocabulary projection; its weight may be the embedding's."""
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[operator]
        return head

    def linears(self) -> list[str]:
        """Dotted names of all linear modules inside the blocks (GPT-2's ``Conv1D`` included).

        Under an adapter these are the wrapped linears, not the adapter's own.
        """
        return [f"{self.prefix}.{name}" for name, _ in self._linears()]

    def _linears(self) -> "Iterator[tuple[str, nn.Module]]":
        for name, module in self.blocks.named_modules():
            if is_linear(module) and ".lora_" not in f".{name}":
                yield name, module

    def _decoder(self) -> "nn.Module":
        try:
            decoder: nn.Module = self.model.get_decoder()  # type: ignore[operator]
        except AttributeError:
            raise self._unknown("it has no decoder") from None
        return decoder

    def _blocks(self, decoder: "nn.Module") -> "tuple[nn.ModuleList, str]":
        from torch import nn

        depth = self.model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr, operator]
        found = [
            (child, name)
            for name, child in decoder.named_children()
            if isinstance(child, nn.ModuleList) and len(child) == depth
        ]
        if len(found) != 1:
            raise self._unknown(f"{len(found)} lists of {depth} blocks")
        return found[0]

    @cached_property
    def layout(self) -> Layout:
        """The names this model's family uses; whole blocks need none of them.

        Raises:
            ExpungeError: ``E-MODEL-007`` when the blocks look like none of `LAYOUTS`.
        """
        names = {name for name, _ in self.blocks[0].named_modules()}
        for layout in LAYOUTS:
            if all(path in names for slot in SLOTS[1:] for path in layout.paths(slot)):
                return layout
        raise self._unknown("its blocks have other parts")

    def _unknown(self, why: str) -> ExpungeError:
        known = "; ".join(layout.families for layout in LAYOUTS)
        return ExpungeError(
            "E-MODEL-007",
            f"{type(self.model).__name__} has a layout that is not in the table: {why}.",
            f"a decoder laid out like one of: {known}.",
            "Use a model of such a family, or a method that needs no access to layers.",
        )


def base_of(model: "nn.Module") -> "nn.Module":
    """The causal language model itself, without an adapter's wrapper."""
    if hasattr(model, "get_base_model"):
        base: nn.Module = model.get_base_model()  # type: ignore[operator]
        return base
    return model


def positions_of(model: "nn.Module") -> int:
    """Longest row the model was built for, in tokens."""
    config = base_of(model).config.get_text_config()  # type: ignore[union-attr, operator]
    return int(getattr(config, "max_position_embeddings", 0)) or UNSTATED_POSITIONS


def is_linear(module: "nn.Module") -> bool:
    """Whether a module is a matrix product: ``Linear`` or GPT-2's transposed ``Conv1D``."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _is_norm(module: "nn.Module") -> bool:
    return "norm" in type(module).__name__.lower()


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
