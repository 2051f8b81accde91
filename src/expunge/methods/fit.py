"""FIT: of a stream of requests, forget what is new in each, where it sits, as hard as it needs.

Objective (by the importance I of the request):
    I >= high          L = gamma * mean_i f( logp_i - logp0_i ) + alpha * RETAIN
    low <= I < high    L = gamma * mean_i f( logp_i - logp0_i )
    I < low            L = gamma * tokenmean_F( -log p(y) ),   y random tokens, anew in each step
    f(r) = -(2 / beta) * log sigmoid( -beta * r ),   RETAIN = KL( anchor || model )

    I = mean_i || d nll_i / d (input embeddings of row i) ||

    Before that the request is sifted: chunks of its rows that resemble what earlier requests have
    forgotten are left out, unless a row's loss changes without them (`continual`). Of the
    ``top_layers`` blocks without which the loss of the request changes most, attention and MLP
    weights move; a block that is left out passes on what it gets, as one whose weights are all zero
    does. A request of which nothing is left ends at once (``E-RUN-001``) and changes neither the
    weights nor the memory.

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning, 2026.

Departs from the paper:
    The encoder is that of `expunge.text.embedding` (or a local folder), where the paper has a
    sentence encoder. A row is a document; importance is a mean over the request's rows. INFERRED:
    a document that is one redundant chunk is left out; and the bounds of I, which the code fixes
    for its models and lengths, are by default the upper and lower third over retain rows of this
    model. Gradients do not carry over from step to step, as they do in the code; the KL has the
    anchor in front, where the code has the model. Of equal chunks one place is cut out at a time.
    Rows are trained on as they are, not in pieces of 1024 characters; the cosine goes down to 0,
    and the optimiser's betas are the engine's. Both logp0 and the KL compare with the model before
    this request, unless a stream says otherwise.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine.continual import Document, Memory, importances, layer_effects, own_wordings
from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import row_preference
from expunge.engine.slots import retain as shared
from expunge.engine.slots.mask import Mask
from expunge.engine.slots.select import Selection
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.subject import Subject
from expunge.requests.rows import Turn

CARD = {
    "id": "fit",
    "kind": "gradient",
    "summary": "For streams of requests: leaves out what was forgotten before, chooses loss and "
    "layers for the rest.",
    "paper": "FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning (2026)",
    "needs": ["forget", "retain", "anchor", "anchor-logits"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows per step, and over retain rows where the "
    "request is important; before training 1 forward over the request for each block and 1 "
    "backward over it and a sample of retain rows; the anchor is cached",
    "maturity": "paper",
    "version": 1,
}

CARRY = "fit"
ALGORITHM, SEED, VOCABULARY = "fit.algorithm", "fit.seed", "fit.vocabulary"

SAMPLE = 64
"""Retain rows whose importance the bounds are quantiles of, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the sieve, the layers, and what decides the loss."""

    retain_term: str = param(
        "kl",
        help="what keeps the retain rows where the request is important",
        paper="kl",
        choices=("kl", "nll", "none"),
    )
    beta: float = param(0.1, help="sharpness of the preference", paper=0.1, low=1e-6, high=100.0)
    encoder: str = param(
        "hashing",
        help="what compares chunks: hashing, or the folder of a static embedding model",
        paper="a sentence encoder",
    )
    chunk: int = param(128, help="characters of a chunk", paper=[8, 128], low=1)
    alike: float = param(
        0.9, help="cosine from which a chunk resembles an earlier one (tau)", paper=0.9
    )
    delta: float = param(
        0.2,
        help="nats a row's loss must change by for it to be kept all the same (epsilon)",
        paper=0.2,
        low=0.0,
    )
    top_layers: int = param(8, help="blocks that move (k)", paper=8, low=1)
    layer_tokens: int = param(
        128, help="tokens of each row that decide which blocks", paper=128, low=2
    )
    algorithm: Literal["auto", "npo-kl", "npo", "random-label"] = param(
        "auto",
        help="the loss; auto decides by the importance of the request",
        paper="auto",
        choices=("auto", "npo-kl", "npo", "random-label"),
    )
    high: float | Literal["auto"] = param(
        "auto", help="importance of npo-kl; auto: upper third of the retain rows", paper=12, low=0.0
    )
    low: float | Literal["auto"] = param(
        "auto", help="importance of npo; auto: lower third of the retain rows", paper=6, low=0.0
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=3e-5, low=0.0
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=3, low=1
    )
    schedule: Literal["linear", "cosine", "constant"] = param(
        "cosine",
        help="how the rate goes after the warm-up: to 0 by a line or a cosine, or not at all",
        paper="cosine",
        choices=("linear", "cosine", "constant"),
    )
    weight_decay: float = param(0.1, help="decoupled weight decay", paper=0.1, low=0.0)

    def __post_init__(self) -> None:
        """Refuse bounds that leave no room for npo.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if "auto" not in (self.high, self.low) and float(self.low) > float(self.high):
            raise ExpungeError(
                "E-USE-003",
                f"fit: low = {self.low} above high = {self.high}.",
                "bounds of importance in order.",
                "Exchange them, or leave both to auto.",
            )


