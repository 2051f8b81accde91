"""The adapter in a served model, the two tokens in its tokenizer, and what is read past them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import ExpungeError
from expunge.engine.runtime import Attached
from expunge.guards.icku.beside import opened
from expunge.guards.icku.training import add_tokens
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.lens import lens
from expunge.lm.prefixes import reconsider
from expunge.lm.prompted import last_states
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn


class Inserted(Attached):
    """The adapter and the tokens; taken out, the tokenizer is as it was."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        told: Mapping[str, Any],
        arrays: Mapping[str, Any],
    ) -> None:
        board = opened(model, told, arrays)
        before = vars(copy.deepcopy(tokenizer))
        tokens = add_tokens(tokenizer)
        self._model, self._tokenizer, self._before = model, tokenizer, before
        if tuple(tokens) != board.tokens:
            self._give_back()
            raise ValueError(f"the tokens become {tokens}, they were {list(board.tokens)}")
        super().__init__(board.put_in(model))
        reconsider(model)

    def remove(self) -> None:
        """Take both out again."""
        super().remove()
        self._give_back()
        reconsider(self._model)

    def _give_back(self) -> None:
        vars(self._tokenizer).clear()
        vars(self._tokenizer).update(self._before)


def attached(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    told: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> Attached:
    """Put the adapter into a model, and the tokens into its tokenizer.

    Raises:
        ExpungeError: ``E-MODEL-002`` when it is not made for them.
    """
    try:
        return Inserted(model, tokenizer, told, arrays)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ExpungeError(
            "E-MODEL-002",
            f"The adapter of icku cannot be attached: {type(error).__name__}: {error}.",
            "what was trained for this model and its tokenizer.",
            "Fit the guard again, on this model.",
        ) from error


@torch.no_grad()
def lens_ranks(subject: Subject, prompts: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    """See `expunge.guards.icku.signature`."""
    turns = [Turn(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    items = [subject.encoder.encode(turn) for turn in turns]
    firsts = torch.tensor([next(one for one in item.labels if one >= 0) for item in items])
    asked = [subject.encoder.prompt(prompt) for prompt in prompts]
    layers = range(len(Slots(subject.model)))
    ranks = []
    with evaluating(subject.model):
        states = last_states(subject, asked, layers)
        for layer in layers:
            logits = lens(subject.model, states[layer])
            own = logits.gather(1, firsts.to(logits.device)[:, None])
            ranks.append((logits > own).sum(1).tolist())
    return [list(one) for one in zip(*ranks, strict=True)]
