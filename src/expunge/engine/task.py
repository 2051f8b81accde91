"""A request made concrete: one model, the rows by role, a seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from expunge.data.encode import Encoder
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    encoder: Encoder
    roles: Mapping[str, Sequence[Row]]
    seed: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def forget(self) -> Sequence[Row]:
        """The rows to be forgotten."""
        return self.roles["forget"]

    @property
    def retain(self) -> Sequence[Row]:
        """The rows to be kept; may be empty."""
        return self.roles.get("retain", ())
