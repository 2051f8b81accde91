"""What a method looks at in a request of a stream before it trains: what is new, where, how much.

A *document* is all that one row says, its question included, as one text. It is cut into chunks of
a fixed number of characters, and the memory holds a vector of every chunk that was kept. A chunk
that resembles one of them is redundant, unless the document is another one without it.

Definition (e a vector of length 1, m runs over the memory, L the model's loss of a document D):
    keep chunk k of D   iff   max_m e_k . e_m < alike   or   | L(D) - L(D without k) | > delta
    importance of a row = || d nll / d (its input embeddings) ||
    effect of a block   = | loss without it - loss |

The memory holds no text. But whoever has a text can tell whether it was among what was forgotten:
it belongs to those who may know that.

Reference: FIT: Defying Catastrophic Forgetting in Continual LLM Unlearning, 2026.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.data.encode import IGNORED, Encoded, by_length, collate
from expunge.engine.datasets import Datasets
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.scoring import packed_logp, padding_id
from expunge.requests.rows import Row
from expunge.text.embedding import embedder

if TYPE_CHECKING:
    from expunge.text.embedding import Vector

Range = tuple[int, int]
"""Characters of a document, first inclusive, last exclusive."""

DIGITS = 6
"""Of a component, kept in the memory."""

BATCH = 8
"""Rows of a forward pass."""


@dataclass(frozen=True, slots=True)
class Document:
    """All that a row says.

    Attributes:
        text: What is asked and what is replied.
        start: Where the reply begins.
        spans: The only parts of the reply to be forgotten, counted from its beginning; all of it
            where there are none.
    """

    text: str
    start: int
    spans: tuple[Range, ...] = ()

    @classmethod
    def of(cls, row: Row) -> Self:
        """The document of a row, in its own wording."""
        turn = row.training
        if isinstance(turn.prompt, str):
            asked = turn.prompt
        else:
            asked = "".join(f"{message['content']}\n" for message in turn.prompt)
        return cls(asked + turn.completion, len(asked), row.spans)

    def without(self, chunk: Range) -> str:
        """The text with one chunk cut out, that place only."""
        return self.text[: chunk[0]] + self.text[chunk[1] :]

    def replied(self, kept: Sequence[Range]) -> tuple[Range, ...] | None:
        """What of some chunks is to be forgotten, as character ranges of the reply.

        Returns:
            The ranges; the row's own spans (none: everything) where all of the reply is kept, and
            None where nothing of it is.
        """
        length = len(self.text) - self.start
        moved = [tuple(max(place - self.start, 0) for place in chunk) for chunk in kept]
        if sum(end - start for start, end in moved) == length:
            return self.spans
        spans = self.spans or ((0, length),)
        both = [(max(a, c), min(b, d)) for a, b in moved for c, d in spans]
        return tuple((start, end) for start, end in both if start < end) or None


def chunks_of(text: str, size: int) -> list[Range]:
    """Chunks of ``size`` characters; a last one of less than half of that joins the one before.

    Example:
        >>> chunks_of("abcdefghij", 4), chunks_of("abcdefghi", 4)
        ([(0, 4), (4, 8), (8, 10)], [(0, 4), (4, 9)])
    """
    starts = [0, *range(size, len(text), size)]
    if len(starts) > 1 and 2 * (len(text) - starts[-1]) < size:
        del starts[-1]
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


@dataclass(slots=True)
class Memory:
    """Vectors of all chunks that were kept.

    Attributes:
        encoder: What made them, as `expunge.text.embedding.embedder` takes it.
        chunks: Of each vector the places that are not 0, and what stands there.
        requests: Requests remembered.
    """

    encoder: str
    chunks: list[tuple[list[int], list[float]]] = field(default_factory=list)
    requests: int = 0

    @classmethod
    def read(cls, carried: Mapping[str, Any] | None, encoder: str) -> Self:
        """The memory that an earlier request handed on; an empty one where none did.

        Raises:
            ExpungeError: ``E-USE-006`` when another encoder made it.
        """
        if carried is None:
            return cls(encoder)
        if carried["encoder"] != encoder:
            raise ExpungeError(
                "E-USE-006",
                f"The memory of earlier requests was made with encoder {carried['encoder']!r}, and "
                f"this request has {encoder!r}.",
                "one encoder for a whole stream of requests.",
                f"Use --set encoder={carried['encoder']}.",
            )
        chunks = [(list(places), list(values)) for places, values in carried["chunks"]]
        return cls(encoder, chunks, carried["requests"])

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        chunks = [[places, values] for places, values in self.chunks]
        return {"encoder": self.encoder, "requests": self.requests, "chunks": chunks}

    def sifted(
        self,
        documents: Sequence[Document],
        loss: Callable[[str], float],
        *,
        size: int,
        alike: float,
        delta: float,
    ) -> list[list[Range]]:
        """The chunks of each document that are new; they are remembered.

        A chunk without a word has no vector: it goes with the one before it.

        Args:
            documents: Of one request, in order; chunks of the earlier ones count as remembered.
            loss: Mean loss of a token of a text, nats.
            size: Characters of a chunk.
            alike: Cosine from which a chunk resembles another.
            delta: Nats by which a document's loss must change without the chunk.
        """
        encode, found = embedder(self.encoder), []
        for document in documents:
            chunks, kept, is_new = chunks_of(document.text, size), [], True
            vectors = encode([document.text[start:end] for start, end in chunks])
            for chunk, vector in zip(chunks, vectors, strict=True):
                if vector.any():
                    is_new = self.resemblance(vector) < alike or _tells(
                        document, chunk, loss, delta
                    )
                if is_new:
                    kept.append(chunk)
                    self._remember(vector)
            found.append(kept)
        self.requests += 1
        return found

    def resemblance(self, vector: "Vector") -> float:
        """Largest cosine of a vector to what is remembered; -1 where nothing is."""
        cosines = (float(vector[places] @ values) for places, values in self.chunks)
        return max(cosines, default=-1.0)

    def _remember(self, vector: "Vector") -> None:
        places = np.flatnonzero(vector)
        if len(places):
            self.chunks.append((places.tolist(), vector[places].round(DIGITS).tolist()))


def own_wordings(task: Task, role: str) -> list[Encoded]:
    """The rows of a role in their own wording."""
    return [wordings[0] for wordings in Datasets(task).items(role)]


def importances(task: Task, items: Sequence[Encoded]) -> Tensor:
    """[n] float64: length of the gradient of each item's mean loss by its input embeddings."""
    found = torch.zeros(len(items), dtype=torch.float64)
    pad, embed = padding_id(task.tokenizer), Slots(task.model).embed
    seen: list[Tensor] = []

    def hold(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    for batch in by_length([len(item.ids) for item in items], BATCH):
        handle = embed.register_forward_hook(hold)
        try:
            with evaluating(task.model), torch.enable_grad():
                scored = packed_logp(task.model, collate([items[at] for at in batch], pad))
                counts = scored.row.bincount(minlength=len(batch))
                loss = -(scored.logp / counts[scored.row]).sum()
                (gradient,) = torch.autograd.grad(loss, [seen.pop()])
        finally:
            handle.remove()
        found[batch] = gradient.double().flatten(1).norm(dim=1).cpu()
    return found


def layer_effects(task: Task, tokens: int) -> list[float]:
    """For each block how much the loss of the forget rows changes when it is left out, nats.

    Args:
        task: Whose rows, and whose model as it is now.
        tokens: Of each row that are looked at, from its beginning.
    """
    items = [
        replace(item, ids=item.ids[:tokens], labels=item.labels[:tokens])
        for item in own_wordings(task, "forget")
    ]
    items = [item for item in items if any(label != IGNORED for label in item.labels)]
    with evaluating(task.model):
        whole = _loss(task, items)
        found = []
        for layer in range(len(Slots(task.model))):
            with left_out(task.model, layer):
                found.append(abs(_loss(task, items) - whole))
    return found


@contextmanager
def left_out(model: nn.Module, layer: int) -> Iterator[None]:
    """Let a block pass on what it gets, in the context; no weight is touched."""
    block = Slots(model).module(layer, "block")
    own = vars(block).get("forward")
    vars(block)["forward"] = lambda hidden_states, *_, **__: hidden_states
    try:
        yield
    finally:
        del vars(block)["forward"]
        if own is not None:
            vars(block)["forward"] = own


def _tells(document: Document, chunk: Range, loss: Callable[[str], float], delta: float) -> bool:
    """Whether a document is another one without a chunk; nothing is, without all of it."""
    rest = document.without(chunk)
    return bool(rest.strip()) and abs(loss(document.text) - loss(rest)) > delta


def _loss(task: Task, items: Sequence[Encoded]) -> float:
    """Token mean of the negative log-likelihood, nats."""
    pad, total, count = padding_id(task.tokenizer), 0.0, 0
    for batch in by_length([len(item.ids) for item in items], BATCH):
        logp = packed_logp(task.model, collate([items[at] for at in batch], pad)).logp
        total, count = total - float(logp.double().sum()), count + len(logp)
    return total / max(count, 1)
