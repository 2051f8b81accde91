"""Selection: which forget rows take part, how much each weighs, and which of its tokens count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from expunge.core.families import GradientParams
from expunge.engine.task import Ranges, Task


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the forget rows is trained on.

    Measured, and compared with the stop level, are all forget rows whatever is selected: they are
    what was asked to be forgotten.

    Attributes:
        forget: Indices of the forget rows that take part, in order.
        weights: For each of them how much it weighs: the gradient that flows into a row from a loss
            is multiplied by it, also on the views beside the row. For a loss that is a sum over
            rows the row's gradient is scaled by exactly that. The values of loss terms that are
            reported stay unweighted. None weighs every row 1.
        tokens: Row index -> for each of its wordings (its own content, then its paraphrases) the
            character ranges of the completion that are trained on, as in ``Row.spans``. Rows that
            are absent train on what they say themselves.
        match_steps: Whether the run is as long as one over all forget rows would be.
    """

    forget: Sequence[int]
    weights: Sequence[float] | None = None
    tokens: Mapping[int, Sequence[Ranges]] | None = None
    match_steps: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained on.

        Raises:
            ValueError: When nothing is selected, or weights are not one finite number of at least
                0 for each selected row, some above 0.
        """
        if not self.forget:
            raise ValueError("a selection needs at least one forget row")
        if self.weights is None:
            return
        if len(self.weights) != len(self.forget):
            raise ValueError(f"{len(self.weights)} weights for {len(self.forget)} forget rows")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or not any(self.weights):
            raise ValueError("weights must be finite, at least 0, and not all 0")


def everything(task: Task, params: GradientParams) -> Selection:
    """The default: all forget rows."""
    return Selection(range(len(task.forget)))


def applied(task: Task, selection: Selection) -> Task:
    """The task that is trained on: its forget rows are the selected ones, in their order."""
    tokens = selection.tokens or {}
    return replace(
        task,
        roles={**task.roles, "forget": [task.forget[index] for index in selection.forget]},
        weights=selection.weights,
        tokens={at: tokens[row] for at, row in enumerate(selection.forget) if row in tokens},
    )


SHARED = {"all": everything}
