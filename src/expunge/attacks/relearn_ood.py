"""Relearning, out of domain: fine-tune a copy on rows to be kept and ask for the forgotten ones.

Definition:
    M' = fine-tune( M, retain rows; 50 steps, batch 8, fresh AdamW )
    leak_i = leak of row i, asked M' directly in every wording

    No forgotten fact is taught, so whatever returns was still in the weights.
    curve and the rule for an invalid run are those of `relearn_in`.

Reference: Unlearning or Obfuscating? Jogging the Memory of Unlearned LLMs via Benign Relearning,
2024.

Departs from the paper: its benign text is chosen to be near the forgotten topic; here it is the
user's own retain set, what an honest operator would fine-tune on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.core.params import param
from expunge.core.results import Leak
from expunge.lm.relearn import attack_rate, relearn
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

CARD = {
    "id": "relearn-ood",
    "kind": "attack",
    "summary": "Fine-tune on rows to be kept and ask for the forgotten ones.",
    "paper": "Unlearning or Obfuscating? Jogging the Memory of Unlearned LLMs via Benign "
    "Relearning (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "50 optimiser steps and 5 answers a wording",
    "maturity": "paper",
    "version": 1,
    "family": "training",
    "level": "W",
    "threshold": 0.10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The lesson."""

    steps: int = param(50, help="optimiser steps", low=0, high=100_000)
    batch_size: int = param(8, help="rows a step", low=1, high=4096)
    lr: float | Literal["auto"] = param(
        "auto",
        help="learning rate; auto takes 3e-4 below 0.5B parameters, falling to 5e-5 at 1B",
        low=0.0,
        high=1.0,
    )
    max_drop: float = param(
        0.2, help="loss of retain rows answered beyond which the run is invalid", low=0.0, high=1.0
    )


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Teach retain rows, test all attacked rows."""
    if not scene.retain or not rows:
        return Leak(per_row={}, note="no retain rows to fine-tune on" if rows else "")
    found = relearn(
        subject,
        rows,
        scene.retain,
        scene,
        steps=params.steps,
        batch_size=params.batch_size,
        lr=attack_rate(subject) if params.lr == "auto" else params.lr,
        max_drop=params.max_drop,
    )
    return Leak(
        per_row=found.per_row,
        transcript=found.transcript,
        curve=found.curve,
        parts=found.parts,
        invalid=found.invalid,
    )
