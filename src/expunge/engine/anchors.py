"""The frozen anchor at the lowest cost its method allows.

A method's needs say what it looks at under the anchor: ``anchor`` (log-probabilities of the rows'
tokens), ``anchor-logits`` (whole distributions), ``anchor-hidden`` (block outputs). All three are
computed once, for the rows that the run will draw, and then looked up: a log-probability for each
token, the hidden state a distribution is made of, the outputs of the blocks that are looked at.
What cannot be remembered, or would take too much room, is asked of the model itself, with its
adapter switched off, or with the weights that move put back. Attention maps (``anchor-attention``)
always are.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.events import note
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.looks import Look, looked_at
from expunge.engine.masks import moving
from expunge.engine.method import GradientMethod
from expunge.engine.remembered import Table, Wanted, computed, drawn, keep, kept, key_of
from expunge.engine.slots.sample import Sampler
from expunge.engine.sources import Frozen
from expunge.engine.start import Start, handed_over, is_replayed, logits_of, moving_head
from expunge.engine.view import Editing, Finding, View
from expunge.lm.arch import Slots, base_of
from expunge.lm.digest import model_digest

KINDS = ("anchor", "anchor-logits", "anchor-hidden", "anchor-attention")

BATCH = {"anchor": 32, "anchor-logits": 8, "anchor-hidden": 8}
"""Rows of a forward pass that fills the cache; the later kinds are asked at more positions."""

ROOM = 1 << 30
"""Bytes of hidden states that are kept in any case; more only where the live way needs more."""

FLOAT32 = 4
"""Bytes of a value of a block's output, whatever the weights are stored in, unless that is more."""


class Anchor:
    """What views compare with: view name -> source.

    Attributes:
        warming: Forward passes it took to fill the cache.
        kept: Weights held beside the model's own, by name.
    """

    def __init__(self, source: "Remembered", *, warming: int, kept: Mapping[str, Tensor]) -> None:
        self._source = source
        self.warming = warming
        self.kept = kept

    def __call__(self, view: str) -> "Remembered":
        """One source serves every view: rows are known by their tokens."""
        return self._source

    @property
    def forwards(self) -> int:
        """Forward passes since the cache was filled."""
        return self._source.forwards


class Remembered:
    """The anchor from what is remembered of it; the rest from the live one, where there is one.

    Args:
        start: The model at its start; runs no block for what is remembered.
        tables: Values; of block outputs [M, blocks of the look, d].
        live: Asked for everything else.
    """

    def __init__(
        self, start: nn.Module, tables: Mapping[Look, Table], live: Frozen | None = None
    ) -> None:
        self._start, self._tables, self._live = start, tables, live

    @property
    def forwards(self) -> int:
        """Forward passes so far."""
        return 0 if self._live is None else self._live.forwards

    def token_logp(self, inputs: Inputs) -> Tensor | None:
        """[N], or None where it takes the logits."""
        table = self._tables.get(("anchor", ()))
        return None if table is None else table.of(inputs)

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V]."""
        table = self._tables.get(("anchor-logits", ()))
        handed = None if table is None else table.of(inputs)
        return self._asked().logits(inputs) if handed is None else logits_of(self._start, handed)

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> [B, T, d]; where it is remembered, zero at padding."""
        known = self._known_hidden(inputs, layers)
        return known if known.keys() >= set(layers) else self._asked().hidden(inputs, layers)

    def _known_hidden(self, inputs: Inputs, layers: Sequence[int]) -> dict[int, Tensor]:
        """As much as is remembered, of all real positions."""
        real = inputs.attention_mask.bool()
        everywhere = replace(inputs, keep=real)
        known: dict[int, Tensor] = {}
        for (_, blocks), table in self._tables.items():
            asked = [layer for layer in layers if layer in blocks]
            packed = table.of(everywhere) if asked else None
            if packed is not None:
                known |= {at: _rectangle(packed[:, blocks.index(at)], real) for at in asked}
        return known

    def attention(self, inputs: Inputs) -> Sequence[Tensor]:
        """The attention maps of all blocks, asked anew each time."""
        return self._asked().attention(inputs)

    def edited(self, edit: Editing) -> Frozen:
        """The anchor under a change, asked anew each time."""
        return self._asked().edited(edit)

    def through(self, find: Finding) -> Frozen:
        """Another model, found in the one that is asked, asked anew each time."""
        return self._asked().through(find)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(Slots(self._start))

    def _asked(self) -> Frozen:
        if self._live is None:
            raise LookupError("of the anchor only what the terms looked at first was kept")
        return self._live


