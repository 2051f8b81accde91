"""A model as metrics and attacks see it: something to ask, to score, and to copy."""

import copy
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded, Encoder
from expunge.lm.arch import positions_of
from expunge.lm.digest import model_digest
from expunge.lm.finetune import finetune
from expunge.lm.generate import ROW, check_room, generate, stop_ids
from expunge.lm.hooks import evaluating
from expunge.lm.memory import Memory, key_of, stamp_of
from expunge.lm.prefixes import Room, TokenScores, score_all
from expunge.lm.scoring import padding_id
from expunge.lm.work import Tally, Work
from expunge.requests.rows import Row, Turn

SCORED_ROW = 64
"""Tokens a row of a scored batch stands for: about 2,048 a pass keep one core busiest."""

Spans = Sequence[tuple[int, int]]
Editing = Callable[[nn.Module], AbstractContextManager[Any]]
"""Makes the context in which the model is changed while it writes."""


class Gate(Protocol):
    """What stands in front of a model instead of in its weights.

    Attributes:
        reply: What is said where the model has no room for what it is to be asked instead.
    """

    reply: str

    def before(self, turn: Turn) -> str | Turn | None:
        """A reply instead of the model's, what to ask in the turn's place, or None for neither."""

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


@dataclass(frozen=True, slots=True)
class _Writing:
    """What is to be written."""

    prompts: Sequence[list[int]]
    new_tokens: int
    samples: int
    temperature: float
    seed: int
    begun: Sequence[list[int]] = ()


class _Answer(NamedTuple):
    """What is known of a greedy answer: how it begins, and whether it ends there."""

    ids: list[int]
    is_whole: bool

    def reaches(self, new_tokens: int) -> bool:
        """Whether it says what an answer of so many tokens would be."""
        return self.is_whole or len(self.ids) >= new_tokens


