"""Which tokens of a row carry what it says: its names, figures and other content words.

No tagger of parts of speech is at hand; function words are left out by a list, and what is left is
ranked: names and figures first, then rare words before common ones. Where a text is too noisy for
that, a token counts by how much the model's uncertainty about all that follows changes when nothing
can look at the token.

A table of flags is plain JSON: the key of a row (`expunge.engine.keyed`) -> one bit for each of its
tokens, as a hexadecimal number.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from expunge.engine.keyed import noted
from expunge.engine.view import View
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import at_least_float32
from expunge.text.entities import entities
from expunge.text.stop import STOP_WORDS

Table = Mapping[str, str]
"""Key of a row -> its flags."""

LOOK_BACK = 4
"""Tokens before another that decide how it is written: white space, pieces of one character."""

VARIANTS = 64
"""Rows of a forward pass without gradient."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def flags_of(places: Collection[int]) -> str:
    """The flags of a row, from the places of its important tokens."""
    return f"{sum(1 << place for place in places):x}"


def important(view: View, table: Table) -> Tensor:
    """Which positions of a view hold an important token; the first of a row never does.

    Where much of what is looked at is taken away, something must be left that takes it, and in
    most models that is the first position.

    Args:
        view: The rows; one that the table does not know has no flag.
        table: The flags.

    Returns:
        [B, T] bool.
    """
    real = view.inputs.attention_mask.bool()
    flags = torch.zeros_like(real)
    for row, digits in enumerate(noted(view, table, "0")):
        bits, length = int(digits, 16), int(real[row].sum())
        places = [bool(bits >> place & 1) for place in range(length)]
        flags[row, real[row]] = torch.tensor(places, device=flags.device)
    return flags & (real.cumsum(1) > 1)


def content_places(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], share: float
) -> list[list[int]]:
    """For each row the places of its content words' tokens, at most a share of all its tokens.

    Args:
        tokenizer: That made the rows.
        rows: Token ids.
        share: Of the tokens of each row.
    """
    texts = [pieces(tokenizer, ids) for ids in rows]
    words = [_words(one) for one in texts]
    seen = Counter(word for row in words for word in {w.lower() for w in row if w})
    return [
        _highest(_scores("".join(text), row, seen, len(rows)), share)
        for text, row in zip(texts, words, strict=True)
    ]


def entropy_places(
    model: nn.Module, rows: Sequence[Sequence[int]], share: float
) -> list[list[int]]:
    """For each row the tokens without which the model is most changed in its uncertainty.

    Args:
        model: A causal language model.
        rows: Token ids.
        share: Of the tokens of each row that is flagged.
    """
    with evaluating(model):
        return [_highest(entropy_changes(model, ids), share) for ids in rows]


def entropy_changes(model: nn.Module, ids: Sequence[int]) -> list[float]:
    """How much the predictive entropy changes when nothing can look at a token, token by token.

    A mean over the positions after the token of the size of the change, in nats. The first token
    is never hidden and the last has nothing after it: both have 0.

    Args:
        model: A causal language model, in evaluation mode.
        ids: Token ids of one row.
    """
    device = next(model.parameters()).device
    length, found = len(ids), [0.0] * len(ids)
    plain = _entropies(model, torch.tensor([list(ids)], device=device), None)
    for start in range(1, length - 1, VARIANTS):
        hidden = torch.arange(start, min(start + VARIANTS, length - 1), device=device)
        mask = torch.ones(len(hidden), length, dtype=torch.long, device=device)
        mask[torch.arange(len(hidden), device=device), hidden] = 0
        batch = torch.tensor([list(ids)], device=device).expand(len(hidden), -1)
        changes = (_entropies(model, batch, mask) - plain).abs()
        for row, place in enumerate(hidden.tolist()):
            found[place] = float(changes[row, place + 1 :].mean())
    return found


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; nothing for special tokens."""
    found = []
    for at in range(len(ids)):
        back = max(0, at - LOOK_BACK)
        before, after = (_written(tokenizer, ids[back:end]) for end in (at, at + 1))
        shared = next(
            (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
            min(len(before), len(after)),
        )
        found.append(after[shared:])
    return found


def _written(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def _words(parts: Sequence[str]) -> list[str]:
    """The word that each token belongs to, the first of several; empty for none."""
    spans = [(found.start(), found.end(), found[0]) for found in _WORD.finditer("".join(parts))]
    words, start = [], 0
    for part in parts:
        end = start + len(part)
        words.append(next((w for a, b, w in spans if a < end and b > start), ""))
        start = end
    return words


def _scores(text: str, words: Sequence[str], seen: Counter[str], rows: int) -> list[float]:
    """0 for what says nothing; 1 and more for content, 2 and more for names; rare words more."""
    named = {word for name in entities(text) for word in _WORD.findall(name)}
    scores = []
    for word in words:
        if not word or word.lower() in STOP_WORDS:
            scores.append(0.0)
        else:
            rare = 1 - seen[word.lower()] / (rows + 1)
            scores.append((2 if word in named else 1) + rare)
    return scores


def _highest(scores: Sequence[float], share: float) -> list[int]:
    """Places of the highest scores above 0, the earlier of equal ones, never the first place."""
    most = math.floor(share * len(scores) + 0.5)
    ranked = sorted(range(1, len(scores)), key=lambda place: (-scores[place], place))
    return sorted(place for place in ranked[:most] if scores[place] > 0)


@torch.no_grad()
def _entropies(model: nn.Module, ids: Tensor, mask: Tensor | None) -> Tensor:
    """[B, T]: entropy of the prediction at each position, nats."""
    logits = at_least_float32(model(input_ids=ids, attention_mask=mask, use_cache=False).logits)
    logp = logits.log_softmax(-1)
    return -torch.where(logp.isinf(), 0.0, logp.exp() * logp).sum(-1)