def anchor_of(
    model: nn.Module,
    method: GradientMethod,
    datasets: Datasets,
    sampler: Sampler,
    *,
    steps: int,
    adapted: bool,
    folder: Path,
    frozen: nn.Module | None = None,
) -> Anchor | None:
    """The anchor of a run; None when the method compares with nothing.

    Args:
        model: The model at its start, weights that may not move already frozen.
        method: Whose needs decide.
        datasets: Rows of every view.
        sampler: Says which items the run will draw.
        steps: Steps planned.
        adapted: Whether an adapter is trained: the anchor is then the adapter switched off.
        folder: Where remembered values are kept over restarts.
        frozen: Another model to compare with in place of the start, asked live.
    """
    needed = {kind for kind in KINDS if kind in method.needs}
    if not needed:
        return None
    if frozen is not None:
        return Anchor(Remembered(frozen, {}, Frozen(frozen)), warming=0, kept={})
    switch: Any = model.disable_adapter if adapted else nullcontext
    warming = Frozen(model, switch)
    looks = looked_at(method, datasets, sampler, steps)
    cache = _Cache(model, warming, datasets, method, folder / "anchors")
    tables: dict[Look, Table] = {}
    for look, widths in looks.alike().items():
        table = cache.table(look, drawn(datasets, sampler, steps, widths))
        if table is not None:
            tables[look] = table
    is_whole = len(tables) == len(looks.alike()) and needed <= {kind for kind, _ in tables}
    is_live = looks.others or not is_whole
    names: set[str] = set()
    if not adapted and is_live:
        names = set(moving(model))
    elif not adapted and ("anchor-logits", ()) in tables:
        names = moving_head(model)
    start = Start(model, names)
    live = Frozen(start, switch) if is_live else None
    return Anchor(Remembered(start, tables, live), warming=warming.forwards, kept=start.kept)


class _Cache:
    """Fills tables, from the folder of an earlier start where that holds the very same."""

    def __init__(
        self,
        model: nn.Module,
        source: Frozen,
        datasets: Datasets,
        method: GradientMethod,
        folder: Path,
    ) -> None:
        self._model, self._source, self._datasets = model, source, datasets
        self._params, self._folder = method.params, folder
        self._taken = 0

    @cached_property
    def _digest(self) -> str:
        return model_digest(base_of(self._model))

    def table(self, look: Look, wanted: Wanted) -> Table | None:
        """Values of ``look``; None where the live way is the better one."""
        size = self._bytes_of(look, wanted)
        if size and self._taken + size > self._room:
            return None
        key = key_of(self._about(look), wanted)
        file = self._folder / f"{key}.safetensors"
        values = kept(file, key)
        if values is None:
            values = self._computed(look, wanted)
            if values is None:
                return None
            keep(file, key, values)
        self._taken += size
        return Table(wanted, values)

    def _about(self, look: Look) -> dict[str, object]:
        config: Any = base_of(self._model).config
        kind, layers = look
        return {
            "kind": kind,
            "layers": list(layers),
            "weights": self._digest,
            "dtype": str(next(self._model.parameters()).dtype),
            "device": next(self._model.parameters()).device.type,
            "attention": str(config._attn_implementation),
            "precision": self._params.precision,
            "packing": self._params.packing,
        }

    @cached_property
    def _room(self) -> int:
        """Bytes of hidden states: what the live way would hold of the weights, or `ROOM`."""
        moved = (p for p in self._model.parameters() if p.requires_grad)
        return max(ROOM, sum(p.numel() * p.element_size() for p in moved))

    def _bytes_of(self, look: Look, wanted: Wanted) -> int:
        """What hidden states take; log-probabilities are too small to count."""
        kind, layers = look
        config: Any = base_of(self._model).config
        width = int(config.get_text_config().hidden_size)
        value = next(self._model.parameters()).element_size()
        places = sum(int(places.sum()) for places in wanted.values())
        each = {"anchor-logits": value, "anchor-hidden": len(layers) * max(value, FLOAT32)}
        return places * width * each.get(kind, 0)

    def _computed(self, look: Look, wanted: Wanted) -> Tensor | None:
        kind, layers = look
        if kind == "anchor-hidden":
            return self._hidden(layers, wanted)
        return self._logp(wanted) if kind == "anchor" else self._handed(wanted)

    def _logp(self, wanted: Wanted) -> Tensor | None:
        def values_of(inputs: Inputs) -> Tensor:
            return View(inputs, self._source).token_logp

        return computed(wanted, self._datasets, values_of, BATCH["anchor"])

    def _hidden(self, layers: Sequence[int], wanted: Wanted) -> Tensor | None:
        """[M, layers, d]; all positions of these rows are wanted."""

        def values_of(inputs: Inputs) -> Tensor:
            found = self._source.hidden(inputs, layers)
            return torch.stack([found[layer][inputs.keep] for layer in layers], 1)

        return computed(wanted, self._datasets, values_of, BATCH["anchor-hidden"])

    def _handed(self, wanted: Wanted) -> Tensor | None:
        """Hidden states, unless other logits come of them than the forward pass made."""
        proven = False

        def values_of(inputs: Inputs) -> Tensor | None:
            nonlocal proven
            with handed_over(self._model) as seen:
                logits = self._source.logits(inputs)
            proven = proven or is_replayed(self._model, seen[0], logits)
            return seen[0] if proven else None

        made = computed(wanted, self._datasets, values_of, BATCH["anchor-logits"])
        if made is None:
            note("This family makes its logits of more than hidden states: the anchor runs live.")
        return made


def _rectangle(packed: Tensor, real: Tensor) -> Tensor:
    """[N, d] at the true places of [B, T], zero elsewhere."""
    return packed.new_zeros(*real.shape, packed.shape[-1]).index_put((real,), packed)
