"""Attribution shift: did the units that speak for the facts fall silent, or were they outvoted?

Definition (i: every unit of every MLP; o, u: the original and this model; y: the tokens that carry
a row's fact; v: the row's value, mean over y of log(p / (1 - p)), in nats; h_i: what unit i hands
to the output matrix of its MLP; S: steps):
    A_i    = sum over positions of  h_i * mean over s = 1..S of  dv / dh_i  at (s / S) h
             h: all units of all MLPs, so that sum_i A_i = v(h) - v(0) for large S
    P_i    = max(A_i, 0)                N_i = max(-A_i, 0)
    D+     = sum_i max(P_i(o) - P_i(u), 0) / sum_i P_i(o)         positive attribution that is gone
    D-     = sum_i max(N_i(u) - N_i(o), 0) / sum_i P_i(o)         negative attribution that is new
    score  = mean over rows of  D+ / (D+ + D-)

    path=gradient: A_i = sum over positions of  h_i dv / dh_i  at h itself
                       = sum of weight times gradient over the column of unit i in that matrix

Meaning:
    1: units that spoke for the answer no longer do, and that is all: erasing. 0: they all speak as
    before, and others speak against them: hiding, which a little training undoes. D+ and D- are the
    parts; D+ is at most 1, D- has no bound, and both are means over the rows that moved. The score
    says how a model changed, not how far: read it beside probability, for only a model that no
    longer says the rows has something to explain, and beside D+, the share that is gone. Training
    on other rows moves a little of both: a tiny model has D+ and D- of .06 then, so a score of .5.
    There is no level to reach: a retrained model has other units altogether, and its low score
    (.16 there) says nothing. What fools it: units are weighed one by one, so knowledge that moved
    to other units counts as gone; and a model whose MLPs are all zero gets 1.

Reference: Erase or Hide? Suppressing Spurious Unlearning Neurons for Robust Unlearning (2025); its
attribution is that of FaithUn: Toward Faithful Forgetting in Language Models by Investigating the
Interconnectedness of Knowledge (2025). The path is that of Knowledge Neurons in Pretrained
Transformers (2022), with all units on their way together.

Departs from the paper:
    Only its abstract and a note on it were read, which name the fall of positive attributions
    against the growth of negative ones. INFERRED: that units are compared one by one, so that one
    that rises makes good for none that falls; the positive attribution of the original as the scale
    of both; the ratio as one number, and its mean over rows; the tokens of the fact alone; no
    wordings but the first.
    The attribution there is ``path=gradient`` of a probability (``of=mean``: INFERRED, it may be
    the product). Ours is of the log-odds: all attributions of a probability fall with p (1 - p), so
    that a model made to give the answer no probability at all, by whatever means, gets 1 from them.
    And it is taken along the path: a gradient at h alone is nearly flat where the original knows a
    row by heart, and by the norm above the units that are left count for more against the answer as
    soon as some that spoke for it are gone. On a tiny model that learned its rows, the paper's form
    gives .54 where the columns of the units that spoke for them are zero and .46 where the last
    block alone was taught to say something else; ours gives .86 and .08.

Example:
    >>> from expunge.testing import measure
    >>> scores = {"attribution_gone": [0.75, 0.1], "attribution_against": [0.25, 0.9]}
    >>> value = measure("attribution-shift", scores)
    >>> round(value.mean, 6), round(value.parts["d_minus"], 6)     # (.75 + .1) / 2
    (0.425, 0.575)
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.core.bootstrap import FloatArray
from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, asked, unmeasurable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from expunge.data.encode import Batch
    from expunge.lm.gather import Models
    from expunge.lm.representations import Spot
    from expunge.lm.subject import Subject
    from expunge.requests.rows import Row

NEEDS = ("attribution_gone", "attribution_against")

CARD = {
    "id": "attribution-shift",
    "kind": "metric",
    "summary": "Share of the change in MLP units that erases a fact rather than speaks against it.",
    "paper": "Erase or Hide? Suppressing Spurious Unlearning Neurons for Robust Unlearning (2025)",
    "needs": ["attribution_gone", "attribution_against"],
    "models": ["original"],
    "better": "high",
    "range": [0.0, 1.0],
    "access": "weights",
    "cost": "on two models 1 forward pass a row, and steps times one forward and one backward pass",
    "maturity": "paper",
    "version": 1,
}

NOTHING = 1e-6
"""D+ and D- that together are at most this are rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What is attributed, and how; at which positions, and to which tokens."""

    of: str = param(
        "odds",
        help="odds: mean log-odds of the tokens; mean, product: of their probabilities",
        paper="mean",
        choices=("odds", "mean", "product"),
    )
    path: str = param(
        "integrated",
        help="gradient: at the units as they are; integrated: mean over the way from silent units",
        paper="gradient",
        choices=("integrated", "gradient"),
    )
    steps: int = param(8, help="path integrated: points on the way (S)", low=1)
    positions: str = param(
        "all",
        help="positions attributed to: all, or those that predict the tokens (answer)",
        paper="all",
        choices=("all", "answer"),
    )
    tokens: str = param(
        "value",
        help="value: the tokens that carry the fact; answer: all tokens of the answer",
        choices=("value", "answer"),
    )


def read(
    models: "Models", rows: Mapping[str, Sequence["Row"]], params: Params
) -> dict[str, dict[str, float | None]]:
    """D+ and D-: row id -> value.

    Returns:
        ``attribution_gone`` and ``attribution_against``; None for a row that does not hold its
        value, or for whose answer no unit of the original speaks.

    Raises:
        ExpungeError: E-MODEL-007 where the MLPs are not known, E-MODEL-011, E-USE-006 when the two
            models do not fit each other.
    """
    from expunge.lm.representations import shared_spots

    original, model = models.original, models.model
    assert original is not None  # noqa: S101
    places = shared_spots(original, model, rows[""], params.tokens)
    found: dict[str, tuple[float, float] | None] = {}
    for names, batch in _batches(model, places):
        before, now = (attributed(m.model, batch, params) for m in (original, model))
        _require_same_units(before, now)
        found |= dict(zip(names, map(shift, before, now), strict=True))
    moved = {row.id: found.get(row.id) or (None, None) for row in rows[""]}
    return {name: {row: pair[at] for row, pair in moved.items()} for at, name in enumerate(NEEDS)}


def attributed(model: "nn.Module", batch: "Batch", params: Params) -> FloatArray:
    """A of every unit, the blocks one after another, bottom first.

    Args:
        model: A causal language model; its weights get no gradient.
        batch: Padded rows; the tokens of the facts are supervised.
        params: What is attributed and how, and at which positions.

    Returns:
        [B, units], in the unit of what is attributed.
    """
    import torch

    from expunge.lm.hooks import evaluating

    with evaluating(model):
        along = _integrated if params.path == "integrated" else _products
        found = along(model, batch, params)
    joined: FloatArray = torch.cat([block.cpu().double() for block in found], dim=1).numpy()
    return joined


def shift(before: FloatArray, now: FloatArray) -> tuple[float, float] | None:
    """D+ and D- of one row.

    Args:
        before: [units], attributions in the original.
        now: [units], in this model.

    Returns:
        Both; None where no attribution of the original is positive.

    Example:
        >>> shift(np.array([3.0, 1.0, -2.0]), np.array([0.0, 1.0, -4.0]))
        (0.75, 0.5)
    """
    held, kept = np.maximum(before, 0.0), np.maximum(now, 0.0)
    against, more = np.maximum(-before, 0.0), np.maximum(-now, 0.0)
    scale = float(held.sum())
    if scale == 0.0:
        return None
    gone = float(np.maximum(held - kept, 0.0).sum()) / scale
    return gone, float(np.maximum(more - against, 0.0).sum()) / scale


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Mean over rows of the share of what moved that is erasing.

    Args:
        scores: D+ and D-: row id -> value.
        params: Not used.
        reference: Not used.

    Returns:
        The share of each row as ``per_row``; ``d_plus`` and ``d_minus`` of the same rows beside it,
        their means as parts. Not measurable where no row moved.
    """
    if lacking := [name for name in NEEDS if name not in scores]:
        return unmeasurable(f"{', '.join(lacking)} were not read: it takes the original")
    rows = aligned(scores, *NEEDS)
    if not rows:
        return unmeasurable("no unit of the original speaks for the value of any row")
    if broken := [row for row, pair in rows.items() if not all(map(math.isfinite, pair))]:
        return unmeasurable(f"{len(broken)} of {len(rows)} rows are not a number ({broken[0]})")
    moved = {row: pair for row, pair in rows.items() if sum(pair) > NOTHING}
    if not moved:
        return unmeasurable("no attribution moved: nothing was forgotten, by erasing or by hiding")
    beside = {
        name: {row: pair[at] for row, pair in moved.items()}
        for at, name in enumerate(("d_plus", "d_minus"))
    }
    shares = {row: gone / (gone + against) for row, (gone, against) in moved.items()}
    return Value(
        mean=fmean(shares.values()),
        per_row=shares,
        beside=beside,
        parts={name: fmean(of.values()) for name, of in beside.items()},
        note=_left_out(len(asked(scores, NEEDS[0])), len(rows), len(moved)),
    )


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The mean share [rows], and the means of D+ and D-."""
    return {"mean": float(rows.mean())} | {name: float(of.mean()) for name, of in beside.items()}


def _integrated(model: "nn.Module", batch: "Batch", params: Params) -> list["Tensor"]:
    """``h`` times the mean gradient on its way, for each block [B, units].

    The product at s / S of the way has that share of ``h`` in it, so the mean takes 1 / s of it.
    """
    import torch

    from expunge.lm.neurons import handed_on
    from expunge.lm.scoring import packed_logp

    with torch.no_grad(), handed_on(model) as own:
        packed_logp(model, batch)
    total = [h.new_zeros(h.shape[0], h.shape[2], dtype=torch.float64) for h in own]
    for step in range(1, params.steps + 1):
        with _held(model, [h.detach() * (step / params.steps) for h in own]):
            found = _products(model, batch, params)
        for whole, part in zip(total, found, strict=True):
            whole.add_(part.double() / step)
    return total


def _products(model: "nn.Module", batch: "Batch", params: Params) -> list["Tensor"]:
    """``h dv / dh`` at the positions that count, for each block [B, units]."""
    import torch

    from expunge.lm.neurons import activation_times_gradient, handed_on

    with torch.enable_grad(), handed_on(model) as hidden:
        value = _value(model, batch, params.of)
    where = torch.ones_like(batch.labels, dtype=torch.bool)
    if params.positions == "answer":
        where = torch.zeros_like(where)
        where[:, :-1] = batch.labels[:, 1:] != -100
    return activation_times_gradient(value, hidden, where)


@contextmanager
def _held(model: "nn.Module", hidden: "Sequence[Tensor]") -> Iterator[None]:
    """Let the units of each block hand on these [B, T, units] instead of their own."""
    from expunge.lm.arch import Slots

    slots = Slots(model)

    def instead(_: "nn.Module", given: tuple[Any, ...], layer: int) -> tuple[Any, ...]:
        return (hidden[layer], *given[1:])

    handles = [
        slots.module(layer, "mlp_out").register_forward_pre_hook(partial(instead, layer=layer))
        for layer in range(len(slots))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _value(model: "nn.Module", batch: "Batch", of: str) -> "Tensor":
    """The sum over rows of what is attributed, with its graph."""
    from expunge.lm.margins import margins
    from expunge.lm.neurons import answer_probability
    from expunge.lm.scoring import packed_logp

    scored = packed_logp(model, batch, with_logits=True)
    if of != "odds" or scored.logits is None:
        return answer_probability(scored.logp, scored.row, len(batch.labels), of == "product").sum()
    labels = batch.labels[:, 1:][batch.labels[:, 1:] != -100].to(scored.logits.device)
    tokens = scored.row.bincount()[scored.row]
    return (margins(scored.logits, labels) / tokens).sum()


def _batches(
    subject: "Subject", places: Mapping[str, "Spot"]
) -> Iterator[tuple[list[str], "Batch"]]:
    """Row ids and their padded tokens, the longest first."""
    from expunge.data.encode import by_length, collate
    from expunge.lm.scoring import padding_id

    names = list(places)
    for chosen in by_length([len(spot.item.ids) for spot in places.values()], subject.batch_size):
        some = [names[at] for at in chosen]
        yield some, collate([places[row].item for row in some], padding_id(subject.tokenizer))


def _require_same_units(before: FloatArray, now: FloatArray) -> None:
    if before.shape != now.shape:
        raise ExpungeError(
            "E-USE-006",
            f"A model with {now.shape[1]} MLP units, and an original with {before.shape[1]}.",
            "models of one shape: units are compared one by one.",
            "Give the original of this very model.",
        )


def _left_out(rows: int, read: int, moved: int) -> str:
    notes = [f"{rows - read} of {rows} rows have no positive attribution in the original"]
    notes = notes if rows > read else []
    notes += [f"{read - moved} of {rows} rows did not move"] if read > moved else []
    return "; ".join(notes)
