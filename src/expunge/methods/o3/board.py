"""The adapter of a whole model: how it gets into the forward pass, row by row, and out again."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.engine.covered import COVERS, covers
from expunge.engine.runtime import Attached, Part
from expunge.engine.weighted import Begin, Weighted, linears_of
from expunge.lm.low_rank import Dropout, LowRank, overlap
from expunge.methods.o3.detector import Detector
from expunge.methods.o3.reading import kept, opened, read_source
from expunge.requests.rows import Row

NAME = "o3"
"""The module's name in a model that is being trained; a served one has it in its hooks alone."""


class Board(Weighted):
    """The adapter with the detectors of all requests so far.

    Args:
        linears: Name of a linear of the model -> what stands beside it.
        detectors: One for each request, the oldest first.
        snapshots: What A was after each earlier request, in the order of ``linears``.
        learns: Whether it is being trained: while gradients are taken every row gets all of it.
        earlier: The board in whose place it is being trained, if there is one.
    """

    def __init__(
        self,
        linears: Mapping[str, LowRank],
        detectors: Sequence[Detector],
        snapshots: Sequence[Sequence[Tensor]] = (),
        *,
        learns: bool,
        earlier: "Board | None" = None,
    ) -> None:
        super().__init__(linears, owner=NAME, learns=learns)
        self._place_of = (earlier,)  # in a tuple, so that its weights do not count as this one's
        self.detectors = tuple(detectors)
        self.snapshots = tuple(tuple(one) for one in snapshots)

    @property
    def earlier(self) -> "Board | None":
        """The board in whose place it is being trained."""
        return self._place_of[0]

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n], the largest weight that any detector gives each prompt."""
        with torch.no_grad():
            weights: Tensor = torch.stack([one(prompts) for one in self.detectors]).amax(0)
        return weights

    def orthogonal(self) -> Tensor | None:
        """``sum_s sum_linears || A_s A^T ||_F^2``; None at the first request."""
        if not self.snapshots:
            return None
        terms = [
            overlap(part.a, earlier)
            for snapshot in self.snapshots
            for part, earlier in zip(self.all, snapshot, strict=True)
        ]
        return torch.stack(terms).sum()

    def take_out(self, model: nn.Module) -> None:
        """Leave the model as it was before."""
        super().take_out(model)
        if getattr(model, NAME, None) is self:
            delattr(model, NAME)

    def part(self, rows: Sequence[Row] = (), seed: int = 0) -> Part:
        """The adapter as it is now and the latest detector, for the change.

        Args:
            rows: Of the latest request.
            seed: Of the run.
        """
        tensors: dict[str, Tensor] = {}
        for place, one in enumerate(self.all):
            tensors |= {f"{place}.a": one.a, f"{place}.b": one.b}
        latest = self.detectors[-1]
        tensors |= {f"detector.{name}": tensor for name, tensor in latest.tensors.items()}
        source, words = kept(latest.encoder.source)
        tensors |= words
        settings = {
            "linears": list(self.names),
            "rank": len(self.all[0].a),
            "scale": self.all[0].scale,
            "requests": len(self.detectors),
            "encoder": source,
            "detector": latest.settings,
            COVERS: covers(rows, seed),
        }
        copied = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        moves = sum(int(one.b.count_nonzero()) for one in self.all)
        return Part(settings=settings, tensors=copied, moves=moves)

    @classmethod
    def of(cls, model: PreTrainedModel, part: Part, earlier: "Board | None") -> "Board":
        """The adapter of a change, for the model it was trained for.

        Args:
            model: The model.
            part: What `part` gave.
            earlier: The board of the requests before, which this one continues.

        Raises:
            ValueError: When it does not fit the model, or those requests.
        """
        told, tensors = part.settings, part.tensors
        linears = linears_of(model, told, tensors)
        known = 0 if earlier is None else len(earlier.detectors)
        if int(told["requests"]) != known + 1 or (earlier and earlier.names != tuple(linears)):
            raise ValueError(f"request {told['requests']} after {known} others")
        encoder, _ = opened(read_source(told["encoder"], tensors), model, before(earlier))
        own = {n[9:]: tensor for n, tensor in tensors.items() if n.startswith("detector.")}
        detector = Detector.read(encoder, told["detector"], own)
        board = cls(linears, [*before(earlier), detector], snapshots(earlier), learns=False)
        return board.requires_grad_(False)


def before(board: Board | None) -> Sequence[Detector]:
    """The detectors of the requests so far."""
    return () if board is None else board.detectors


def snapshots(board: Board | None) -> Sequence[Sequence[Tensor]]:
    """What A was after each of them."""
    if board is None:
        return ()
    return (*board.snapshots, tuple(one.a.detach().clone() for one in board.all))


def board_of(model: PreTrainedModel) -> Board | None:
    """The board a model is trained or served with, if it has one."""
    hooks = cast(Any, model).get_decoder()._forward_pre_hooks.values()
    boards = (hook.board for hook in hooks if isinstance(hook, Begin))
    return next((board for board in boards if isinstance(board, Board)), None)


class Continued(Attached):
    """A board in the place of the one it continues; taken out, it gives the place back.

    Args:
        model: The model.
        board: Goes in.
        earlier: Comes out.
    """

    def __init__(self, model: PreTrainedModel, board: Board, earlier: Board | None) -> None:
        self._model, self._board, self._earlier = model, board, earlier
        if earlier is not None:
            earlier.take_out(model)
        super().__init__(board.put_in(model))

    def remove(self) -> None:
        """Take the part out again."""
        self._board.take_out(self._model)
        if self._earlier is not None:
            self._earlier.put_in(self._model)
            self._earlier = None


class Dropping:
    """Forward passes inside drop channels; to be given to `View.changed`.

    Args:
        dropout: Which.

    Attributes:
        board: That of the model, if it has one.
    """

    def __init__(self, dropout: Dropout | None) -> None:
        self._dropout = dropout
        self.board: Board | None = None

    @contextmanager
    def __call__(self, model: Any) -> Iterator[None]:
        """The context for one model."""
        found = getattr(model, NAME, None)
        self.board = found if isinstance(found, Board) else None
        if self.board is not None:
            self.board.dropout = self._dropout
        try:
            yield
        finally:
            if self.board is not None:
                self.board.dropout = None
