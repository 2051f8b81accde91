"""The frozen anchor at the lowest cost its method allows.

A method's needs say what it looks at under the anchor: ``anchor`` (log-probabilities of the rows'
tokens), ``anchor-logits`` (whole distributions), ``anchor-hidden`` (block outputs).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.method import GradientMethod
from expunge.engine.slots.sample import Sampler
from expunge.engine.sources import Frozen
from expunge.engine.view import Source, View

KINDS = ("anchor", "anchor-logits", "anchor-hidden")


def anchor_of(
    model: nn.Module,
    method: GradientMethod,
    datasets: Datasets,
    sampler: Sampler,
    *,
    steps: int,
    adapted: bool,
    folder: Path,
) -> Callable[[str], Source] | None:
    """What views compare with: view name -> source; None when the method compares with nothing.

    Args:
        model: The model at its start, weights that may not move already frozen.
        method: Whose needs decide.
        datasets: Rows of every view.
        sampler: Says which items the run will draw.
        steps: Steps planned.
        adapted: Whether an adapter is trained: the anchor is then the adapter switched off.
        folder: Where cached values are kept over restarts.
    """
    if not any(kind in method.needs for kind in KINDS):
        return None
    switch: Any = model.disable_adapter if adapted else nullcontext
    live = Frozen(model, switch)
    cached = {
        role: cache_anchor(live, datasets, role) for role in ("forget",) if "anchor" in method.needs
    }
    keep: Frozen | None = live if adapted else None
    others = {"refusal", "alternate", "retain"} & set(method.views)
    if not adapted and (others or method.needs & {"anchor-logits", "anchor-hidden"}):
        keep = Frozen(deepcopy(model).requires_grad_(False))
    sources: dict[str, Source] = {r: Cached(values, keep) for r, values in cached.items()}
    return lambda view: sources.get(view) or keep or Cached({})


class Cached:
    """Token log-probabilities of fixed data under the anchor, computed once.

    Everything else is asked of ``live``, when there is one.
    """

    def __init__(self, values: Mapping[int, Tensor], live: Frozen | None = None) -> None:
        self._values = values
        self._live = live

    def token_logp(self, inputs: Inputs) -> Tensor:
        """[N], from the cache."""
        return torch.cat([self._values[int(item)] for item in inputs.items]).to(
            inputs.targets.device
        )

    def logits(self, inputs: Inputs) -> Tensor:
        """[N, V] from the live anchor."""
        return self._need().logits(inputs)

    def hidden(self, inputs: Inputs, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """Block -> [B, T, d] from the live anchor."""
        return self._need().hidden(inputs, layers)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self._need().blocks

    def _need(self) -> Frozen:
        if self._live is None:
            raise LookupError("of the anchor only log-probabilities were kept: see `KINDS`")
        return self._live


def cache_anchor(
    source: Frozen, datasets: Datasets, role: str, batch_size: int = 32
) -> dict[int, Tensor]:
    """Token log-probabilities of every wording of every row of ``role`` under ``source``.

    Returns:
        Item index -> [n] float tensor on the CPU, in the precision of the logits.
    """
    items: list[Encoded] = [item for row in datasets.items(role) for item in row]
    items.sort(key=lambda item: (len(item.ids), item.row))
    values: dict[int, Tensor] = {}
    for start in range(0, len(items), batch_size):
        inputs = datasets.batch(items[start : start + batch_size])
        scored = View(inputs, source).token_logp.cpu()
        counts = inputs.keep.sum(1).tolist()
        for item, part in zip(inputs.items.tolist(), torch.split(scored, counts), strict=True):
            values[item] = part
    return values