def select(task: Task, params: Params) -> Selection:
    """The rows, and of them the chunks, that no earlier request has had; they are remembered.

    Raises:
        ExpungeError: ``E-RUN-001`` when there are none.
    """
    memory = Memory.read(task.carry.get(CARRY), params.encoder)
    subject = Subject(task.model, task.tokenizer)

    @cache
    def loss(text: str) -> float:
        return subject.score([Turn("", text, running=True)])[0].nll

    documents = [Document.of(row) for row in task.forget]
    kept = memory.sifted(documents, loss, size=params.chunk, alike=params.alike, delta=params.delta)
    new = [one.replied(chunks) for one, chunks in zip(documents, kept, strict=True)]
    tokens = {at: [ranges] for at, ranges in enumerate(new) if ranges is not None}
    rows = sorted(tokens)
    if not rows:
        raise _nothing_new(len(documents), memory.requests)
    task.carry[CARRY] = memory.as_dict()
    task.record["rows_left_out"] = len(documents) - len(rows)
    task.record["chunks_kept"] = sum(map(len, kept))
    return Selection(rows, tokens=tokens)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """Attention and MLP weights of the blocks that the request depends on most."""
    slots = Slots(model)
    if params.layers is not None:
        layers = sorted({slots.index(layer) for layer in params.layers})
    else:
        effects = layer_effects(task, params.layer_tokens)
        ranked = sorted(range(len(slots)), key=lambda layer: -effects[layer])
        layers = sorted(ranked[: params.top_layers])
    task.record["layers"] = layers
    parts = (slots.module(layer, part) for layer in layers for part in ("attention", "mlp"))
    moving = {id(weight) for part in parts for weight in part.parameters()}
    return {name: id(p) in moving for name, p in model.named_parameters() if p.requires_grad}


def prepare(task: Task, params: Params) -> None:
    """Choose the loss by the importance of the request."""
    importance = float(importances(task, own_wordings(task, "forget")).mean())
    high, low = bounds(task, params)
    chosen = params.algorithm
    if chosen == "auto":
        chosen = "npo-kl" if importance >= high else "npo" if importance >= low else "random-label"
    task.record.update({"importance": importance, "high": high, "low": low, "algorithm": chosen})
    special = sorted({at for at in task.tokenizer.all_special_ids if at < len(task.tokenizer)})
    task.state.update({ALGORITHM: chosen, SEED: task.seed})
    task.state[VOCABULARY] = [len(task.tokenizer), special]


def bounds(task: Task, params: Params) -> tuple[float, float]:
    """From which importance on the loss is npo-kl, and from which it is npo."""
    if params.high != "auto" and params.low != "auto":
        return float(params.high), float(params.low)
    rows = own_wordings(task, "retain")
    order = generator(task.seed, "importance").permutation(len(rows))[:SAMPLE]
    sample = importances(task, [rows[at] for at in order])
    given = ((params.high, 2 / 3), (params.low, 1 / 3))
    high, low = (float(sample.quantile(q) if b == "auto" else b) for b, q in given)
    return high, low


def forget(step: Step, params: Params) -> Mean:
    """Negative preference over rows, or the loss of random tokens, as the request was judged."""
    if _algorithm(step, params) == "random-label":
        view = step.forget
        labels = random_labels(view, step)
        return mean_of(cross_entropy(view.logits, labels, reduction="none"))
    return row_preference(step.forget, params.beta)


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term, where the request is important."""
    return shared.by_term(step, params) if _algorithm(step, params) == "npo-kl" else None


def random_labels(view: View, step: Step) -> Tensor:
    """[N]: uniform tokens, special ones left out; a function of seed, step and row alone."""
    size, special = step.state.get(VOCABULARY) or (view.logits.shape[-1], [])
    drawn = []
    for item, length in zip(view.row.tolist(), view.lengths.tolist(), strict=True):
        key = (step.state.get(SEED, 0), "random label", repr(step.progress), item)
        drawn += generator(*key).integers(size - len(special), size=length).tolist()
    labels = torch.tensor(drawn, dtype=torch.long, device=view.labels.device)
    for token in special:  # ascending: each makes room for itself
        labels += labels >= token
    return labels


def _algorithm(step: Step, params: Params) -> str:
    chosen: str = step.state.get(ALGORITHM, params.algorithm)
    return "npo-kl" if chosen == "auto" else chosen


def _nothing_new(rows: int, requests: int) -> ExpungeError:
    return ExpungeError(
        "E-RUN-001",
        f"All of this request ({rows} rows) resembles what {requests - 1} earlier requests have "
        "forgotten: nothing is left to do, and no weight was touched.",
        "a request that asks for something new.",
        "Leave it out; or use --set alike=1 to have it carried out once more.",
    )
