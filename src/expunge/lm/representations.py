"""What a model holds inside while it is about to say a fact.

A *spot* is one row with the places from which its fact is predicted: the position before each token
of the value. Everything here looks at these positions, at the output of each block, before the
final norm. Adapters count as they are: they are part of every forward pass.

Reference: Measuring the Depth of LLM Unlearning via Activation Patching (2026).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from expunge.core.errors import ExpungeError
from expunge.data.encode import Encoded, by_length, collate
from expunge.lm.arch import Slots
from expunge.lm.gather import Models
from expunge.lm.hooks import capture, evaluating, forward_through, intervene
from expunge.lm.lens import lens
from expunge.lm.scoring import masked_logits, padding_id
from expunge.lm.subject import Subject
from expunge.lm.values import find
from expunge.requests.rows import Row

Tokens = str
"""``value``: the tokens that carry the fact; ``answer``: the whole completion."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spot:
    """One row, cut behind the last token of its fact.

    Attributes:
        item: The row as tokens; those of the fact are supervised.
        at: [n], positions that predict the tokens of the fact.
    """

    item: Encoded
    at: list[int]


def spots(subject: Subject, rows: Sequence[Row], tokens: Tokens = "value") -> dict[str, Spot]:
    """Where each row's fact is predicted.

    Args:
        subject: Whose tokenizer cuts the rows.
        rows: The rows.
        tokens: ``value`` or ``answer``. A row without an ``answer`` of its own gives its whole
            completion either way. What ends a completion is no part of it.

    Returns:
        Row id -> spot; a row whose completion does not hold its value is left out.
    """
    found = {}
    for row in rows:
        turn = row.turn
        whole = (0, len(turn.completion))
        span = find(turn.completion, row.forms) if tokens == "value" and row.answer else whole
        if span is not None:
            item = subject.encoder.encode(turn, keep=(span,))
            supervised = [place for place, label in enumerate(item.labels) if label != -100]
            end = supervised[-1] + 1
            cut = Encoded(item.ids[:end], item.labels[:end], item.spans, item.row)
            found[row.id] = Spot(cut, [place - 1 for place in supervised])
    return found


def shared_spots(
    original: Subject, model: Subject, rows: Sequence[Row], tokens: Tokens
) -> dict[str, Spot]:
    """`spots` of two models that see the same tokens and whose states have one shape.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when they do not fit each other.
    """
    require_same_shape(original.model, model.model)
    places = spots(original, rows, tokens)
    require_same_tokens(places, spots(model, rows, tokens))
    return places


def require_same_tokens(first: Mapping[str, Spot], second: Mapping[str, Spot]) -> None:
    """Check that two models see the same tokens.

    Raises:
        ExpungeError: E-MODEL-011 when their tokenizers cut a row into other tokens.
    """
    if any(spot.item.ids != second[row].item.ids for row, spot in first.items()):
        raise ExpungeError(
            "E-MODEL-011",
            "The two models cut the same text into other tokens.",
            "models with one tokenizer: representations are compared token by token.",
            "Give the original and the reference of this very model.",
        )


def require_same_shape(first: nn.Module, second: nn.Module) -> None:
    """Check that the states of one model fit into another.

    Raises:
        ExpungeError: E-USE-006 when they differ in depth or width.
    """
    shapes = [(len(Slots(model)), _width(model)) for model in (first, second)]
    if shapes[0] != shapes[1]:
        raise ExpungeError(
            "E-USE-006",
            f"A model of {shapes[0][0]} blocks of width {shapes[0][1]}, and another of "
            f"{shapes[1][0]} blocks of width {shapes[1][1]}.",
            "models of one shape: states of one are put into the other.",
            "Give the original and the reference of this very model.",
        )


def layer_names(model: nn.Module) -> list[str]:
    """What the blocks are called in tables, bottom first: ``layer-0``, ``layer-1`` ..."""
    return [f"layer-{index}" for index in range(len(Slots(model)))]


