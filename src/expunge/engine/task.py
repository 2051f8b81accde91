"""A request made concrete: one model, the rows by role, a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.families import GradientParams
from expunge.data.encode import Encoder
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.world import World


@dataclass(frozen=True, slots=True)
class Preface:
    """Text in front of a row that is otherwise left as it is.

    The very same tokens stay supervised, so predictions with and without it can be compared.

    Attributes:
        text: What stands in front.
    """

    text: str


Ranges = Sequence[tuple[int, int]]
"""Character ranges of a completion, first inclusive, last exclusive."""


@dataclass(frozen=True, slots=True)
class Paired:
    """A view made from the rows of a role: to each row, drawn in one of its wordings, candidates.

    Which candidates a draw takes is a pure function of seed, row and epoch, unless the sampler
    names them in ``Draw.rows[view]``.

    Attributes:
        make: (row, which of its wordings, which candidate) -> what stands beside it; a `Preface`
            stands for the row itself after more context.
        count: Candidates of each row.
        beside: The role whose rows it follows.
        take: Different candidates taken at a time; the view then has as many rows for each.
        fixed: Whether a row gets the same candidates in every epoch.
    """

    make: Callable[[Row, int, int], Turn | Preface]
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
        tensors: What of that state are tensors; saved with every checkpoint as well.
        carry: What the requests before this one handed on, in a stream of requests, and what this
            one hands on to the next: plain JSON values, kept in ``change.json``.
        paired: View name -> what a method put beside its rows (in ``prepare``).
        params: The method's parameters, for what is wrapped around it.
        method: Its id, likewise.
        weights: How much each forget row weighs in the gradient; None weighs each 1.
        tokens: Forget row -> for each of its wordings the parts that are trained on; where one
            is absent it is what the row itself says.
        folder: Where `expunge.engine.made` keeps what a method wrote itself; None keeps nothing.
        earlier: The same folder of the change that this run goes on from, if it goes on from one.
        world: The processes that train together; None is this one alone.
        record: What ``prepare`` wants told in the manifest; numbers and words also stand in the
            summary.
        added: Tokens that a method added to the model, and their ids; see
            `expunge.engine.vocabulary`.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    roles: Mapping[str, Sequence[Row]]
    seed: int = 0
    state: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, "Tensor"] = field(default_factory=dict)
    carry: dict[str, Any] = field(default_factory=dict)
    paired: dict[str, Paired] = field(default_factory=dict)
    params: GradientParams = field(default_factory=GradientParams)
    method: str = ""
    weights: Sequence[float] | None = None
    tokens: Mapping[int, Sequence[Ranges]] = field(default_factory=dict)
    folder: Path | None = None
    earlier: Path | None = None
    world: "World | None" = None
    record: dict[str, Any] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    @property
    def forget(self) -> Sequence[Row]:
        """The rows to be forgotten."""
        return self.roles["forget"]

    @property
    def retain(self) -> Sequence[Row]:
        """The rows to be kept; may be empty."""
        return self.roles.get("retain", ())
