"""Decisions of a model of this process."""

import copy
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciders.questions import (
    OPTIONS,
    QUESTION,
    checked,
    choice,
    levels_named,
    normal,
    noul,
    score,
)

if TYPE_CHECKING:
    from expunge.lm.subject import Subject


class Local:
    """Decisions of a model of this process, by the next-token logits of the options' labels.

    `DecisionPipeline` of transformers asks, with a tokenizer of its own, since it adds tokens to
    the one it is given; what looks like a control token in a text is written as plain text. The
    text stands as a JSON value before the question.

    Args:
        subject: A chat model; it is asked past its gate.

    Raises:
        ExpungeError: ``E-MODEL-006`` without a chat template, ``E-SERVE-003`` when the labels are
            not single tokens for this model.
    """

    def __init__(self, subject: "Subject") -> None:
        from transformers import DecisionConfig
        from transformers.pipelines.decision import DecisionPipeline

        if not subject.encoder.has_template:
            raise ExpungeError(
                "E-MODEL-006",
                "A model without a chat template, to decide typed questions.",
                "a chat model.",
                "Take an instruction-tuned model, or a server that decides.",
            )
        self._model, self._lock = subject.model, Lock()
        self._room = subject.encoder.max_length
        self._pipe: Any = DecisionPipeline(
            model=subject.model,
            tokenizer=copy.deepcopy(subject.tokenizer),
            decision_config=DecisionConfig(),
            device=subject.model.device,
        )
        self._check_labels()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Local":
        return self  # a model that is copied takes its guards along, and they ask the same one

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return float(self._asked(state, noul(question))["noul"])

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        if len(checked(options)) == 1:
            return [1.0]
        told = self._asked(state, choice(question, options))["probabilities"]
        return normal([told[option] for option in options])

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        told = self._asked(state, score(question, levels_named(levels)))["probabilities"]
        return normal([told[str(level)] for level in range(levels)])

    def _asked(self, state: str, question: Mapping[str, Any]) -> Any:
        from expunge.lm.hooks import evaluating

        request = {"state": {"text": state}, "questions": {QUESTION: question}}
        inputs = self._pipe.preprocess(request)
        longest = max(given["input_ids"].shape[-1] for given, _ in inputs["prompts"])
        if longest > self._room:
            raise ExpungeError(
                "E-SERVE-001",
                f"A question of {longest} tokens to a model with {self._room} positions.",
                "a question that fits.",
                "Take a model with more positions to decide.",
            )
        with self._lock, evaluating(self._model):
            return self._pipe.postprocess(self._pipe.forward(inputs))[QUESTION]

    def _check_labels(self) -> None:
        letters = tuple(chr(ord("A") + n) for n in range(OPTIONS))
        try:
            for labels in (("Yes", "No"), letters):
                self._pipe.label_token_ids(labels)
        except ValueError as error:
            raise ExpungeError(
                "E-SERVE-003",
                "A model whose tokenizer cuts Yes, No or a capital letter into several tokens, "
                "to decide typed questions.",
                "a model for which each of them is one token.",
                "Take another model, or a server that decides.",
            ) from error
