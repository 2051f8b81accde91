"""Value vectors: the columns by which an MLP writes into the residual stream.

Definition (W: the MLP output projection of a block, E: the output embedding [V, d]):
    value vector     v = column j of W (row j where the family stores W transposed), [d]
    what it writes   top tokens = the k tokens with the largest E v
    needle           v + noise, every other column as it was

Reference: Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces (2024).
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.lm.arch import Slots
from expunge.lm.representations import require_same_shape
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.text.stop import STOP_WORDS

CANDIDATES = 200
"""Columns that are looked at more closely when a concept's column is searched for."""

AT_ONCE = 2**26
"""Numbers of one block of products, columns times vocabulary."""


class Trace(NamedTuple):
    """One value vector: block (negative from the top) and column."""

    layer: int
    dim: int


def merged(model: nn.Module) -> nn.Module:
    """The model with its adapters folded into its weights, on a copy; itself where it has none."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model
    folded: nn.Module = copy.deepcopy(model).merge_and_unload()
    return folded


def value_vectors(model: nn.Module, layer: int) -> Tensor:
    """All value vectors of a block, a view [columns, d] of its weight.

    Raises:
        ExpungeError: E-USE-003 where there is no such block, E-MODEL-007 where its weights are no
            plain numbers.
    """
    module = Slots(model).module(layer, "mlp_out")
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.ndim != 2:
        raise ExpungeError(
            "E-MODEL-007",
            f"The MLP output of block {layer} holds no plain matrix ({type(module).__name__}).",
            "weights in a floating-point type.",
            "Load the model without quantisation.",
        )
    is_transposed = isinstance(getattr(module, "base_layer", module), Conv1D)
    return weight if is_transposed else weight.T


def value_vector(model: nn.Module, trace: Trace) -> Tensor:
    """One value vector, a view [d].

    Raises:
        ExpungeError: As `value_vectors`, and E-USE-003 where there is no such column.
    """
    vectors = value_vectors(model, trace.layer)
    if not 0 <= trace.dim < len(vectors):
        raise ExpungeError(
            "E-USE-003",
            f"Column {trace.dim} of an MLP with {len(vectors)}.",
            f"a number from 0 to {len(vectors) - 1}.",
            "Give the place of the concept in this model, or have it searched for.",
        )
    return vectors[trace.dim]


def entries_of(model: nn.Module, trace: Trace) -> tuple[str, Tensor]:
    """The matrix a value vector stands in, by the name of its weight, and which entries are its.

    Args:
        model: A model without adapters.
        trace: Which vector.

    Returns:
        The name, and bool of the shape of the weight.
    """
    slots = Slots(model)
    module: Any = slots.module(trace.layer, "mlp_out")
    entries = torch.zeros_like(module.weight, dtype=torch.bool)
    (entries if isinstance(module, Conv1D) else entries.T)[trace.dim] = True
    return f"{slots.names(trace.layer, 'mlp_out')[0]}.weight", entries


def top_tokens(model: nn.Module, vector: Tensor, count: int) -> list[int]:
    """Ids of the tokens a value vector [d] writes most, the strongest first."""
    embedding = Slots(model).head.weight.detach()  # type: ignore[operator]
    scores = embedding.float() @ vector.detach().float().to(embedding.device)
    found: list[int] = scores.topk(min(count, len(scores))).indices.tolist()
    return found


def compare(
    original: Subject, model: Subject, rows: Sequence[Row], top: int
) -> dict[str, dict[str, float | None]]:
    """What is left of each concept's value vector.

    Args:
        original: The model before forgetting.
        model: The model that is measured; of both, adapters are folded in first, on a copy.
        rows: A row a concept: a text about it, and in ``meta`` the ``layer`` and ``dim`` of its
            vector, or nothing where it is to be searched for.
        top: Tokens that a vector is known by.

    Returns:
        Row id -> ``cosine``, ``distance``, ``jaccard`` and ``related``, which is None where none
        of the vector's tokens occurs in the text.

    Raises:
        ExpungeError: E-USE-003 when there is no such vector, E-USE-006 for models of other
            shapes, E-MODEL-007 for weights that are no plain numbers.
    """
    before, now = merged(original.model), merged(model.model)
    require_same_shape(before, now)
    known = {row.id: _given(row) for row in rows}
    wanted = {row.id: row.training.completion for row in rows if known[row.id] is None}
    searched = search(before, original, wanted, top) if wanted else {}
    found = {}
    for row in rows:
        trace = known[row.id] or searched[row.id]
        old, new = (value_vector(of, trace).detach().double().cpu() for of in (before, now))
        tokens = [set(top_tokens(of, value_vector(of, trace), top)) for of in (before, now)]
        related = tokens[0] & written_in(original, row.training.completion)
        found[row.id] = {
            "cosine": min(1.0, float(functional.cosine_similarity(old, new, dim=0))),
            "distance": float((old - new).norm()),
            "jaccard": len(tokens[0] & tokens[1]) / len(tokens[0] | tokens[1]),
            "related": len(related & tokens[1]) / len(related) if related else None,
        }
    return found


def _given(row: Row) -> Trace | None:
    """Where a row says its vector is."""
    if "layer" not in row.meta or "dim" not in row.meta:
        return None
    return Trace(int(row.meta["layer"]), int(row.meta["dim"]))


@contextmanager
def needle(
    model: nn.Module, trace: Trace, *, deviation: float = 0.1, seed: int = 0
) -> Iterator[None]:
    """Add noise to one value vector for a while; every other weight stays bit for bit.

    Args:
        model: A model without adapters.
        trace: Which vector; its old value comes back bit for bit.
        deviation: Standard deviation of the noise, in units of the weights. The paper's 0.1 is
            some five times that of the weights of a 7B model.
        seed: Of the noise.
    """
    vector = value_vector(model, trace)
    before = vector.detach().clone()
    draw = torch.Generator().manual_seed(derive(seed, "needle", *trace) % 2**63)
    noise = deviation * torch.randn(before.shape, generator=draw)
    try:
        with torch.no_grad():
            vector += noise.to(vector)
        yield
    finally:
        with torch.no_grad():
            vector.copy_(before)


def written_in(subject: Subject, text: str) -> set[int]:
    """Ids of the tokens of a text, those of function words left out."""
    tokenizer = subject.tokenizer
    ids = set(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    words = {id: str(tokenizer.decode([id])).strip().lower() for id in ids}
    return {id for id, word in words.items() if word and word not in STOP_WORDS}


def search(
    model: nn.Module, subject: Subject, texts: Mapping[str, str], count: int
) -> dict[str, Trace]:
    """For each text the value vector that writes its words.

    Columns whose ``count`` strongest tokens are the strongest on average come into question; of
    these, the one that shares most of these tokens with the text (the stronger one of two).

    Args:
        model: The original model, without adapters.
        subject: The same with its tokenizer.
        texts: Name -> text about the concept.
        count: Tokens that are looked at.

    Returns:
        Name -> its vector.
    """
    ranked = _strongest(model, count)
    said = [set(top_tokens(model, value_vector(model, trace), count)) for trace in ranked]
    found = {}
    for name, text in texts.items():
        words = written_in(subject, text)
        shared = [len(tokens & words) for tokens in said]
        found[name] = ranked[shared.index(max(shared))]
    return found


def _strongest(model: nn.Module, count: int) -> Sequence[Trace]:
    """The `CANDIDATES` columns with the largest mean logit of their top tokens."""
    embedding = Slots(model).head.weight.detach().float()  # type: ignore[operator]
    top, step = min(count, len(embedding)), max(1, AT_ONCE // len(embedding))
    scored: list[tuple[float, Trace]] = []
    for layer in range(len(Slots(model))):
        vectors = value_vectors(model, layer).detach()
        means = torch.cat(
            [
                (part.float().to(embedding.device) @ embedding.T).topk(top).values.mean(1)
                for part in torch.split(vectors, step)
            ]
        )
        best = means.topk(min(CANDIDATES, len(means)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        scored += [(value, Trace(layer, dim)) for value, dim in pairs]
    return [trace for _, trace in sorted(scored, key=lambda each: -each[0])[:CANDIDATES]]
