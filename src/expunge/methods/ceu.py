"""CE-U: learn the model's own distribution with the target taken out.

Objective:
    L = gamma * tokenmean_F( CE( q_t, p_t ) ) + alpha * RETAIN
    q_t = softmax( sg(z_t) with z_t[target] = -inf )

    q_t is made anew at every step. The first ``skip`` answer tokens of a row are left out. The
    gradient with respect to the logits is p_y on the target and -p_k p_y / (1 - p_y) elsewhere: it
    fades as the target does.

Reference: CE-U: Cross Entropy Unlearning, 2025.

Departs from the paper:
    A retain term can be asked for; the paper's method has none, nor has the default. A row whose
    every token is skipped counts for nothing.
"""

from dataclasses import dataclass

from torch.nn.functional import log_softmax, one_hot

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import Mean, mean_of
from expunge.engine.step import Step

CARD = {
    "id": "ceu",
    "kind": "gradient",
    "summary": "Self-distillation to the own distribution without the target token.",
    "paper": "CE-U: Cross Entropy Unlearning (2025)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows per step",
    "maturity": "beta",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters and the number of tokens left out."""

    retain_term: str = param(
        "none", help="what keeps the rest", paper="none", choices=("none", "nll", "kl", "mse")
    )
    skip: int = param(1, help="first answer tokens of a row that are left out", paper=1, low=0)


def forget(step: Step, params: Params) -> Mean:
    """Token-mean cross-entropy to the distribution without the target, nats."""
    view = step.forget
    used = view.position >= params.skip
    logits, targets = view.logits[used], view.labels[used]
    hit = one_hot(targets, logits.shape[-1]).bool()
    teacher = logits.detach().masked_fill(hit, float("-inf")).softmax(-1)
    return mean_of(-(teacher * log_softmax(logits, -1)).sum(-1))
