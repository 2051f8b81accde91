"""A model as metrics and attacks see it: something to ask, to score, and to copy."""

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.data.encode import Encoded, Encoder, by_length, collate
from expunge.lm.arch import positions_of
from expunge.lm.digest import model_digest
from expunge.lm.finetune import finetune
from expunge.lm.generate import generate
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import packed_logp, padding_id
from expunge.requests.rows import Row, Turn

Spans = Sequence[tuple[int, int]]
Editing = Callable[[nn.Module], AbstractContextManager[Any]]
"""Makes the context in which the model is changed while it writes."""


class Gate(Protocol):
    """What stands in front of a model instead of in its weights."""

    def before(self, turn: Turn) -> str | None:
        """A reply instead of the model's, or None to let the model answer."""

    def after(self, turn: Turn, text: str) -> str:
        """What the user gets to see of the model's answer."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the supervised tokens of one answer.

    Attributes:
        logp: [n], log-probabilities in nats.
        hit: [n], whether each is the most probable token.
        spans: [n], character range of each token inside the completion.
        ends: Whether the last token is the end of the answer rather than text.
    """

    logp: npt.NDArray[np.float64]
    hit: npt.NDArray[np.bool_]
    spans: Spans
    ends: bool

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of a token in nats, the ending token included."""
        return float(-self.logp.mean())

    @property
    def text_tokens(self) -> int:
        """Number of tokens without the ending one."""
        return len(self.logp) - self.ends

    def within(self, start: int, end: int) -> npt.NDArray[np.bool_]:
        """Which tokens overlap the characters from ``start`` up to ``end``; the end never does."""
        return np.array([a < b and a < end and b > start for a, b in self.spans], dtype=bool)


class Subject:
    """A model with its tokenizer and whatever gate stands in front of it.

    Nothing here changes the model, except `train`, which only a copy allows.

    Attributes:
        model: In evaluation mode while it is asked or scored.
        tokenizer: Its tokenizer.
        encoder: Turns into token ids.
        batch_size: Rows of one forward pass.
        gate: What stands in front of the model, or None. Scores go past it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        digest: str | None = None,
        batch_size: int = 32,
        gate: Gate | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.encoder = Encoder(tokenizer, positions_of(model))
        self.batch_size, self.gate = batch_size, gate
        self._digest = digest
        self._is_copy = False

    @property
    def digest(self) -> str:
        """Names the weights; that of a copy is taken anew, since a copy may be changed."""
        return model_digest(self.model) if self._digest is None else self._digest

    def ask(
        self,
        turns: Sequence[Turn],
        *,
        new_tokens: int = 24,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        openings: Sequence[str] | None = None,
        edit: Editing | None = None,
    ) -> list[list[str]]:
        """Let the model answer.

        Args:
            turns: What to ask; completions are not looked at.
            new_tokens: Longest answer, in tokens.
            samples: Answers to each turn.
            temperature: 0 answers greedily; above, from the whole distribution.
            seed: Decides the samples, and only this does.
            openings: Forced beginning of each answer.
            edit: Makes the context in which the model is changed while it writes.

        Returns:
            For each turn its answers, without the opening.
        """
        opened = openings or [""] * len(turns)
        blocked = [self.gate.before(turn) if self.gate else None for turn in turns]
        answers = [[reply or ""] * samples for reply in blocked]
        asked = [i for i, reply in enumerate(blocked) if reply is None]
        prompts = [self.encoder.prompt(turns[i].prompt, turns[i].running, opened[i]) for i in asked]
        with edit(self.model) if edit else nullcontext():
            written = generate(
                self.model,
                self.tokenizer,
                prompts,
                new_tokens=new_tokens,
                samples=samples,
                temperature=temperature,
                seed=seed,
                batch_size=self.batch_size,
            )
        for i, continuations in zip(asked, written, strict=True):
            texts = [self.encoder.decode(ids) for ids in continuations]
            answers[i] = [self._after(turns[i], text) for text in texts]
        return answers

    def score(self, turns: Sequence[Turn], keep: Sequence[Spans] | None = None) -> list[Scored]:
        """Score the completion of each turn, token by token.

        Args:
            turns: Prompts with the completions to score.
            keep: For each turn the character ranges of the completion to score; default all.

        Returns:
            The scores, in the order of ``turns``.
        """
        kept = keep or [()] * len(turns)
        items = [
            self.encoder.encode(turn, keep=ranges) for turn, ranges in zip(turns, kept, strict=True)
        ]
        scores: list[Scored | None] = [None] * len(items)
        with evaluating(self.model):
            for batch in by_length([len(item.ids) for item in items], self.batch_size):
                chosen = [items[i] for i in batch]
                for i, scored in zip(batch, self._score(chosen), strict=True):
                    scores[i] = scored
        return [scored for scored in scores if scored is not None]

    def copy(self) -> "Subject":
        """A deep copy, for attacks that train or quantise; the gate comes along."""
        twin = Subject(
            copy.deepcopy(self.model), self.tokenizer, batch_size=self.batch_size, gate=self.gate
        )
        twin._is_copy = True
        return twin

    def train(
        self,
        rows: Sequence[Row],
        *,
        steps: int,
        lr: float,
        batch_size: int,
        seed: int,
        checkpoints: Collection[int] = (),
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        """Fine-tune a copy in place: AdamW on the answers, constant rate, no decay.

        Args:
            rows: What to train on.
            steps: Optimiser steps.
            lr: Learning rate.
            batch_size: Rows of one step.
            seed: Decides the order of the rows.
            checkpoints: Steps at which to call ``on_step``; 0 is before the first.
            on_step: Called with the number of the step.

        Raises:
            RuntimeError: When this subject is not a copy.
        """
        if not self._is_copy:
            raise RuntimeError("only a copy may be trained: call copy() first")

        def report(step: int) -> None:
            if on_step is not None and step in checkpoints:
                on_step(step)

        report(0)
        finetune(
            self.model,
            self.tokenizer,
            rows,
            steps=steps,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            schedule="constant",
            warmup=0.0,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            on_step=report,
        )

    def _after(self, turn: Turn, text: str) -> str:
        return self.gate.after(turn, text) if self.gate else text

    def _score(self, items: Sequence[Encoded]) -> list[Scored]:
        batch = collate(items, padding_id(self.tokenizer))
        packed = packed_logp(self.model, batch)
        ends = np.cumsum([len(item.spans) for item in items])[:-1]
        logps = np.split(packed.logp.double().cpu().numpy(), ends)
        hits = np.split(packed.hit.cpu().numpy(), ends)
        return [
            Scored(logp, hit, item.spans, bool(item.spans) and _is_end(item.spans[-1]))
            for item, logp, hit in zip(items, logps, hits, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What an attack may use besides the model and the rows.

    Attributes:
        retain: Rows to be kept.
        neighbour: Rows close to the forgotten ones, to be kept.
        seed: All randomness of the attack derives from it.
        new_tokens: Longest answer, in tokens.
        original: The model before forgetting, where the attack's threat model has it.
    """

    retain: Sequence[Row]
    neighbour: Sequence[Row]
    seed: int
    new_tokens: int = 24
    original: Subject | None = None


def _is_end(span: tuple[int, int]) -> bool:
    return span[0] == span[1]
