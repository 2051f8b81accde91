"""Texts as the matrix gets to see them, and how far they are read into a memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association
from expunge.lm.hooks import forward_within
from expunge.methods.wise.routing import Twofold, readings

if TYPE_CHECKING:
    from expunge.methods.wise import Params

BATCH = 64
"""Rows of a forward pass without gradient, and of what an edit draws its others from."""

SHARES = (0.5, 2.0, 1.0)
"""What ``auto`` makes of the margins, in mean lengths of what the matrix puts out (INFERRED); the
paper's have the same proportions."""


class Margins(NamedTuple):
    """Distances that edits and retain rows are pushed to."""

    alpha: float
    beta: float
    gamma: float


class Read(NamedTuple):
    """Some texts, as the matrix gets to see them.

    Attributes:
        entering: [B, T, d_in].
        counts: [B, T] bool, positions whose distances count.
        begins: [B, T] bool, the first of each.
        ends: [B], the last position that is looked at.
    """

    entering: Tensor
    counts: Tensor
    begins: Tensor
    ends: Tensor

    def only(self, keep: Tensor) -> "Read":
        """The same, with those positions [B, T] alone counting."""
        return self._replace(counts=self.counts & keep)

    def of(self, rows: Tensor) -> "Read":
        """Some of the texts."""
        return Read(*(part[rows] for part in self))


class Looking:
    """One layer of a model, the edits, and the rows that are to stay as they are.

    Args:
        datasets: Makes batches.
        asked: What is edited, in this order.
        layer: The block.
        params: How.
    """

    def __init__(
        self, datasets: Datasets, asked: Sequence[Association], layer: int, params: "Params"
    ) -> None:
        self.datasets, self.asked, self.layer, self.params = datasets, asked, layer, params
        self.model, self.seed = datasets.task.model, datasets.task.seed
        self.matrix = Twofold(self.model, layer)
        self.locality = [wordings[0] for wordings in datasets.items("retain")]
        self.margins = self.settled()

    def settled(self) -> Margins:
        """The margins; ``auto`` in multiples of what the matrix puts out of retain rows."""
        params = self.params
        asked = (params.alpha, params.beta, params.gamma)
        unit = self.unit() if "auto" in asked else 1.0
        scaled = zip(asked, SHARES, strict=True)
        return Margins(*(share * unit if one == "auto" else float(one) for one, share in scaled))

    def unit(self) -> float:
        """Mean length of the output behind the activation, over tokens of retain rows."""
        some = self.some(len(self.locality), BATCH, "unit")
        read = self.read([self.locality[at] for at in some])
        with torch.no_grad():
            output = self.matrix.bare(read.entering)
            lengths = self.matrix.apart(output, torch.zeros_like(output))
        return float(lengths[read.counts].mean())

    def some(self, count: int, most: int, *names: str | int) -> list[int]:
        """Up to ``most`` numbers below ``count``, in the order of the draw."""
        draw = generator(self.seed, "wise", *names)
        return [int(at) for at in draw.permutation(count)[:most]]

    @torch.no_grad()
    def read(self, items: Sequence[Encoded], ends: Sequence[int] | None = None) -> Read:
        """What enters the matrix on some texts, up to the end of each unless another is given."""
        inputs = self.datasets.batch(items)
        entering = forward_within(
            self.model, self.layer, "mlp_out", entering=True, input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask, use_cache=False,
        )  # fmt: skip
        real = inputs.attention_mask.bool()
        begins = torch.zeros_like(real)
        begins[:, 0] = True
        counts = real if self.params.include_bos else real & ~begins
        last = real.sum(1) - 1 if ends is None else torch.tensor(ends, device=real.device)
        return Read(entering, counts, begins, last)

    def distances(self, weight: Tensor, read: Read) -> Tensor:
        """[B, T, 1]: of single positions."""
        output = self.matrix.bare(read.entering)
        return self.matrix.apart(output, self.matrix.said(weight, read.entering))[..., None]

    def reached(self, weight: Tensor, read: Read, *, most: bool = False) -> Tensor:
        """D [B]: what has been read at the end of each text, or the most on the way there."""
        found = readings(self.distances(weight, read), read.counts, read.begins, hold=most)
        return found[torch.arange(len(found)), read.ends, 0]

    def prompts(self, edits: Sequence[int]) -> Read:
        """Bare prompts of some edits."""
        prompts = [self.asked[edit].bare for edit in edits]
        return self.read([one.item for one in prompts], [one.at for one in prompts])


class Pool:
    """Texts that are read once, a few of which are drawn each time.

    Args:
        read: The texts.
        take: How many are drawn, at most.
        seed: Of the draws.
    """

    def __init__(self, read: Read, take: int, seed: int) -> None:
        self.read, self.take = read, take
        self._draw = torch.Generator().manual_seed(seed)

    def drawn(self) -> Read:
        """Some of the texts, other ones in every call."""
        count = len(self.read.ends)
        if count <= self.take:
            return self.read
        some = torch.randperm(count, generator=self._draw)[: self.take]
        return self.read.of(some.to(self.read.ends.device))
