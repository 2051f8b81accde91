"""The helper at work in a model: which rows hear it, and how what it says is taken away."""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.generic import ModelOutput

from expunge.core.errors import ExpungeError
from expunge.engine.decisions import Held, came_before
from expunge.engine.first_pass import Asked, FirstPass, asked_of
from expunge.engine.guarding.desk import Desk
from expunge.engine.guarding.heard import Listener
from expunge.engine.guarding.helped import read, waiting
from expunge.engine.guarding.inside import hits_of
from expunge.engine.guarding.passing import Board
from expunge.engine.small_models import built
from expunge.lm.difference import difference
from expunge.lm.scoring import at_least_float32

if TYPE_CHECKING:
    from expunge.guards.uld_serve import Params

GUARD, METHOD, ASSISTANT = "uld-serve", "uld", "assistant"

KEEP = "logits_to_keep"

NEWEST = 2
"""Helpers that are held: the one at work, and the one before it, by which rows that began with it
are written to their end."""

_HEARD: ContextVar[Mapping[int, Tensor]] = ContextVar("what rows hear")
"""Board -> [B, 1] or [1, T], which helper each row of the running pass of this thread hears."""


class Voice(Board):
    """The helper beside a model.

    What is decided of a row is the number of the helper it hears, from 1; 0 for none. A row goes on
    with the helper it began with, whatever becomes of the targets meanwhile.

    Args:
        model: What it stands beside.
        tokenizer: The model's.
        desk: The guard's; looked at anew for every row.
    """

    name = GUARD

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, desk: Desk
    ) -> None:
        self._model, self._desk, self._listener = model, desk, Listener(tokenizer)
        self._params: Params = desk.params
        self._helpers: dict[int, FirstPass] = {}
        self._made_of: Mapping[str, Any] | None = None
        self._latest, self._lock = 0, Lock()

    @property
    def is_silent(self) -> bool:
        """Whether the model says what it would say alone."""
        return self._params.weight == 0 and self._params.top == 0

    def put_in(self, model: PreTrainedModel) -> list[RemovableHandle]:
        """Hook the helper in beside a model."""
        return [
            model.register_forward_pre_hook(_check_begun, with_kwargs=True),
            *super().put_in(model),
            model.register_forward_hook(_Take(self), with_kwargs=True),
        ]

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n, 1], the helper each prompt is to hear.

        Raises:
            RuntimeError: Where one is about a target that no helper knows yet.
        """
        found = torch.zeros(len(prompts), 1)
        for at, ids in enumerate(prompts):
            hits = hits_of(ids, self._listener.hear(ids).texts, self._desk)
            if hits and not self.is_silent:
                if waiting(self._desk, hits):
                    raise RuntimeError("a target was taken in, and no helper knows it yet")
                found[at] = self._newest()
        return found

    def begin(self, model: PreTrainedModel, asked: dict[str, Any], now: Held) -> dict[str, Any]:
        """Remember for the end of the pass who hears what."""
        _HEARD.set({**_HEARD.get({}), id(self): now.told[:, 0][now.row]})
        return asked

    def taken(self, asked: Asked, own: Tensor) -> Tensor | None:
        """The logits with what the helper says taken away; None where nobody hears it.

        Args:
            asked: What the model was asked, with the cache that it used.
            own: Its logits.
        """
        heard = _HEARD.get({}).get(id(self))
        _HEARD.set({key: one for key, one in _HEARD.get({}).items() if key != id(self)})
        if heard is None:
            raise RuntimeError("the head of the model ran by itself: nothing was decided for it")
        numbers = sorted(set(heard.flatten().tolist()))
        if not any(numbers):
            return None
        rows, mixed = spread(heard, asked.get(KEEP), own), at_least_float32(own)
        options = {KEEP: asked[KEEP]} if asked.get(KEEP) is not None else {}
        for number in filter(None, map(int, numbers)):
            said = self._helper(number)(asked, **options)[0].logits
            fresh = difference(own, said, self._params.weight, self._params.top)
            mixed = torch.where(rows == number, fresh, mixed)
        return mixed

    def _newest(self) -> int:
        """Number of the helper that is made of what the desk holds."""
        with self._lock:
            if self._made_of is not self._desk.shared:
                made_of = self._desk.shared
                (part,) = read(self._desk, GUARD, METHOD)[-1:] or (None,)
                if part is None:
                    raise RuntimeError("a target fires, and there is no helper")
                small = built(part.settings[ASSISTANT], part.tensors, self._model)
                check_words(small, self._model)
                self._latest += 1
                self._helpers[self._latest] = FirstPass(self._model, small)
                self._helpers.pop(self._latest - NEWEST, None)
                self._made_of = made_of
            return self._latest

    def _helper(self, number: int) -> FirstPass:
        found = self._helpers.get(number)
        if found is None:
            raise RuntimeError("rows that began with a helper that is gone")
        return found


@dataclass(frozen=True, slots=True)
class _Take:
    """After the model ran: take away what the helper says."""

    board: Voice

    def __call__(self, model: Any, given: tuple[Any, ...], named: Asked, output: Any) -> Any:
        if not isinstance(output, ModelOutput):
            raise RuntimeError("a model with a helper gives outputs by name (return_dict=True)")
        asked = asked_of(model, given, named) | {"past_key_values": output.get("past_key_values")}
        mixed = self.board.taken(asked, output["logits"])
        if mixed is None:
            return output
        if asked.get("labels") is not None and output.get("loss") is not None:
            size = model.config.get_text_config().vocab_size
            output["loss"] = model.loss_function(mixed, asked["labels"], size)
        output["logits"] = mixed
        return output


def spread(heard: Tensor, keep: Any, logits: Tensor) -> Tensor:
    """What rows hear, in a shape that fits their logits.

    Args:
        heard: [B, 1], or [1, T] where rows stand end to end.
        keep: Where logits were wanted: a number of last positions, places, a mask, or None.
        logits: [B, K, V], or [N, V] where a mask was given.

    Returns:
        [B, 1, 1], [1, K, 1] or [N, 1].
    """
    if isinstance(keep, Tensor) and keep.dtype == torch.bool and keep.dim() == 2:
        return heard.expand(keep.shape)[keep][:, None]
    if heard.shape[1] == 1:
        return heard[..., None]
    if isinstance(keep, Tensor):
        at = keep if keep.dim() == 1 else keep[0]
        return heard[:, at][..., None]
    return heard[:, -logits.shape[1] :, None]


def check_words(small: PreTrainedModel, model: PreTrainedModel) -> None:
    """Refuse a helper with another vocabulary.

    Raises:
        ExpungeError: ``E-MODEL-011``.
    """
    sizes = [one.config.get_text_config().vocab_size for one in (small, model)]
    if sizes[0] != sizes[1]:
        raise ExpungeError(
            "E-MODEL-011",
            f"The helper gives logits of {sizes[0]} tokens, the model of {sizes[1]}.",
            "a helper with the vocabulary of the model.",
            "Make the change for this model.",
        )


def _check_begun(model: nn.Module, given: tuple[Any, ...], named: Asked) -> None:
    """A pre-hook: refuse rows that go on from keys and values of before the guard was there.

    Raises:
        RuntimeError: For such rows: what they are about, nobody knows.
    """
    if came_before(asked_of(model, given, named), GUARD):
        raise RuntimeError("keys and values that were made before anything was decided")
