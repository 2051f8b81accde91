"""What the ensemble is trained on: losses of other methods, on the logits of the ensemble."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import preference, row_preference
from expunge.engine.step import Step

if TYPE_CHECKING:
    from expunge.methods.delta_unlearning import Params

ASCENT = ("ga", "grad-diff", "kl-min")
"""Losses without a floor."""

NEEDS = {
    "npo": ["forget", "anchor"],
    "idk-nll": ["forget", "refusal"],
    "idk-dpo": ["forget", "refusal", "anchor"],
}
"""What a loss looks at, where that is more than the forget rows."""


def ascent(step: Step, params: "Params") -> Mean:
    """The negated token-mean negative log-likelihood of the answers."""
    return -step.forget.nll


def below_big(step: Step, params: "Params") -> Mean:
    """Mean over rows of the negated log-odds of staying below the large model."""
    return row_preference(step.forget, _beta(params))


def below_offset(step: Step, params: "Params") -> Mean:
    """Mean over rows of the negated log-odds of a mean loss above delta."""
    return mean_of(preference(step.forget.logp_mean + params.delta, _beta(params)))


def refusing(step: Step, params: "Params") -> Mean:
    """Token-mean negative log-likelihood of the refusals."""
    return step.refusal.nll


def rather_refusing(step: Step, params: "Params") -> Mean:
    """Mean over rows of the negated log-odds of preferring the refusal, against the large model."""
    won = step.refusal.logp - step.refusal.anchor.logp
    lost = step.forget.logp - step.forget.anchor.logp
    return mean_of(preference(lost - won, _beta(params)))


LOSSES: Mapping[str, Callable[[Step, "Params"], Mean]] = {
    **dict.fromkeys(ASCENT, ascent),
    "npo": below_big,
    "simnpo": below_offset,
    "idk-nll": refusing,
    "idk-dpo": rather_refusing,
}


def _beta(params: "Params") -> float:
    assert params.beta is not None  # noqa: S101
    return params.beta
