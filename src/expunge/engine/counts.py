"""What a run will do, counted (no torch): sizes of models, passes, what is alive at once.

`expunge.engine.work` fills it in for a run, `expunge.engine.estimate` puts prices on it. The model
is first order: a block is its weights and its calls, whatever is inside.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

VALUE = 4
"""Bytes of a weight, activation or logit: float32, in which a processor computes."""

HELD = 24
"""Values of the width of the model that a block keeps of a token until the backward pass."""

HELD_LOGITS = 4
"""Values of a logit alive at once in training: itself, its softmax and their gradients."""

SCORED_LOGITS = 3
"""Values of a logit alive at once in scoring."""

ADAPTED = 1.8
"""Calls of a block with an adapter, and values it touches and holds, relative to one without."""

LINEARS = 18
"""Widths of in- and output of a block's linear layers together, in widths of the model."""


@dataclass(frozen=True, slots=True)
class Size:
    """What of a model decides how long a token takes.

    Attributes:
        parameters: Number of weights.
        blocks: Number of blocks.
        width: Width of the hidden states.
        vocabulary: Size of the vocabulary.
        tied: Whether embedding and head are one matrix.
    """

    parameters: int
    blocks: int
    width: int
    vocabulary: int
    tied: bool = True

    @property
    def inside(self) -> int:
        """Weights that every token meets: all but those of the vocabulary."""
        matrices = 1 if self.tied else 2
        return max(0, self.parameters - matrices * self.vocabulary * self.width)

    def cut(self, blocks: int) -> "Size":
        """The size of its first blocks between its own embedding, final norm and head."""
        outside = self.parameters - self.inside
        return replace(
            self, blocks=blocks, parameters=outside + self.inside * blocks // max(1, self.blocks)
        )

    def products(self, tokens: float, supervised: float) -> float:
        """Multiply-adds of one forward pass."""
        return self.inside * tokens + self.vocabulary * self.width * supervised

    def values(self, tokens: float, supervised: float) -> float:
        """Values between the products of one forward pass."""
        return self.held(tokens) + SCORED_LOGITS * self.vocabulary * supervised

    def held(self, tokens: float) -> float:
        """Values the backward pass needs of a forward pass through the blocks."""
        return HELD * self.blocks * self.width * tokens


@dataclass(frozen=True, slots=True)
class Pass:
    """Some forward passes, all alike.

    Attributes:
        times: How many.
        tokens: Tokens of each, padding included.
        supervised: Supervised tokens of each.
        calls: Batches each is cut into.
    """

    times: float = 0
    tokens: float = 0
    supervised: float = 0
    calls: float = 1


@dataclass(frozen=True, slots=True)
class Ahead:
    """Whole models that a method trains before its own first step, one after another.

    A module says it by ``ahead(params, rows)``, ``rows`` being how many there are to forget and to
    keep; None where it trains none.

    Attributes:
        steps: Optimiser steps of all of them.
        rows: Rows of each step.
        models: How many; each is then asked for its outputs on all rows.
    """

    steps: float
    rows: int
    models: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Voices:
    """Small models that are heard beside the model (`expunge.engine.assistants`).

    One of them learns, the model and the others stay as they are. They are written as the run-time
    part of the change, those that learnt also as models of their own.

    Attributes:
        sizes: Of each, that of the one that learns first.
        trained: Number of weights that move.
        own: Number of weights in memory that are not the model's as well.
        alone: Whether the one that learns does so by itself; else the model and the others read the
            rows of every step as well.
        adapter: Whether its weights are frozen, and what moves stands beside them.
        each: How many rows of a view stand beside each forget row, where that is not one.
        wide: Views that are looked at in every position, not only where an answer is predicted.
    """

    sizes: Sequence[Size]
    trained: int
    own: int = 0
    alone: bool = False
    adapter: bool = False
    each: Mapping[str, int] = field(default_factory=dict)
    wide: Collection[str] = ()

    @property
    def parameters(self) -> int:
        """Weights of all of them, each by itself, as they are written."""
        return sum(size.parameters for size in self.sizes)


