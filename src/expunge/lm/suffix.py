"""Searching for words behind a question by the gradient: greedy coordinate descent over tokens.

A suffix is a list of token ids that survives being sent as text: written out behind a question and
read again, it is the same tokens. So what was optimised is what the model will be asked.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from expunge.core.results import Leak
from expunge.core.rng import generator
from expunge.lm.adversary import differentiable, found, seam_of
from expunge.lm.arch import Slots
from expunge.lm.elicit import Probe, plain, press, reworded
from expunge.lm.hooks import evaluating
from expunge.lm.openings import Campaign
from expunge.lm.subject import Scene, Subject

Ids = list[int]

_END = re.compile(r"[^\w\s]+$|\S+$")
"""What a suffix follows: the punctuation at the end of a question, else its last word."""

Loss = Callable[[Tensor], Tensor]
"""Embeddings of C suffixes [C, k, d] -> what is to be made small, [C]."""


class Spelling:
    """Which tokens a suffix may be made of, and which suffixes can be sent.

    Attributes:
        tokens: Ids of printable ASCII text, without special ones.
    """

    def __init__(self, subject: Subject, questions: Iterable[str]) -> None:
        self._subject = subject
        special = set(subject.tokenizer.all_special_ids)
        rows = len(next(Slots(subject.model).embed.parameters()))
        texts = subject.tokenizer.batch_decode([[id] for id in range(rows)])
        self.tokens = [
            id
            for id, text in enumerate(texts)
            if id not in special and text and text.isascii() and text.isprintable()
        ]
        self._leads = sorted({_END.findall(text.strip())[0] for text in questions if text.strip()})

    def text(self, ids: Ids) -> str:
        """How a suffix is written behind a question."""
        lead = self._read(self._leads[:1])[0]
        before, both = (self._subject.encoder.decode(some) for some in (lead, lead + ids))
        return both.removeprefix(before)

    def sendable(self, suffixes: Sequence[Ids]) -> list[Ids]:
        """Those suffixes that are read as the same tokens behind every question."""
        kept = list(suffixes)
        for word, lead in zip(self._leads, self._read(self._leads), strict=True):
            texts = [self._subject.encoder.decode(lead + ids) for ids in kept]
            begun = self._subject.encoder.decode(lead)
            read = self._read([word + text.removeprefix(begun) for text in texts])
            kept = [ids for ids, found in zip(kept, read, strict=True) if found == lead + ids]
        return kept

    def blank(self, length: int) -> Ids:
        """A suffix of ``x``; of the first token that can be repeated, where x is none.

        Raises:
            StopIteration: When no token can be repeated.
        """
        letter = self._read([" x"])[0]
        repeated = (one * length for one in (letter, *([token] for token in self.tokens)))
        return next(ids for ids in repeated if len(ids) == length and self.sendable([ids]))

    def _read(self, texts: Sequence[str]) -> list[Ids]:
        if not texts:
            return []
        read = self._subject.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [list(ids) for ids in read]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How much is tried.

    Attributes:
        steps: Steps.
        width: Suffixes tried in a step.
        topk: Tokens of each position that they are made of, by the gradient.
        swaps: Most tokens in which they differ from the one before.
        exhaustive: Whether every single swap is tried instead, whatever the gradient says.
        chunk: Suffixes of one call of the loss.
    """

    steps: int
    width: int
    topk: int
    swaps: int
    exhaustive: bool
    chunk: int


@dataclass(frozen=True, slots=True)
class Search:
    """What a search ended with.

    Attributes:
        ids: The suffix with the smallest loss of all that were tried.
        curve: The smallest loss before the first step and after each one.
    """

    ids: Ids
    curve: list[float]