class Subject:
    """A model with its tokenizer and whatever gate stands in front of it.

    Nothing here changes the model, except `train`, which only a copy allows. Where the weights have
    a name (``digest``), greedy answers and scores are kept, so the same question costs nothing the
    second time; a weight that an optimiser has moved, or a hook, makes them void.

    Attributes:
        model: In evaluation mode while it is asked or scored.
        tokenizer: Its tokenizer.
        encoder: Turns into token ids.
        batch_size: Size of a forward pass, in rows of `SCORED_ROW` tokens when it scores and of
            `ROW` tokens when it writes; sampling and training count rows alone.
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
        self._memory, self._tally = Memory(), Tally()

    @property
    def digest(self) -> str:
        """Names the weights; that of a copy is taken anew, since a copy may be changed."""
        return model_digest(self.model) if self._digest is None else self._digest

    @property
    def work(self) -> Work:
        """What asking and scoring have cost so far; copies count for themselves."""
        return self._tally.work

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
        let = self.let_in(turns, new_tokens)
        answers = [[one] * samples if isinstance(one, str) else [] for one in let]
        asked = {i: one for i, one in enumerate(let) if isinstance(one, Turn)}
        prompts = [
            self.encoder.prompt(turn.prompt, turn.running, opened[i]) for i, turn in asked.items()
        ]
        writing = _Writing(prompts, new_tokens, samples, temperature, seed)
        if temperature == 0 and edit is None:
            written = self._recalled(writing)
        else:
            with edit(self.model) if edit else nullcontext():
                written = self._written(writing)
        for i, continuations in zip(asked, written, strict=True):
            texts = [self.encoder.decode(ids) for ids in continuations]
            answers[i] = [self._after(turns[i], text) for text in texts]
        return answers

    def let_in(self, turns: Sequence[Turn], new_tokens: int = 1) -> list[str | Turn]:
        """What the gate makes of turns: for each the reply it gives, or what the model is asked.

        Where there is a chat template the gate sees conversations, so that what it adds can stand
        in the system's role. What it makes too long for the model is answered by its reply.

        Args:
            turns: What is asked.
            new_tokens: Positions to be left for the answer.
        """
        if self.gate is None:
            return list(turns)
        told = self.encoder.has_template
        seen = [
            replace(turn, prompt=({"role": "user", "content": turn.prompt},))
            if told and isinstance(turn.prompt, str) and not turn.running
            else turn
            for turn in turns
        ]
        let: list[str | Turn] = []
        for turn, own in zip(turns, seen, strict=True):
            said = self.gate.before(own)
            if isinstance(said, Turn) and not self.has_room(said, new_tokens):
                said = self.gate.reply
            let.append(turn if said is None else said)
        return let

    def has_room(self, turn: Turn, new_tokens: int, *, opening: str = "") -> bool:
        """Whether the model has positions for a prompt and so many tokens after it."""
        try:
            ids = self.encoder.prompt(turn.prompt, turn.running, opening)
        except ExpungeError as error:
            if error.code != "E-DATA-011":
                raise
            return False
        return len(ids) + new_tokens <= self.encoder.max_length

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
        keys = [key_of("score", item.ids, item.labels) for item in items]
        memory = self._remembered()
        found = memory.recall(keys, lambda at: self._scores([items[i] for i in at], memory))
        return [
            Scored(logp, hit, item.spans, bool(item.spans) and _is_end(item.spans[-1]))
            for item, (logp, hit) in zip(items, found, strict=True)
        ]

    def copy(self) -> "Subject":
        """A deep copy, for attacks that train or quantise; the gate comes along.

        A model that was frozen as a whole to be looked at is free in the copy.
        """
        twin = Subject(
            copy.deepcopy(self.model), self.tokenizer, batch_size=self.batch_size, gate=self.gate
        )
        if not any(weight.requires_grad for weight in twin.model.parameters()):
            for weight in twin.model.parameters():
                weight.requires_grad_(weight.is_floating_point())
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

    def _remembered(self) -> Memory:
        """What is known of the model as it is now; only named weights are held to be fixed."""
        if self._digest is None:
            return Memory()
        return self._memory.valid_for(stamp_of(self.model))

    def _scores(self, items: Sequence[Encoded], memory: Memory) -> list[TokenScores]:
        room = Room(tokens=self.batch_size * SCORED_ROW, stored=self.batch_size * ROW)
        with evaluating(self.model), self._tally.watching(self.model):
            scores = score_all(self.model, items, padding_id(self.tokenizer), room)
        self._tally.add(scored=sum(len(one.logp) for one in scores))
        self._learn(items, scores, memory)
        return scores

    def _learn(
        self, items: Sequence[Encoded], scores: Sequence[TokenScores], memory: Memory
    ) -> None:
        """A scored text is the greedy answer up to its first miss; no need to write that again."""
        stops = stop_ids(self.model, self.tokenizer)
        for item, scored in zip(items, scores, strict=True):
            start = len(item.ids) - len(scored.hit)
            if item.labels[start:] != item.ids[start:]:
                continue  # not all tokens up to the end are supervised
            right = item.ids[start : start + int(scored.hit.cumprod().sum())]
            end = next((i for i, token in enumerate(right) if token in stops), None)
            key = key_of("answer", item.ids[:start], stops)
            if len(right[:end]) > len(self._begun(memory, key)):
                memory.keep({key: _Answer(right[:end], end is not None)})

    @staticmethod
    def _begun(memory: Memory, key: bytes) -> list[int]:
        known = memory.known(key)
        return known.ids if isinstance(known, _Answer) else []

    def _recalled(self, writing: "_Writing") -> list[list[list[int]]]:
        """Greedy answers; a longer one that is known answers a shorter request."""
        prompts, most = writing.prompts, writing.new_tokens
        check_room(prompts, most, positions_of(self.model))
        stops, memory = stop_ids(self.model, self.tokenizer), self._remembered()
        keys = [key_of("answer", prompt, stops) for prompt in prompts]

        def write(places: list[int]) -> list[_Answer]:
            begun = [self._begun(memory, keys[i]) for i in places]
            asked = replace(writing, prompts=[prompts[i] for i in places], begun=begun)
            return [_Answer(ids, len(ids) < most) for ids, *_ in self._written(asked)]

        answers = memory.recall(keys, write, lambda answer: answer.reaches(most))
        return [[answer.ids[:most]] * writing.samples for answer in answers]

    def _written(self, writing: "_Writing") -> list[list[list[int]]]:
        with self._tally.watching(self.model):
            written = generate(
                self.model,
                self.tokenizer,
                writing.prompts,
                new_tokens=writing.new_tokens,
                samples=writing.samples,
                temperature=writing.temperature,
                seed=writing.seed,
                batch_size=self.batch_size,
                begun=writing.begun,
            )
        known = writing.samples * sum(len(ids) for ids in writing.begun)
        self._tally.add(generated=sum(len(ids) for them in written for ids in them) - known)
        return written


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What an attack may use besides the model and the rows.

    Attributes:
        retain: Rows to be kept.
        neighbour: Rows close to the forgotten ones, to be kept.
        seed: All randomness of the attack derives from it.
        new_tokens: Longest answer, in tokens.
        original: The model before forgetting, where the attack's threat model has it.
        holdout: Rows of the kind of the forget rows that no model was trained on.
        reference: A model trained without the forget rows, where there is one.
        unlearn: Carries out a request on the original: rows to forget -> the changed model; for
            attacks on the process of forgetting. None where that process is not at hand.
    """

    retain: Sequence[Row]
    neighbour: Sequence[Row]
    seed: int
    new_tokens: int = 24
    original: Subject | None = None
    holdout: Sequence[Row] = ()
    reference: Subject | None = None
    unlearn: Callable[[Sequence[Row]], Subject] | None = None


def _is_end(span: tuple[int, int]) -> bool:
    return span[0] == span[1]
