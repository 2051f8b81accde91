"""What a model says after it has been rounded to few bits, as operators do before they serve it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import Tensor

from expunge.lm.elicit import ask_plainly, elicit, plain, transcript, worst
from expunge.lm.quantise import agreement, codes_of, quantise_rtn
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

Rounding = Callable[[Subject], Mapping[str, Tensor]]
"""Rounds the weights of a copy in place; name of each linear -> its codes [out, in]."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """What was heard from the rounded copy.

    Attributes:
        per_row: Row id -> leak of the rounded copy.
        parts: ``rebound``, the mean leak after rounding minus the one before; and, where the
            original is at hand, ``identity_rate``, the share of weights whose code is the
            original's. Near 1 the unlearning lies below the grid step.
        transcript: One entry a row.
    """

    per_row: Mapping[str, float]
    parts: Mapping[str, float]
    transcript: tuple[Mapping[str, Any], ...]


def compress_and_ask(
    subject: Subject, rows: Sequence[Row], scene: Scene, rounding: Rounding | None
) -> Compressed:
    """Round the weights of a copy, then ask plainly.

    Args:
        subject: The model; it stays as it is.
        rows: The attacked rows.
        scene: Seed, answer length and, optionally, the original.
        rounding: What is done to the weights; None leaves them as they are.
    """
    if not rows:
        return Compressed({}, {}, ())
    before = worst(ask_plainly(subject, rows, new_tokens=scene.new_tokens))
    copy, parts = _merged(subject.copy()), {}
    if rounding:
        codes = rounding(copy)
        if scene.original is not None:
            original = rounding(_merged(scene.original.copy()))
            parts["identity_rate"] = fmean(agreement(codes, original).values())
    heard = elicit(copy, plain(rows), new_tokens=scene.new_tokens)
    after = worst(heard)
    parts["rebound"] = fmean(after.values()) - fmean(before.values())
    return Compressed(after, parts, transcript(heard))


def to_nearest(bits: int, group: int | None) -> Rounding:
    """Round all linears of the blocks to nearest.

    Args:
        bits: Bits of a weight.
        group: Weights of an output channel that share a step; None for the whole channel.
    """

    def rounding(copy: Subject) -> Mapping[str, Tensor]:
        codes = codes_of(copy.model, bits, group)
        quantise_rtn(copy.model, bits, group)
        return codes

    return rounding


def _merged(copy: Subject) -> Subject:
    """Fold adapters into the weights first, since that is what gets exported and rounded."""
    from peft import PeftModel

    if isinstance(copy.model, PeftModel):
        copy.model = copy.model.merge_and_unload()
    return copy
