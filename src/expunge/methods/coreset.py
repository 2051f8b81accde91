"""Coreset: forget by a small share of the forget rows.

Objective:
    L = L of the wrapped method over C,   C a part of F with |C| = ceil( p |F| )

    C is chosen once, before the first step; equal rows stand for one and go in or out together.
    Some 5% often do what all rows do, since what binds a subject's rows together is shared.

    selector=random:         drawn uniformly; C of a smaller p is a part of C of a larger one
    selector=gradient-norm:  rows with the largest || grad nll_i ||
    selector=moderate:       rows whose distance from the mean embedding is closest to the median
    selector=min-k:          rows whose least likely tokens are the likeliest: those best known
    keywords=q:              of each answer only its ceil( q * words ) rarest words are trained on,
                             by tf * idf over all forget and retain answers

Reference: LLM Unlearning Reveals a Stronger-Than-Expected Coreset Effect in Current Benchmarks,
2025.

Departs from the paper:
    INFERRED, since only its abstract was read: the list of selectors and which end of each score
    is taken; that steps are matched, so that a run over C is as long as one over F; keywords by
    tf * idf. What a random C does varies: compare at least three seeds. Measured, and compared
    with the stop level, are all forget rows.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.slots.select import Selection
from expunge.engine.sources import Live
from expunge.engine.task import Ranges, Task
from expunge.engine.view import View
from expunge.lm.hooks import evaluating
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "coreset",
    "kind": "wrapper",
    "summary": "Trains a method on a small share of the forget rows, for as many steps as on all.",
    "paper": "LLM Unlearning Reveals a Stronger-Than-Expected Coreset Effect in Current "
    "Benchmarks (2025)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "nothing a step; before it 1 forward over the forget rows for moderate and min-k, and "
    "1 backward as well for gradient-norm",
    "maturity": "paper",
    "version": 1,
    "value": "share",
}

WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much of the forget rows is trained on, and who chooses."""

    share: float = param(
        0.05, help="share of the forget rows (p)", paper=[0.01, 0.05, 0.1], low=1e-6, high=1.0
    )
    selector: Literal["random", "gradient-norm", "moderate", "min-k"] = param(
        "random",
        help="by what rows are chosen",
        paper="random",
        choices=("random", "gradient-norm", "moderate", "min-k"),
    )
    min_k: float = param(
        0.2, help="share of a row's tokens, the least likely ones, min-k goes by", low=1e-6, high=1
    )
    keywords: float | None = param(
        None,
        help="share of each answer's words trained on (q); none: all",
        low=1e-6,
        high=1,
    )
    match_steps: bool = param(True, help="make as many steps as a run over all rows would")


def select(task: Task, params: Params) -> Selection:
    """The chosen groups of equal rows, in the order of the forget rows."""
    groups = grouped(task.forget)
    count = math.ceil(params.share * len(groups))
    firsts = [group[0] for group in groups]
    chosen = range(len(groups)) if count == len(groups) else _best(task, params, firsts, count)
    rows = sorted(row for group in chosen for row in groups[group])
    tokens = None if params.keywords is None else keywords(task, rows, params.keywords)
    return Selection(rows, tokens=tokens, match_steps=params.match_steps)


def grouped(rows: Sequence[Row]) -> list[list[int]]:
    """Indices of rows that say the same, white space and case aside, by their first."""
    groups: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        turn = row.training
        groups.setdefault((_folded(str(turn.prompt)), _folded(turn.completion)), []).append(index)
    return list(groups.values())


def keywords(task: Task, rows: Sequence[int], share: float) -> dict[int, list[Ranges]]:
    """Where the rarest words of each wording of some forget rows stand in its completion.

    A row's own ``spans`` still hold: words outside of them are left out. A wording none of whose
    words is left is trained on as it is.

    Args:
        task: Its forget and retain answers say how rare a word is.
        rows: Indices of forget rows.
        share: Of the different words of an answer.
    """
    answers = [wordings_of(row) for row in (*task.forget, *task.retain)]
    told = Counter(word for turns in answers for word in set().union(*map(_words, turns)))
    idf = {word: math.log((1 + len(answers)) / (1 + n)) + 1 for word, n in told.items()}
    found = {}
    for index in rows:
        row = task.forget[index]
        own, *others = wordings_of(row)
        found[index] = [_rarest(own, share, idf, row.spans)]
        found[index] += [_rarest(turn, share, idf, ()) for turn in others]
    return found


def min_k(logp: Tensor, share: float) -> Tensor:
    """Mean log-probability of the least likely ``share`` of a row's tokens [N], nats."""
    return logp.sort().values[: math.ceil(share * len(logp))].mean()


def _best(task: Task, params: Params, rows: Sequence[int], count: int) -> list[int]:
    """Places in ``rows`` of the chosen ones."""
    if params.selector == "random":
        order = generator(task.seed, "coreset").permutation(len(rows))
        return [int(place) for place in order[:count]]
    datasets = Datasets(task, device=str(task.model.device))
    with evaluating(task.model):
        views = _views(task, datasets, rows)
        if params.selector == "moderate":
            scores = -_off_median(torch.stack([_embedding(view) for view in views]))
        elif params.selector == "min-k":
            scores = torch.stack([min_k(view.token_logp, params.min_k) for view in views])
        else:
            scores = torch.stack([_gradient_norm(task, view) for view in views])
    return [int(place) for place in scores.argsort(descending=True, stable=True)[:count]]


def _views(task: Task, datasets: Datasets, rows: Sequence[int]) -> Iterator[View]:
    """Each row by itself, in its own wording, under the original."""
    for row in rows:
        own = datasets.items("forget")[row][0]
        yield View(datasets.batch([own]), Live(task.model))


@torch.enable_grad()
def _gradient_norm(task: Task, view: View) -> Tensor:
    weights = [p for p in task.model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(view.nll.value, weights, allow_unused=True)
    norms = [torch.linalg.vector_norm(g.double()) for g in gradients if g is not None]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


def _embedding(view: View) -> Tensor:
    """[d]: output of the last block where the answer is predicted, a mean over positions."""
    return view.hidden(-1)[view.mask].double().mean(0)


def _off_median(embeddings: Tensor) -> Tensor:
    """[B]: how far each row's distance from the centre [B, d] is from the median distance."""
    distances: Tensor = torch.linalg.vector_norm(embeddings - embeddings.mean(0), dim=1)
    return (distances - distances.quantile(0.5)).abs()


def _rarest(turn: Turn, share: float, idf: dict[str, float], within: Ranges) -> Ranges:
    """Character ranges of the words with the highest tf * idf; ``within`` where none is left."""
    places = [match.span() for match in WORD.finditer(turn.completion)]
    inside = [at for at in places if not within or any(a <= at[0] < b for a, b in within)]
    words = [turn.completion[start:end].casefold() for start, end in inside]
    often = Counter(words)
    ranked = sorted(often, key=lambda word: often[word] * idf[word], reverse=True)
    kept = set(ranked[: math.ceil(share * len(ranked))])
    return [at for at, word in zip(inside, words, strict=True) if word in kept] or within


def _words(turn: Turn) -> set[str]:
    return {word.casefold() for word in WORD.findall(turn.completion)}


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
