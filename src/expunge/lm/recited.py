"""How much of a text a model says by heart, once it is given the beginning.

Definition (x_1 ... x_T the tokens of a text, g_t the greedy continuation of x_1 ... x_t to T):
    EL_n    mean over t of  |{n-grams of g_t that stand in x_t+1 ... x_T}| / |{n-grams of g_t}|
    F1      of greedy matching:  P = mean_a max_b cos(a, b),  R = mean_b max_a cos(a, b)
            a, b the input embeddings of the tokens of a continuation and of the true one

An n-gram counts as often as it is said; a continuation of fewer than n tokens has none and counts
0. F1 is 1 for the true continuation; what it is for any other depends on how alike a model's
embeddings are at all, so it is compared with the F1 of a text that is merely similar (`rescaled`).
Outputs of blocks would measure with a ruler that bends: while a model unlearns, its states behind
one beginning grow alike whatever it says.

Reference: Knowledge Unlearning for Mitigating Privacy Risks in Language Models (2023);
BERTScore: Evaluating Text Generation with BERT (2020).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import GenerationConfig, PreTrainedTokenizerBase

from expunge.data.encode import IGNORED, Encoded, by_length
from expunge.lm.arch import Slots, base_of, positions_of
from expunge.lm.generate import check_room, generate, stop_ids
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import padding_id
from expunge.text.ngrams import ngrams
from expunge.text.overlap import bleu

Ids = list[int]

ALIKE = 1 - 1e-6
"""A baseline from here on leaves nothing to tell texts apart by."""


@dataclass(frozen=True, slots=True)
class Recital:
    """A text, cut where a model is to go on with it.

    Attributes:
        prefix: Token ids it is given.
        rest: Token ids that follow, without what ends the text.
    """

    prefix: Ids
    rest: Ids

    def said(self, rest: Ids) -> "Recital":
        """The same beginning with another continuation."""
        return Recital(self.prefix, rest)


def recital(item: Encoded, tokenizer: PreTrainedTokenizerBase, prefix: int) -> Recital:
    """Cut a text: behind its question or, of running text, behind a fixed number of tokens.

    Args:
        item: The text; what is asked is not supervised.
        tokenizer: Its tokenizer.
        prefix: Tokens given of running text; half of it where it is shorter than twice that.
    """
    ids = item.ids[:-1] if item.ids[-1] == tokenizer.eos_token_id else item.ids
    first = next(place for place, label in enumerate(item.labels) if label != IGNORED)
    start = first if first > 1 else max(1, min(prefix, len(ids) // 2))
    return Recital(ids[:start], ids[start:])


def beamed(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Recital],
    *,
    beams: int,
    batch_size: int = 32,
) -> list[Ids]:
    """Let a model go on with each text for as many tokens as its rest has, by beam search.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, for the ids that pad and that end a text.
        texts: What is begun.
        beams: Continuations followed at a time; 1 is greedy.
        batch_size: Texts of one forward pass.

    Returns:
        For each text its continuation, without the ending token.
    """
    found: list[Ids] = [[] for _ in texts]
    for tokens, places in _by_rest(texts).items():
        prompts = [texts[place].prefix for place in places]
        check_room(prompts, tokens, positions_of(model))
        for batch in by_length([len(prompt) for prompt in prompts], batch_size):
            rows = _written(model, tokenizer, [prompts[at] for at in batch], tokens, beams)
            for at, ids in zip(batch, rows, strict=True):
                found[places[at]] = ids
    return found


def extraction_likelihood(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Recital],
    *,
    n: int,
    last: int,
) -> list[float | None]:
    """EL_n of each text, broken off everywhere in its rest.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: The texts; no break lies before the rest.
        n: Length of the n-grams, in tokens.
        last: Breaks lie in so many tokens at the end.

    Returns:
        In [0, 1]; None for a text whose rest is shorter than n.
    """
    shares: list[list[float]] = [[] for _ in texts]
    for left in range(n, last + 1):  # all texts with so many tokens left, at once
        places = [at for at, text in enumerate(texts) if len(text.rest) >= left]
        prompts = [(texts[at].prefix + texts[at].rest)[:-left] for at in places]
        written = generate(model, tokenizer, prompts, new_tokens=left) if prompts else []
        for at, (said,) in zip(places, written, strict=True):
            shares[at].append(overlap(said, texts[at].rest[-left:], n))
    return [fmean(found) if found else None for found in shares]


def overlap(said: Sequence[int], true: Sequence[int], n: int) -> float:
    """Share of the n-grams of one text that stand in another; 0 where it has none.

    Example:
        >>> overlap([1, 2, 3, 9], [1, 2, 3, 4], 2)
        0.6666666666666666
    """
    grams = ngrams(list(map(str, said)), n)
    known = set(ngrams(list(map(str, true)), n))
    return sum(gram in known for gram in grams) / len(grams) if grams else 0.0


def matching_f1(found: Tensor, wanted: Tensor) -> float:
    """F1 of greedy matching between vectors [n, d] and [m, d]; 0 where one has none."""
    if not len(found) or not len(wanted):
        return 0.0
    cosine = normalize(found, dim=1) @ normalize(wanted, dim=1).T
    precision, recall = float(cosine.amax(1).mean()), float(cosine.amax(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def rescaled(value: float, baseline: float) -> float:
    """A score moved so that the baseline becomes 0 and 1 stays 1; 0 where that is 1 already.

    Example:
        >>> rescaled(0.75, 0.5), rescaled(0.25, 0.5), rescaled(1.0, 1.0)
        (0.5, -0.5, 0.0)
    """
    return 0.0 if baseline >= ALIKE else (value - baseline) / (1 - baseline)


def closeness(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Recital],
    others: Sequence[Recital],
    *,
    beams: int,
    new_tokens: int,
) -> list[tuple[float, float]]:
    """How close what a model goes on with is to the text itself.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        texts: The texts.
        others: For each of them one that is merely similar: the mean F1 of those becomes 0.
        beams: Continuations followed at a time.
        new_tokens: Longest continuation, in tokens.

    Returns:
        For each text F1 (at most 1) and BLEU (in [0, 1]).
    """
    true, near = ([t.said(t.rest[:new_tokens]) for t in some] for some in (texts, others))
    written = beamed(model, tokenizer, true, beams=beams)
    said = [text.said(ids) for text, ids in zip(true, written, strict=True)]
    table: Tensor = Slots(model).embed.weight  # type: ignore[assignment]
    of_said, of_true, of_near = (
        [table.detach()[text.rest].double() for text in some] for some in (said, true, near)
    )
    baseline = fmean(map(matching_f1, of_near, of_true))
    f1 = [rescaled(matching_f1(*pair), baseline) for pair in zip(of_said, of_true, strict=True)]
    decode = partial(tokenizer.decode, skip_special_tokens=True)
    words = [[str(decode(text.rest)) for text in some] for some in (said, true)]
    return list(zip(f1, map(bleu, *words), strict=True))


def _by_rest(texts: Sequence[Recital]) -> dict[int, list[int]]:
    """Number of tokens in the rest -> places of the texts that have so many."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        if text.rest:
            groups[len(text.rest)].append(place)
    return groups


def _written(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ids],
    tokens: int,
    beams: int,
) -> list[Ids]:
    """Continuations of prompts padded on the left; a model's own settings have no part in it."""
    writer: Any = base_of(model)
    stops, pad = stop_ids(model, tokenizer), padding_id(tokenizer)
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens,
        num_beams=beams,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=stops or None,
    )
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    device = next(writer.parameters()).device
    own = writer.generation_config
    writer.generation_config = settings
    try:
        with evaluating(model):
            rows: Tensor = writer.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                generation_config=settings,
            )
    finally:
        writer.generation_config = own
    return [_ended(row, stops) for row in rows[:, width:].tolist()]


def _ended(ids: Ids, stops: Sequence[int]) -> Ids:
    return ids[: next((at for at, token in enumerate(ids) if token in stops), len(ids))]