@dataclass(frozen=True, slots=True)
class Work:
    """What a run will do.

    Attributes:
        size: The model.
        trained: Number of weights that move.
        steps: Training passes, one for each optimiser step.
        parts: Micro-batches a step is cut into; what is held is that of one.
        scored: Passes without gradient: anchor, measurements on the way.
        checkpoints: How many are written, apart from those that long runs write every 30 seconds.
        stored: Bytes of the weights on disk.
        still: Values the anchor holds: weights as they were, remembered hidden states.
        adapter: Whether the weights of the model itself are frozen.
        recomputed: Whether activations are computed again in the backward pass.
        weight_bytes: Bytes of a weight of the blocks while a run trains, masters included.
        voices: Small models beside the model; ``trained`` and ``adapter`` then are theirs.
        heard: Passes of each of them without gradient.
        ahead: Training passes before the first step, of another model of the same size.
    """

    size: Size
    trained: int
    steps: Pass
    parts: int = 1
    scored: Sequence[Pass] = ()
    checkpoints: int = 0
    stored: int = 0
    still: int = 0
    adapter: bool = False
    recomputed: bool = False
    weight_bytes: float = VALUE
    voices: Voices | None = None
    heard: Sequence[Pass] = ()
    ahead: Pass = Pass()

    @property
    def is_adapter(self) -> bool:
        """Whether the result is an adapter beside the original, and no model."""
        return self.adapter and self.voices is None

    @property
    def learner(self) -> Size:
        """The model whose gradients are taken."""
        return self.size if self.voices is None else self.voices.sizes[0]

    @property
    def listened(self) -> Sequence[Size]:
        """The models that read the rows of a step without learning of them."""
        if self.voices is None or self.voices.alone:
            return ()
        return (self.size, *self.voices.sizes[1:])

    @property
    def again(self) -> bool:
        """Whether that happens: a small model that learns by itself is left out of it."""
        return self.recomputed and (self.voices is None or not self.voices.alone)

    @property
    def held(self) -> float:
        """Values the backward pass of a step needs."""
        kept = self.learner.held(self.steps.tokens)
        if self.again:  # what goes into each block; all of one block, and its gradients
            kept *= 1 / HELD + 2 / max(1, self.learner.blocks)
        return kept * (ADAPTED if self.adapter else 1.0)

    @property
    def logits(self) -> float:
        """Values of logits alive in a step: of the one that learns, of what it is mixed with."""
        mixed = len(self.listened) + 1 if self.listened else 0
        return (HELD_LOGITS + mixed) * self.size.vocabulary * self.steps.supervised

    @property
    def scored_logits(self) -> int:
        """Values of a logit alive at once in scoring, small models and their mixture included."""
        return SCORED_LOGITS + (0 if self.voices is None else len(self.voices.sizes) + 1)


def adapter_weights(rank: int, blocks: int, width: int) -> int:
    """Weights of an adapter of some rank on every linear layer of the blocks, about."""
    return rank * LINEARS * blocks * width


def size_of(parameters: int, config: Mapping[str, Any], tensors: Sequence[str] = ()) -> Size:
    """The size of a model, from its number of weights, its ``config.json`` and their names."""
    heads = ("lm_head.weight", "embed_out.weight")
    return Size(parameters, *shape(config), tied=not any(t.endswith(heads) for t in tensors))


def shape(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Blocks, width and vocabulary of a model's ``config.json`` (0 where it does not say)."""
    text = config.get("text_config")
    found = text if isinstance(text, Mapping) else config

    def first(names: Sequence[str]) -> int:
        return next((int(found[name]) for name in names if isinstance(found.get(name), int)), 0)

    return (
        first(("num_hidden_layers", "n_layer")),
        first(("hidden_size", "n_embd")),
        first(("vocab_size",)),
    )
