"""Negative preference: how much likelier an answer is than under the frozen anchor, damped.

    f(r) = -(2 / beta) * log sigmoid( -beta * r ),   r = logp - logp0

Its slope, ``2 sigmoid(beta r)``, is 1 where model and anchor agree and fades as the answer becomes
less likely than it was. Sums over a row are formed before the sigmoid, means over rows after it.

Reference: Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning,
2024.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.engine.mean import Mean, mean_of
from expunge.engine.view import View


def preference(ratio: Tensor, beta: float) -> Tensor:
    """``-(2 / beta) log sigmoid(-beta ratio)``, element by element, nats.

    Args:
        ratio: Log-probability now less that under the anchor, nats; any shape.
        beta: Sharpness; towards 0 the value becomes ``ratio`` and a constant.
    """
    return -2 / beta * logsigmoid(-beta * ratio)


def row_preference(view: View, beta: float) -> Mean:
    """Mean over rows of `preference` of the log-probability of each row's whole answer."""
    return mean_of(preference(view.logp - view.anchor.logp, beta))
