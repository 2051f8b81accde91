"""The corruption at work: which tokens of which rows, and what happens to their embeddings."""

import json
from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.rng import generator
from expunge.engine.decisions import Held
from expunge.engine.guarding.heard import Heard, Listener
from expunge.engine.guarding.passing import Board
from expunge.guards.eco.operators import corrupted
from expunge.requests.names import capitalised
from expunge.requests.personal import by_presidio
from expunge.text.normalise import words

if TYPE_CHECKING:
    from expunge.guards.eco import Params

SEED = 3
"""Numbers of 21 bits that a seed is kept in: single precision holds them exactly."""

BITS = 21

HEAD = SEED + 1
"""Numbers before those of the tokens: the seed, and whether people's names were found."""


class Corruption(Board):
    """Corrupts the prompts it fires on.

    What is decided of a row is its seed, whether its tokens are those of people's names, and for
    each token of the prompt its id + 1 where it is chosen, else 0. From this any later call knows
    what to do with the tokens of the prompt it is given, and leaves all others alone.

    Args:
        tokenizer: The model's.
        params: The guard's.
        secret: Key of the noise.
    """

    name = "eco"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, params: "Params", secret: bytes) -> None:
        self._listener, self._params, self._secret = Listener(tokenizer), params, secret

    @property
    @abstractmethod
    def mark(self) -> int:
        """Names the set of targets, by which noise is drawn."""

    @abstractmethod
    def fires(self, ids: Sequence[int], heard: Heard) -> bool:
        """Whether a prompt is to be corrupted."""

    @abstractmethod
    def sigma(self, width: int) -> "np.ndarray[Any, Any]":
        """[1] or [n], the strength, in a model with embeddings of this width."""

    def decide(self, prompts: Sequence[list[int]]) -> Tensor:
        """[n, HEAD + P]; see the class."""
        rows = [self._decided(prompt) for prompt in prompts]
        found = torch.zeros(len(rows), max((len(row) for row in rows), default=HEAD))
        for at, row in enumerate(rows):
            found[at, : len(row)] = torch.tensor(row, dtype=torch.float32)
        return found

    def _decided(self, ids: Sequence[int]) -> list[int]:
        heard = self._listener.hear(ids)
        if not self.fires(ids, heard):
            return [0] * HEAD
        named = heard.touching(people(heard.texts, self._params.finder))
        if self._params.tokens == "all" or not any(named):
            return [*self._seed(heard), 0, *(token + 1 for token in ids)]
        chosen = (token + 1 if own else 0 for token, own in zip(ids, named, strict=True))
        return [*self._seed(heard), 1, *chosen]

    def _seed(self, heard: Heard) -> list[int]:
        """Of the targets and the words of the prompt: asked again, it is the same noise."""
        said = json.dumps([self.mark, words(heard.dialogue)]).encode()
        drawn = blake2b(said, key=self._secret, digest_size=8, person=b"eco noise").digest()
        number = int.from_bytes(drawn, "big") >> 1
        return [number >> (BITS * part) & ((1 << BITS) - 1) for part in range(SEED)]

    def begin(self, model: PreTrainedModel, asked: dict[str, Any], now: Held) -> dict[str, Any]:
        """The call with corrupted embeddings; the call itself where there are none."""
        counts = self._counts(now)
        chosen = _chosen(now, counts)
        if not bool(chosen.any()):
            return asked
        embed = cast(Any, model).get_input_embeddings()
        given = asked.get("inputs_embeds")
        whole = (embed(asked["input_ids"]) if given is None else given).clone()
        row = now.row.expand_as(now.place)
        for one in sorted(set(row[chosen].tolist())):
            own = chosen & (row == one)
            codes = now.told[one, HEAD:][: int(counts[one])]
            rank = (codes > 0).cumsum(0) - 1
            every = embed((codes[codes > 0] - 1).long().to(whole.device))
            at = rank[now.place[own]]
            every = every.index_put((at,), whole[own])
            whole[own] = self._corrupted(every, now.told[one, :SEED].long().tolist())[at]
        rest = {name: value for name, value in asked.items() if name != "input_ids"}
        return {**rest, "inputs_embeds": whole}

    def _counts(self, now: Held) -> Tensor:
        """[R], how many tokens of each prompt may be chosen.

        All of them where they are those of names, else all but the last; the only one of a prompt
        of one token, if somebody said it.
        """
        if now.told.shape[1] <= HEAD:
            return torch.zeros_like(now.ends)
        special = torch.tensor(sorted(self._listener.special), device=now.told.device)
        is_said = ~torch.isin(now.told[:, HEAD].long() - 1, special)
        is_whole = (now.told[:, SEED] > 0) | ((now.ends == 1) & is_said)
        return torch.where(is_whole, now.ends, now.ends - 1)

    def _corrupted(self, e: Tensor, seed: Sequence[int]) -> Tensor:
        number = sum(part << (BITS * place) for place, part in enumerate(seed))
        params = self._params
        rng, sigma = generator(number, "eco"), self.sigma(e.shape[1])
        return corrupted(e, params.operator, rng, params.n, sigma)


def people(texts: Sequence[str], finder: str) -> list[str]:
    """Names of people in texts.

    Args:
        texts: The texts.
        finder: ``rules``: runs of two capitalised words and more; ``presidio``: its trained models.
    """
    if finder == "presidio":
        found = [detail for text in texts for detail in by_presidio(text)]
        return list(dict.fromkeys(one.value for one in found if one.kind == "name"))
    runs = [run for text in texts for run in capitalised(text) if len(run.split()) > 1]
    return list(dict.fromkeys(runs))


def _chosen(now: Held, counts: Tensor) -> Tensor:
    """[B, T] bool, tokens of prompts that are to be corrupted."""
    codes = now.told[:, HEAD:]
    if not codes.shape[1] or not bool(codes.any()):
        return torch.zeros_like(now.place, dtype=torch.bool)
    row = now.row.expand_as(now.place)
    is_prompt = (now.place >= 0) & (now.place < counts[row]) & (now.place < codes.shape[1])
    return is_prompt & (codes[row, now.place.clamp(0, codes.shape[1] - 1)] > 0)