def activations(
    subject: Subject, places: Mapping[str, Spot], layers: Sequence[int] | None = None
) -> dict[int, dict[str, FloatArray]]:
    """States of a model at its spots.

    Args:
        subject: The model.
        places: What `spots` found.
        layers: Blocks; all when not given.

    Returns:
        layer -> row id -> [n, d], the block's output before the final norm.
    """
    chosen = range(len(Slots(subject.model))) if layers is None else layers
    found: dict[int, dict[str, FloatArray]] = {layer: {} for layer in chosen}
    with evaluating(subject.model):
        for names, batch in _batches(subject, places):
            states = _states(subject.model, batch, list(chosen))
            for layer, packed in states.items():
                parts = np.split(packed.double().cpu().numpy(), batch.ends)
                found[layer] |= dict(zip(names, parts, strict=True))
    return {
        layer: {row: table[row] for row in places if row in table} for layer, table in found.items()
    }


def clouds(models: Models, rows: Sequence[Row], tokens: Tokens) -> dict[str, dict[str, FloatArray]]:
    """States of several models at the same tokens, all rows together.

    Args:
        models: The model, and those of the original and the reference that are given.
        rows: The rows.
        tokens: See `spots`.

    Returns:
        ``model``, ``original``, ``reference`` -> layer, ``layer-0`` first -> [N, d]; no layers
        where no row holds its value.

    Raises:
        ExpungeError: E-MODEL-011, E-USE-006 when the models do not fit one another.
    """
    given = {who: getattr(models, who) for who in ("model", "original", "reference")}
    subjects = {who: subject for who, subject in given.items() if subject is not None}
    found: dict[str, dict[str, FloatArray]] = {}
    for who, subject in subjects.items():
        places = shared_spots(models.model, subject, rows, tokens)
        names = layer_names(subject.model) if places else []
        states = activations(subject, places)
        found[who] = {
            name: np.concatenate(list(states[layer].values())) for layer, name in enumerate(names)
        }
    return found


def question_states(subject: Subject, rows: Sequence[Row], layer: int) -> dict[str, FloatArray]:
    """The state [d] of a block at the last position before each row's answer.

    Raises:
        ExpungeError: E-USE-003 when the model has no such block.
    """
    places = {
        row: Spot(spot.item, spot.at[:1]) for row, spot in spots(subject, rows, "answer").items()
    }
    chosen = Slots(subject.model).index(layer)
    return {
        row: states[0] for row, states in activations(subject, places, [chosen])[chosen].items()
    }


def lens_logp(
    decoder: Subject, source: Subject, places: Mapping[str, Spot]
) -> dict[str, FloatArray]:
    """How much of the fact one model's states tell through another model's final norm and head.

    Args:
        decoder: Whose norm and head read the states.
        source: Whose states are read.
        places: What `spots` found.

    Returns:
        Row id -> [L], mean log-probability of the fact's tokens at each block, nats.
    """
    found: dict[str, FloatArray] = {}
    with evaluating(source.model), evaluating(decoder.model):
        layers = list(range(len(Slots(source.model))))
        for names, batch in _batches(source, places):
            states = _states(source.model, batch, layers)
            like = next(decoder.model.parameters())
            read = [batch.means(lens(decoder.model, states[at].to(like))) for at in layers]
            found |= dict(zip(names, np.stack(read, axis=1), strict=True))
    return {row: found[row] for row in places}


def patch_drops(
    target: Subject, source: Subject, places: Mapping[str, Spot]
) -> dict[str, FloatArray]:
    """What a model can no longer tell once another model's states stand in for its own.

    The output of one block is replaced at the spots, everything else runs as ever; this for each
    block in turn.

    Args:
        target: The model that speaks.
        source: The model whose states are put in.
        places: What `spots` found.

    Returns:
        Row id -> [L], fall of the mean log-probability of the fact's tokens, nats.
    """
    found: dict[str, FloatArray] = {}
    with evaluating(target.model), evaluating(source.model):
        layers = list(range(len(Slots(target.model))))
        for names, batch in _batches(target, places):
            states = _states(source.model, batch, layers)
            own, logits = _outputs(target.model, batch)
            before = batch.means(logits)
            drops = [
                before - _patched(target.model, batch, at, own[at], states[at]) for at in layers
            ]
            found |= dict(zip(names, np.stack(drops, axis=1), strict=True))
    return {row: found[row] for row in places}


