"""Fine-tuning on the retain rows: what mere further training forgets. Not unlearning.

Objective:
    L = tokenmean_R( nll ),   from the model as it is

    Nothing pushes the forget rows away; what fades of them fades by interference. Most stays: it
    is a reference point that a method has to beat.

Reference: TOFU: A Task of Fictitious Unlearning for LLMs, 2024 (fine-tuning on retain data as a
point of comparison); Model Sparsity Can Simplify Machine Unlearning, 2023 (FT).

Departs from the paper:
    The penalty on the absolute size of the weights that the sparse form adds is not offered: a
    term sees what the model says of rows, not its weights. An epoch is a pass over the retain
    rows, in an order of their content's hash.
"""

from dataclasses import dataclass

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.step import Step

CARD = {
    "id": "ft-retain",
    "kind": "gradient",
    "summary": "Further training on retain rows; a point of comparison, not unlearning.",
    "paper": "TOFU: A Task of Fictitious Unlearning for LLMs (2024)",
    "needs": ["retain"],
    "access": "weights",
    "cost": "1 forward and backward over retain rows per step",
    "maturity": "beta",
    "version": 1,
    "passes": "retain",
    "caution": "Training on retain rows is not unlearning: nothing was pushed away, and what "
    "became unlikely comes back easily. Use it as a point of comparison.",
}

sample = "over-retain"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters; the retain term is all there is."""

    retain_term: str = param("nll", help="what is trained on", paper="nll", choices=("nll",))
    epochs: int | None = param(
        None, help="passes over the retain rows; none leaves it to max_steps", paper=5, low=1
    )


def forget(step: Step, params: Params) -> None:
    """Nothing is done about the forget rows."""
