"""What the terms of a method look at under the anchor: found by running them over zeros."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.method import GradientMethod
from expunge.engine.slots.sample import Sampler
from expunge.engine.sources import Counting
from expunge.engine.step import Step
from expunge.engine.view import View

Look = tuple[str, tuple[int, ...]]
"""A kind and, for ``anchor-hidden``, the blocks whose outputs the same views look at."""


@dataclass(slots=True)
class Looks:
    """What terms look at under the anchor.

    Attributes:
        widths: Kind -> view -> whether at all its real positions, or the supervised ones alone.
        layers: Block -> views in which its output is looked at, at all real positions.
        others: Whether at something besides that cannot be remembered.
    """

    widths: dict[str, dict[str, bool]] = field(default_factory=dict)
    layers: dict[int, set[str]] = field(default_factory=dict)
    others: bool = False

    def add(self, kind: str, inputs: Inputs, views: Mapping[str, Inputs]) -> None:
        """Note that ``kind`` was asked of ``inputs``."""
        name = _name_of(inputs, views)
        real = inputs.attention_mask.bool()
        own = name is not None and torch.equal(inputs.keep, views[name].keep)
        wide = kind == "anchor-logits" and not own and torch.equal(inputs.keep, real)
        if name is None or not (own or wide):
            self.others = True
            return
        known = self.widths.setdefault(kind, {})
        known[name] = known.get(name, False) or wide

    def add_layers(
        self, layers: Sequence[int], inputs: Inputs, views: Mapping[str, Inputs]
    ) -> None:
        """Note that the outputs of ``layers`` were asked of ``inputs``."""
        name = _name_of(inputs, views)
        if name is None:
            self.others = True
            return
        for layer in layers:
            self.layers.setdefault(layer, set()).add(name)

    def alike(self) -> dict[Look, dict[str, bool]]:
        """What is remembered together -> view -> as in ``widths``.

        Blocks that different views look at stand apart: each row then holds what is asked of it.
        """
        found: dict[Look, dict[str, bool]] = {(k, ()): views for k, views in self.widths.items()}
        for views in {frozenset(views): None for views in self.layers.values()}:
            blocks = sorted(layer for layer, own in self.layers.items() if own == views)
            found["anchor-hidden", tuple(blocks)] = dict.fromkeys(sorted(views), True)
        return found


def _name_of(inputs: Inputs, views: Mapping[str, Inputs]) -> str | None:
    """The view whose rows these are, whatever positions of them."""
    return next((n for n, v in views.items() if v.input_ids is inputs.input_ids), None)


def looked_at(method: GradientMethod, datasets: Datasets, sampler: Sampler, steps: int) -> Looks:
    """Let the terms run over zeros, as at the first and at the last step, and watch."""
    looks = Looks()
    for index, progress in ((0, 0.0), (max(steps - 1, 0), 1.0)):
        draw = sampler.draw(index)
        made = {name: datasets.inputs(name, draw) for name in method.views}
        views = {name: inputs for name, inputs in made.items() if inputs is not None}
        step = _watched(datasets, views, looks, progress)
        for term in method.terms.values():
            term(step, method.params)
    return looks


def _watched(
    datasets: Datasets, views: Mapping[str, Inputs], looks: Looks, progress: float
) -> Step:
    config = datasets.task.model.config.get_text_config()
    shape = (config.vocab_size, config.hidden_size, config.num_hidden_layers)
    model, anchor = Counting(*shape), _Watched(*shape, looks, views)
    return Step(
        {name: View(inputs, model, lambda: anchor) for name, inputs in views.items()},
        progress=progress,
        state=dict(datasets.task.state),
    )


class _Watched(Counting):
    """Zeros that note who looked."""

    def __init__(
        self, vocabulary: int, width: int, blocks: int, looks: Looks, views: Mapping[str, Inputs]
    ) -> None:
        super().__init__(vocabulary, width, blocks)
        self._looks, self._views = looks, views

    def logits(self, inputs: Inputs) -> Tensor:
        self._looks.add("anchor-logits", inputs, self._views)
        return super().logits(inputs)

    def token_logp(self, inputs: Inputs) -> Tensor:
        self._looks.add("anchor", inputs, self._views)
        return super().token_logp(inputs)

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        self._looks.add_layers(layers, inputs, self._views)
        return super().hidden(inputs, layers)
