"""Selection: which forget rows take part, and how much each weighs."""

from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core.params import GradientParams
from expunge.engine.task import Task


@dataclass(frozen=True, slots=True)
class Selection:
    """Indices of the forget rows that take part, in order."""

    forget: Sequence[int]


def everything(task: Task, params: GradientParams) -> Selection:
    """The default: all forget rows."""
    return Selection(range(len(task.forget)))


SHARED = {"all": everything}
