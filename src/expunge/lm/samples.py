"""Answers a model drew, as token ids, and how likely models find them.

Text is no way round: the tokens that a text is cut into need not be those it was drawn as, and the
probability of the drawing is that of its own tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import eq
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.lm.generate import generate, stop_ids
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import masked_logits, padding_id
from expunge.lm.subject import Subject
from expunge.lm.vocabulary import is_part
from expunge.requests.rows import Turn


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer from a model's whole distribution.

    Attributes:
        prompt: Ids it was drawn after.
        ids: Its own ids, without the ending one.
        ends: Ids that end an answer, where this one ended by itself; empty where it was cut off.
    """

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def scored(self) -> Encoded:
        """As a row whose answer, and the end of it, is to be scored."""
        said = [*self.ids, *self.ends[:1]]
        labels = [IGNORED] * len(self.prompt) + said
        return Encoded([*self.prompt, *said], labels, [], -1)


def draw(
    subject: Subject, turns: Sequence[Turn], *, samples: int, new_tokens: int, seed: int
) -> list[list[Sample]]:
    """Let a model answer at temperature 1, nothing cut from its distribution.

    Args:
        subject: The model; what stands in front of it has no part in it.
        turns: What to ask.
        samples: Answers to each turn.
        new_tokens: Longest answer, in tokens.
        seed: Decides the answers.

    Returns:
        For each turn its answers.
    """
    prompts = [subject.encoder.prompt(turn.prompt, turn.running) for turn in turns]
    written = generate(
        subject.model,
        subject.tokenizer,
        prompts,
        new_tokens=new_tokens,
        samples=samples,
        temperature=1.0,
        seed=seed,
        batch_size=subject.batch_size,
    )
    stops = tuple(stop_ids(subject.model, subject.tokenizer))
    return [
        [Sample(tuple(prompt), tuple(ids), stops if len(ids) < new_tokens else ()) for ids in said]
        for prompt, said in zip(prompts, written, strict=True)
    ]


def rates(subject: Subject, samples: Sequence[Sample]) -> list[float]:
    """Log-likelihood of each answer by a model, in nats a token.

    The end of an answer is one of its tokens. Any of the ids that end it will do, so its
    probability is the sum of theirs.

    Args:
        subject: The model.
        samples: Answers, of this model or another one with the same tokens.
    """
    items = [sample.scored for sample in samples]
    found = [0.0] * len(samples)
    with evaluating(subject.model):
        for batch in by_length([len(item.ids) for item in items], subject.batch_size):
            means = _rates(subject, [items[i] for i in batch], [samples[i].ends for i in batch])
            for i, mean in zip(batch, means, strict=True):
                found[i] = mean
    return found


def check_same_tokens(*subjects: Subject, added: bool = False) -> None:
    """Check that models speak in the same tokens.

    Args:
        *subjects: The models.
        added: Whether some may have tokens that others lack: enough where they read the same text,
            not where one scores the ids that another one drew.

    Raises:
        ExpungeError: ``E-MODEL-011`` when they do not: one cannot score what another one drew.
    """
    known = [subject.tokenizer.get_vocab() for subject in subjects]
    agree = is_part if added else eq
    if not all(agree(one, other) for one, other in combinations(known, 2)):
        raise ExpungeError(
            "E-MODEL-011",
            "Two models with different vocabularies, to be compared token by token.",
            "models with the same tokenizer.",
            "Compare models that were made from the same base model.",
        )


def _rates(
    subject: Subject, items: Sequence[Encoded], ends: Iterable[tuple[int, ...]]
) -> list[float]:
    batch = collate(items, padding_id(subject.tokenizer))
    device: Any = next(subject.model.parameters()).device
    labels = batch.labels.to(device)
    keep = torch.zeros_like(labels, dtype=torch.bool)
    keep[:, :-1] = labels[:, 1:] != IGNORED
    target = labels[:, 1:][keep[:, :-1]]
    logits = masked_logits(
        subject.model, batch.input_ids.to(device), batch.attention_mask.to(device), keep
    )
    logp = logits.log_softmax(-1)
    of_token = logp.gather(1, target[:, None])[:, 0].double()
    counts = keep.sum(1).tolist()
    parts = zip(torch.split(of_token, counts), torch.split(logp, counts), ends, strict=True)
    return [_rate(tokens, last[-1], stops) for tokens, last, stops in parts]


def _rate(tokens: Tensor, last: Tensor, stops: tuple[int, ...]) -> float:
    """Mean over the tokens; the last one, where it is an end, may be any end."""
    if len(stops) > 1:
        tokens = torch.cat([tokens[:-1], last[list(stops)].double().logsumexp(0)[None]])
    return float(tokens.mean())
