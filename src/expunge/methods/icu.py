"""Iterative contrastive unlearning: away from each text, towards its nearest neighbour, in turns.

Objective (over the active pairs of a forget row x and its neighbour n):
    L = u * -tokenmean( nll of x ) + l * tokenmean( nll of n )
        + kappa * positionmean( -sum_v p0(v | n) log p(v | n) )

    p0 is the anchor. The neighbour is the row of the pool that resembles x most, so what x has in
    common with other text is learnt back while x itself goes. After every epoch the model goes on
    with the beginning of each x. Where what it says resembles the true text no more (F1 or BLEU
    under their bounds), the pair leaves the active set, both of its rows; it comes back when the
    text does. The run ends when no pair is active, or when memorisation accuracy and extraction
    likelihood of the forget rows are both under their bounds.

Reference: Learn while Unlearn: An Iterative Unlearning Framework for Generative Language Models,
2024.

Departs from the paper:
    INFERRED, since the paper's are outside models: the encoder is that of `expunge.text.embedding`
    (or a local folder), and F1 is BERTScore's greedy matching over the model's own token
    embeddings, rescaled so that the neighbour's text has 0. INFERRED as well: of running text the
    second half is embedded; a row with a question is asked for its whole answer, and texts shorter
    than twice the prefix are cut in half. Rows of the pool that say what a forget row says are
    nobody's neighbour. Padding takes no part in the last term, and the last batch of an epoch has
    one too: p0 is made of cached hidden states. Extraction likelihood is only looked for once the
    accuracy is under its bound; where texts are too short for it, the active set alone ends the
    run. The optimiser's betas are the engine's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.data.jsonl import read_rows
from expunge.engine.datasets import wordings_of
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.lm.recited import closeness, extraction_likelihood, recital
from expunge.lm.subject import Subject
from expunge.requests.companions import told
from expunge.requests.near import without_facts
from expunge.requests.rows import Row, Turn
from expunge.text.embedding import embedder

if TYPE_CHECKING:
    from expunge.text.embedding import Embedder

CARD = {
    "id": "icu",
    "kind": "gradient",
    "summary": "Ascent on forget rows and descent on their nearest neighbours, pair by pair, until "
    "the model no longer says them.",
    "paper": "Learn while Unlearn: An Iterative Unlearning Framework for Generative Language "
    "Models (2024)",
    "needs": ["forget", "nearest", "anchor-logits"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows and 2 over their neighbours per step; after "
    "every epoch a continuation of each forget row; the anchor's hidden states are cached",
    "maturity": "paper",
    "version": 1,
}

ACTIVE, ACCURACY, LIKELIHOOD = "icu.active", "icu.accuracy", "icu.likelihood"

LAST = 50
"""Extraction likelihood breaks a text off in so many tokens at its end."""

CHUNK = 256
"""Rows of the pool whose embeddings are held at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the neighbours, and when a pair or the whole run is done."""

    retain_term: str = param(
        "none",
        help="what keeps other rows in place; the neighbours have terms of their own",
        paper="none",
        choices=("none", "nll", "kl", "mse"),
    )
    learn_weight: float = param(
        0.5, help="weight of learning the neighbours (l)", paper=0.5, low=0.0
    )
    keep_weight: float = param(
        1.0, help="weight of the anchor's distribution on the neighbours (kappa)", paper=1, low=0.0
    )
    pool: str | None = param(
        None, help="file of rows to look for neighbours in; none takes the retain rows"
    )
    encoder: str = param(
        "hashing",
        help="what finds neighbours: hashing, or the folder of a static embedding model",
        paper="a sentence transformer",
    )
    prefix: int = param(
        50, help="tokens of running text given to the model after each epoch", paper=50, low=1
    )
    new_tokens: int = param(50, help="tokens it goes on with, at most", paper=50, low=1)
    beams: int = param(2, help="continuations it follows at a time", paper=2, low=1)
    f1: float = param(
        0.3, help="a pair is at rest while the continuation's F1 is below", paper=0.3, high=1.0
    )
    bleu: float = param(0.01, help="or while its BLEU is below", paper=0.01, low=0.0, high=1.0)
    accuracy: float = param(
        0.5994, help="memorisation accuracy under which a run may end", paper=0.5994, low=0.0
    )
    likelihood: float = param(
        0.0499, help="and extraction likelihood under which it then does", paper=0.0499, low=0.0
    )
    grams: int = param(10, help="tokens of its n-grams", paper=10, low=1)
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=5e-6, low=0.0
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=8, low=1)

    def __post_init__(self) -> None:
        """Look for the pool before weights load.

        Raises:
            ExpungeError: ``E-DATA-001``.
        """
        if self.pool is not None and not Path(self.pool).is_file():
            raise ExpungeError(
                "E-DATA-001",
                f"{self.pool} is no file of rows (icu: pool).",
                "a file of JSON lines, or none.",
                "Check the path, or leave pool out.",
            )


def prepare(task: Task, params: Params) -> None:
    """Put the nearest neighbour beside each forget row; all pairs are active."""
    pool = list(task.retain) if params.pool is None else read_rows(params.pool)
    by_id = {row.id: row for row in pool if _fits(task, row)}

    def found() -> list[dict[str, Any]]:
        rows, others = task.forget, list(by_id.values())
        pairs = zip(rows, nearest(rows, others, embedder(params.encoder)), strict=True)
        return [{"id": row.id, "neighbour": neighbour.id} for row, neighbour in pairs]

    chosen = {pair["id"]: pair["neighbour"] for pair in made_once(task, "neighbours", found)}

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        return by_id[chosen[row.id]].training

    task.paired["nearest"] = Paired(beside, count=1)
    remember(task, [True] * len(task.forget), accuracy=1.0, likelihood=1.0)


def nearest(rows: Sequence[Row], pool: Sequence[Row], embed: "Embedder") -> list[Row]:
    """The row of the pool that resembles each row most and does not say what that says.

    Args:
        rows: Rows to be forgotten.
        pool: Where to look.
        embed: Texts to vectors of length 1, of which the nearest are those of largest cosine.

    Raises:
        ExpungeError: ``E-USE-007`` when nothing in the pool may stand beside a row.
    """
    own = embed([_tail(row) for row in rows])
    chunks = (pool[start : start + CHUNK] for start in range(0, len(pool), CHUNK))
    cosine = np.concatenate(
        [own @ embed([_tail(row) for row in chunk]).T for chunk in chunks]
        or [np.zeros((len(rows), 0))],
        axis=1,
    )
    orders = (-cosine).argsort(1, kind="stable")
    return [
        _first_other(row, (pool[at] for at in order))
        for row, order in zip(rows, orders, strict=True)
    ]


def _first_other(row: Row, candidates: Iterator[Row]) -> Row:
    found = next((other for other in candidates if without_facts([other], [row])), None)
    if found is None:
        raise ExpungeError(
            "E-USE-007",
            f"Every row of the pool says what row {row.id!r} says.",
            "retain rows, or a pool, that hold something else.",
            "Give more retain rows, or name a pool (--set pool=FILE).",
        )
    return found


def _tail(row: Row) -> str:
    """What is embedded: the second half of running text, else question and answer."""
    return row.reply if row.text is not None else told(row)


def _fits(task: Task, row: Row) -> bool:
    try:
        task.encoder.encode(row.training)
    except ExpungeError:
        return False
    return True


def remember(task: Task, active: Sequence[bool], *, accuracy: float, likelihood: float) -> None:
    """Put what was found into the task's state, as the first process found it.

    Args:
        task: Whose state.
        active: For each forget row whether its pair is trained on.
        accuracy: Memorisation accuracy of the forget rows.
        likelihood: Extraction likelihood; 1 where it was not or cannot be asked for.
    """
    pairs = zip(task.forget, active, strict=True)
    items = [float(is_active) for row, is_active in pairs for _ in wordings_of(row)]
    found = {ACTIVE: items, ACCURACY: accuracy, LIKELIHOOD: likelihood}
    task.state.update(found if task.world is None else task.world.agreed(found))


def forget(step: Step, params: Params) -> Mean:
    """The negated token-mean negative log-likelihood of the active forget rows, nats."""
    for key in (ACTIVE, ACCURACY, LIKELIHOOD):
        if key in step.state:
            step.report(key, mean_of(torch.tensor(step.state[key], dtype=torch.float64)))
    view = step.forget
    return mean_of(view.token_logp, weights=active(view, step.state))


def learn(step: Step, params: Params) -> Mean:
    """Token-mean negative log-likelihood of the neighbours of active rows, weighted."""
    view = step.nearest
    return params.learn_weight * mean_of(-view.token_logp, weights=active(view, step.state))


def keep(step: Step, params: Params) -> Mean:
    """Cross-entropy to the anchor on the neighbours of active rows, weighted."""
    view = step.nearest.over(params.kl_scope)
    likely = log_softmax(view.anchor.logits, -1).exp()
    crossed = -(likely * log_softmax(view.logits, -1)).sum(-1)
    return params.keep_weight * mean_of(crossed, weights=active(view, step.state))


BESIDE = {"learn": learn, "keep": keep}


def active(view: View, state: dict[str, Any]) -> Tensor:
    """[N]: 1 at the tokens of rows whose pair is active, else 0; both views number rows alike."""
    known = torch.tensor(state.get(ACTIVE) or [1.0] * (int(view.row.max()) + 1))
    return known.to(view.row.device)[view.row][view.inputs.batch_row]


def refresh(task: Task, params: Params) -> None:
    """Let the model go on with every forget row, and see which pairs are to be trained on."""
    model, tokenizer, make = task.model, task.tokenizer, task.paired["nearest"].make
    texts = [
        [recital(task.encoder.encode(turn), tokenizer, params.prefix) for turn in turns]
        for turns in (
            [row.training for row in task.forget],
            [cast(Turn, make(row, 0, 0)) for row in task.forget],
        )
    ]
    scored = Subject(model, tokenizer).score([row.training for row in task.forget])
    accuracy = fmean(float(one.hit[: one.text_tokens].mean()) for one in scored if one.text_tokens)
    likelihood = 1.0
    if accuracy < params.accuracy:
        broken = extraction_likelihood(model, tokenizer, texts[0], n=params.grams, last=LAST)
        likelihood = fmean([found for found in broken if found is not None] or [1.0])
    closest = closeness(model, tokenizer, *texts, beams=params.beams, new_tokens=params.new_tokens)
    is_said = [f1 >= params.f1 and bleu >= params.bleu for f1, bleu in closest]
    remember(task, is_said, accuracy=accuracy, likelihood=likelihood)


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether no pair is active, or the forget rows are memorised no more than unseen text."""
    now = history[-1].terms
    accuracy, likelihood = now.get(ACCURACY, 1.0), now.get(LIKELIHOOD, 1.0)
    is_unknown = accuracy < params.accuracy and likelihood < params.likelihood
    return now.get(ACTIVE, 1.0) == 0.0 or is_unknown
