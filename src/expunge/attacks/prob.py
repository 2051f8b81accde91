"""Probability of the true value: the model need not say it, it is enough that it prefers it.

Definition (own answer with the true value v0, or with a rival v1..vk in its place):
    p_j    = exp( mean over tokens of v_j of log p(token | question, answer so far) )
    leak_i = max over wordings of  p_0 / (p_0 + p_1 + ... + p_k)

    rivals = values that other rows of the same attribute have (in-set swaps). A model that knows
    nothing gives 1 / (k + 1), however common the values are.
    Fewer than 6 such values: the row's own wrong answers, with threshold .25. None of those
    either: extraction strength of the answer, the share of its tokens that follow by themselves
    from the rest.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024 (probability among wrong answers).

Departs from the paper: rivals are swaps inside the set, read at the value's tokens only. With five
written wrong answers and whole sentences, chance and its spread are so large that retrained models
do not pass at a hundred rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from expunge.core.params import param
from expunge.core.results import Leak
from expunge.lm.readout import read, share_of_first
from expunge.lm.subject import Scene, Subject
from expunge.lm.values import draw
from expunge.requests.rows import Row

CARD = {
    "id": "prob",
    "kind": "attack",
    "summary": "Compare the probability of the true value with that of values in its place.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["forget"],
    "access": "logits",
    "cost": "1 forward pass a wording and a few tokens a rival",
    "maturity": "paper",
    "version": 1,
    "family": "prob",
    "level": "L",
    "threshold": 0.10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The rivals."""

    k: int = param(11, help="rival values of a row, at most", paper=5, low=1, high=100)
    form: Literal["auto", "swaps", "wrong", "strength"] = param(
        "auto", help="which rivals; auto takes the first of the others that most rows have"
    )


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Share of the true value among its rivals, teacher forced."""
    field = draw(rows, k=params.k, seed=scene.seed, form=params.form)
    per_row: dict[str, float] = {}
    for contest, readings in zip(field.contests, read(subject, field.contests), strict=True):
        alone = field.form == "strength"
        leak = readings[0].strength if alone else float(share_of_first(readings)[-1])
        per_row[contest.row] = max(per_row.get(contest.row, 0.0), leak)
    return Leak(per_row=per_row, threshold=field.threshold, note=field.note)
