"""Other models that have a say in the logits of a model: what they read, and how they are heard.

    logits = rule( logits of the model, { name of a voice: its logits } )

A *voice* is a model with the same vocabulary that reads the same tokens. Its keys and values lie in
the caller's own cache, behind the layers of the model (`expunge.engine.first_pass`): whatever
repeats, picks or drops rows of that cache does the same to them. It speaks where the model does:
only at positions that logits are asked for.

While a method is trained, the ensemble stands in the model under `NAME`, with what of the voices
moves as its parameters. In a model that is served, it is in the hooks alone.

Logits that were made of hidden states handed in from outside, for which no block ran, are left as
they are: of which tokens they speak, nobody knows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from expunge.engine.first_pass import Asked, FirstPass, asked_of, tokens_of
from expunge.lm.arch import Slots
from expunge.lm.scoring import at_least_float32

NAME = "ensemble"
"""The module's name in a model that is being trained."""

KEEP = "logits_to_keep"


class Rule(Protocol):
    """How logits are mixed; an object that can be copied, not a closure."""

    @property
    def is_silent(self) -> bool:
        """Whether the model says what it would say alone; no voice is then asked."""
        ...

    def __call__(self, own: Tensor, said: Mapping[str, Tensor], /) -> Tensor:
        """[..., V], at least float32 like all it is given."""
        ...


@dataclass(frozen=True, slots=True)
class _Running:
    """A forward pass whose blocks run; the type that products are taken in, if not their own."""

    autocast: torch.dtype | None


class Ensemble(nn.Module):
    """Voices beside a model, and the rule by which they are heard.

    Args:
        model: Whose logits it is about.
        voices: The other models, in evaluation mode.
        rule: Mixes the logits.
        own: Modules whose weights are the ensemble's: what moves, and what is to be held in the
            precision of that. Weights that are the model's as well are not among them.
        learns: Names of the voices that gradients flow into, where any are taken.

    Raises:
        ValueError: When a voice has another vocabulary.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        voices: Mapping[str, PreTrainedModel],
        rule: Rule,
        *,
        own: Mapping[str, nn.Module] | None = None,
        learns: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.own = nn.ModuleDict(dict(own or {}))
        self.rule, self.learns = rule, frozenset(learns)
        self.running: _Running | None = None
        self._handles: list[RemovableHandle] = []
        for name, voice in voices.items():
            if _vocabulary(voice) != _vocabulary(model):
                raise ValueError(
                    f"{name} speaks of {_vocabulary(voice)} tokens, the model of "
                    f"{_vocabulary(model)}"
                )
        # In a tuple, so that weights they share with the model are not taken for the ensemble's.
        self._voices = ({name: (one, FirstPass(model, one)) for name, one in voices.items()},)

    def voice(self, name: str) -> PreTrainedModel:
        """One of the other models."""
        return self._voices[0][name][0]

    def put_in(self, model: PreTrainedModel, *, named: bool = False) -> list[RemovableHandle]:
        """Hook the ensemble into the model it was made for.

        Args:
            model: The model.
            named: Whether it is to stand there as a module as well, for its weights to be trained.
        """
        first = Slots(model).blocks[0]
        self._handles = [
            model.register_forward_pre_hook(_Begin(self)),
            first.register_forward_hook(_Run(self)),
            model.register_forward_hook(_End(self), with_kwargs=True),
        ]
        if named:
            model.add_module(NAME, self)
        return self._handles

    def take_out(self, model: nn.Module) -> None:
        """Leave the model as it was before."""
        for handle in self._handles:
            handle.remove()
        delattr(model, NAME)

    @property
    def is_silent(self) -> bool:
        """Whether the voices need not be asked; what learns is, or no gradient would reach it."""
        learning = bool(self.learns) and torch.is_grad_enabled()
        return self.rule.is_silent and not learning

    def mixed(self, own: Tensor, asked: Asked) -> Tensor:
        """Logits of the model, mixed with those of the voices.

        Args:
            own: Its own.
            asked: What it was asked, with the cache that it used.
        """
        said = {name: at_least_float32(self._said(name, asked)) for name in self._voices[0]}
        return self.rule(at_least_float32(own), said)

    def _said(self, name: str, asked: Asked) -> Tensor:
        voice, first = self._voices[0][name]
        options = {KEEP: asked[KEEP]} if asked.get(KEEP) is not None else {}
        if torch.is_grad_enabled() and name in self.learns:
            if asked.get("past_key_values") is not None:
                raise RuntimeError("an assistant that learns reads whole rows, without a cache")
            return _logits(voice(**tokens_of(asked), **options, use_cache=False))
        return _logits(first(asked, **options)[0])


def ensemble_of(model: Any) -> Ensemble | None:
    """The ensemble a model is trained with, if it has one."""
    found = getattr(model, NAME, None)
    return found if isinstance(found, Ensemble) else None


@dataclass(frozen=True, slots=True)
class _Begin:
    """Before the model runs: nothing is known of this pass."""

    ensemble: Ensemble

    def __call__(self, *_: Any) -> None:
        self.ensemble.running = None


@dataclass(frozen=True, slots=True)
class _Run:
    """After its first block ran: the pass is about tokens, in this precision."""

    ensemble: Ensemble

    def __call__(self, block: nn.Module, *_: Any) -> None:
        device = next(block.parameters()).device.type
        is_cast = torch.is_autocast_enabled(device)
        self.ensemble.running = _Running(torch.get_autocast_dtype(device) if is_cast else None)


@dataclass(frozen=True, slots=True)
class _End:
    """After the model ran: let the voices read the same, and mix."""

    ensemble: Ensemble

    def __call__(self, model: Any, given: tuple[Any, ...], named: Asked, output: Any) -> Any:
        running, self.ensemble.running = self.ensemble.running, None
        if running is None or self.ensemble.is_silent:
            return output
        if not isinstance(output, ModelOutput):
            raise RuntimeError("a model with assistants gives outputs by name (return_dict=True)")
        asked = asked_of(model, given, named) | {"past_key_values": output.get("past_key_values")}
        cast = running.autocast
        own = _logits(output)
        with torch.autocast(own.device.type, dtype=cast, enabled=cast is not None):
            mixed = self.ensemble.mixed(own, asked)
        if asked.get("labels") is not None and output.get("loss") is not None:
            size = model.config.get_text_config().vocab_size
            output["loss"] = model.loss_function(mixed, asked["labels"], size)
        output["logits"] = mixed
        return output


def _logits(output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)
