"""A request made concrete: one model, the rows by role, a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expunge.data.encode import Encoder
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Paired:
    """A view made from the rows of a role: to each row, drawn in one of its wordings, candidates.

    Which candidates a draw takes is a pure function of seed, row and epoch, unless the sampler
    names them in ``Draw.rows[view]``.

    Attributes:
        make: (row, which of its wordings, which candidate) -> what stands beside it.
        count: Candidates of each row.
        beside: The role whose rows it follows.
        take: Different candidates taken at a time; the view then has as many rows for each.
        fixed: Whether a row gets the same candidates in every epoch.
    """

    make: Callable[[Row, int, int], Turn]
    count: int
    beside: str = "forget"
    take: int = 1
    fixed: bool = False


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method is given.

    Attributes:
        model: The model to change, at its start.
        tokenizer: Its tokenizer.
        encoder: Rows to token ids, chat template and boundary settled.
        roles: Role -> its rows (``forget`` is never empty).
        seed: All randomness of the run derives from it.
        state: A method's own state over the run; must be plain JSON values.
        paired: View name -> what a method put beside its rows (in ``prepare``).
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    roles: Mapping[str, Sequence[Row]]
    seed: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    paired: dict[str, Paired] = field(default_factory=dict)

    @property
    def forget(self) -> Sequence[Row]:
        """The rows to be forgotten."""
        return self.roles["forget"]

    @property
    def retain(self) -> Sequence[Row]:
        """The rows to be kept; may be empty."""
        return self.roles.get("retain", ())