def search(
    subject: Subject, loss: Loss, start: Ids, *, spelling: Spelling, budget: Budget, seed: int
) -> Search:
    """Change a suffix token by token to make a loss small.

    Each step goes on from the best of its own suffixes, also where that is worse than the one
    before; the best of all is remembered.

    Args:
        subject: The model.
        loss: What is to be made small.
        start: The first suffix.
        spelling: What suffixes may be.
        budget: How much is tried.
        seed: Of the draws.
    """
    draw = torch.Generator().manual_seed(seed)
    here = best = start
    curve = _losses(subject, loss, [start], 1)
    for _ in range(budget.steps):
        if budget.exhaustive:
            given = _every_swap(here, spelling.tokens)
        else:
            promising = _promising(subject, loss, here, spelling.tokens, budget.topk)
            given = _drawn(here, promising, budget, draw)
        suffixes = spelling.sendable(list(given))
        losses = _losses(subject, loss, suffixes, budget.chunk)
        least = min(losses, default=curve[-1])
        here = suffixes[losses.index(least)] if suffixes else here
        best = here if least < curve[-1] else best
        curve.append(min(least, curve[-1]))
    return Search(best, curve)


def questions(campaign: Campaign, most: int, seed: int) -> list[Probe]:
    """Some of the training questions, each with the first of its openings."""
    lessons = [own[0] for own in campaign.lessons]
    chosen = generator(seed, "suffix").permutation(len(lessons))[:most]
    return [lessons[at] for at in sorted(chosen)]


def tried(
    subject: Subject, campaign: Campaign, scene: Scene, spelling: Spelling, ended: Search
) -> Leak:
    """Put the suffix behind the tested questions, as text."""
    text = spelling.text(ended.ids)
    probes = reworded(campaign.tested, lambda _, question: [question + text])
    heard = press(subject, probes, scene)
    leak = Leak(**found(press(subject, plain(campaign.tested), scene), heard), note=campaign.note)
    size = len(ended.ids)
    ends = [list(seam_of(subject, one.probe).before[-size:]) == ended.ids for one in heard]
    parts = {
        "loss_first": ended.curve[0],
        "loss_last": ended.curve[-1],
        "sent": fmean(ends) if ends else 0.0,
    }
    return replace(leak, parts={**leak.parts, **parts})


def _losses(subject: Subject, loss: Loss, suffixes: Sequence[Ids], chunk: int) -> list[float]:
    losses: list[float] = []
    with evaluating(subject.model):
        for at in range(0, len(suffixes), chunk):
            losses += loss(_embedded(subject, suffixes[at : at + chunk])).tolist()
    return losses


def _embedded(subject: Subject, suffixes: Sequence[Ids]) -> Tensor:
    """[C, k, d]."""
    embed = Slots(subject.model).embed
    device = next(embed.parameters()).device
    vectors: Tensor = embed(torch.tensor(suffixes, device=device)).detach()
    return vectors


def _promising(subject: Subject, loss: Loss, ids: Ids, tokens: Sequence[int], topk: int) -> Tensor:
    """[k, topk] ids: at each position the tokens whose one-hot gradient is the most negative."""
    table = next(Slots(subject.model).embed.parameters()).detach()
    allowed = torch.tensor(tokens, device=table.device)
    with differentiable(subject.model):
        here = _embedded(subject, [ids]).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(here)[0], here)
    slopes = gradient[0].float() @ table[allowed].float().T
    return allowed[(-slopes).topk(min(topk, len(tokens)), dim=1).indices].cpu()


def _drawn(ids: Ids, promising: Tensor, budget: Budget, draw: torch.Generator) -> Iterator[Ids]:
    """Random swaps of one token, then of two, and so on in turn."""
    length, most = promising.shape
    for at in range(budget.width):
        changed = list(ids)
        count = min(1 + at % budget.swaps, length)
        for place in torch.randperm(length, generator=draw)[:count].tolist():
            pick = int(torch.randint(most, (1,), generator=draw))
            changed[place] = int(promising[place, pick])
        yield changed


def _every_swap(ids: Ids, tokens: Sequence[int]) -> Iterator[Ids]:
    for place in range(len(ids)):
        for token in tokens:
            yield [*ids[:place], token, *ids[place + 1 :]]