@dataclass(frozen=True, slots=True)
class _Batch:
    """Padded spots: ids [B, T], where they look [B, T], what comes there [N], ends of the rows."""

    ids: Tensor
    mask: Tensor
    keep: Tensor
    target: Tensor
    ends: list[int]

    def logits(self, model: nn.Module) -> Tensor:
        """[N, V] at the spots."""
        return masked_logits(model, self.ids, self.mask, self.keep)

    def means(self, logits: Tensor) -> FloatArray:
        """[B], mean log-probability of each row's tokens, from logits [N, V]."""
        target = self.target.to(logits.device)
        logp = -functional.cross_entropy(logits.float(), target, reduction="none")
        parts = np.split(logp.double().cpu().numpy(), self.ends)
        return np.array([part.mean() for part in parts])


def _batches(subject: Subject, places: Mapping[str, Spot]) -> Iterator[tuple[list[str], _Batch]]:
    """Row ids and their padded spots, the longest first."""
    names, device = list(places), next(subject.model.parameters()).device
    lengths = [len(spot.item.ids) for spot in places.values()]
    for chosen in by_length(lengths, subject.batch_size):
        some = [places[names[index]] for index in chosen]
        padded = collate([spot.item for spot in some], padding_id(subject.tokenizer))
        keep = torch.zeros_like(padded.input_ids, dtype=torch.bool)
        for number, spot in enumerate(some):
            keep[number, spot.at] = True
        target = padded.input_ids.roll(-1, dims=1)[keep]
        ends = np.cumsum([len(spot.at) for spot in some])[:-1].tolist()
        ids, mask = padded.input_ids.to(device), padded.attention_mask.to(device)
        batch = _Batch(ids, mask, keep.to(device), target.to(device), ends)
        yield [names[index] for index in chosen], batch


def _states(model: nn.Module, batch: _Batch, layers: list[int]) -> dict[int, Tensor]:
    """Outputs of blocks at the spots, layer -> [N, d].

    Rows are padded on the right, where nothing that is looked at can see: no mask is needed.
    """
    device = next(model.parameters()).device
    outputs = forward_through(model, layers, input_ids=batch.ids.to(device), use_cache=False)
    return {layer: output[batch.keep.to(output.device)] for layer, output in outputs.items()}


def _outputs(model: nn.Module, batch: _Batch) -> tuple[dict[int, Tensor], Tensor]:
    """Outputs of all blocks, layer -> [B, T, d], and logits [N, V] at the spots."""
    with capture(model, range(len(Slots(model)))) as outputs:
        logits = batch.logits(model)
    return outputs, logits


def _patched(
    model: nn.Module, batch: _Batch, layer: int, own: Tensor, states: Tensor
) -> FloatArray:
    """[B], mean log-probabilities with the states [N, d] in a block's own output [B, T, d]."""
    changed = own.clone()
    changed[batch.keep.to(own.device)] = states.to(own)
    with _resumed(model, layer), intervene(model, layer, lambda _: changed):
        return batch.means(batch.logits(model))


@contextmanager
def _resumed(model: nn.Module, layer: int) -> Iterator[None]:
    """Run no block up to this one, whose output is going to be replaced anyway."""
    blocks = list(Slots(model).blocks)[: layer + 1]
    forwards = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = _through
        yield
    finally:
        for block, forward in zip(blocks, forwards, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _through(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _width(model: nn.Module) -> int:
    return int(Slots(model).embed.weight.shape[1])  # type: ignore[index]
