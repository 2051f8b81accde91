"""The guard in a model that is served, and in one that its strength is tried on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from expunge.core.rng import generator
from expunge.engine.guarding.desk import Desk, Means, mark_of
from expunge.engine.guarding.heard import Heard
from expunge.engine.guarding.inside import hits_of
from expunge.engine.guarding.knowing import Ruler
from expunge.engine.guarding.ladder import Hit
from expunge.engine.guarding.targets import Target
from expunge.guards.eco import PREFIX
from expunge.guards.eco.board import Corruption
from expunge.guards.eco.tuning import tuned
from expunge.requests.rows import Row
from expunge.text.classifier import Classifier

if TYPE_CHECKING:
    from expunge.guards.eco import Params

ANY = "*"
"""Stands for the targets that the classifier does not tell apart."""


class Serving(Corruption):
    """The guard at work on what its desk holds, whatever comes or goes.

    Args:
        tokenizer: The model's.
        desk: The guard's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, desk: Desk) -> None:
        super().__init__(tokenizer, desk.params, desk.means.secret)
        self._desk = desk

    @property
    def mark(self) -> int:
        """Of all that are taken in."""
        return self._desk.mark

    def fires(self, ids: Sequence[int], heard: Heard) -> bool:
        """Whether a target is named, here or at the door, or the classifier is sure enough."""
        named = self._desk.params.named and hits_of(ids, heard.texts, self._desk)
        return bool(named) or bool(hits(heard.texts, self._desk))

    def sigma(self, width: int) -> "np.ndarray[Any, Any]":
        """The tuned strength; where there was nothing to tune on, the width."""
        found = self._desk.shared.get("sigma")
        return np.array([float(width)] if found is None else found, dtype=float)


class Trial(Corruption):
    """Every prompt corrupted with one strength.

    Args:
        tokenizer: The model's.
        params: The guard's.
        means: What the guard may use.
        targets: Ids of the targets.
        sigma: The strength.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        params: "Params",
        means: Means,
        targets: Sequence[str],
        sigma: "np.ndarray[Any, Any]",
    ) -> None:
        super().__init__(tokenizer, params, means.secret)
        self._mark, self._sigma = mark_of(targets), sigma

    @property
    def mark(self) -> int:
        """Of those it is tuned for."""
        return self._mark

    def fires(self, ids: Sequence[int], heard: Heard) -> bool:
        """Always."""
        return True

    def sigma(self, width: int) -> "np.ndarray[Any, Any]":
        """The strength that is tried."""
        return self._sigma


def hits(texts: Sequence[str], desk: Desk) -> list[Hit]:
    """What fires for some texts; without targets, nothing."""
    if not desk.entries:
        return []
    found = desk.ladder.hits(texts) if desk.params.named else []
    if f"{PREFIX}weights" not in desk.arrays:
        return found
    sure = float(Classifier.of(desk.arrays, PREFIX).probability(texts).max())
    is_sure = sure > max(float(desk.shared["tau"]), 0.5)
    return [*found, Hit(ANY, "classifier", sure)] if is_sure else found


def tuned_on(
    rows: Sequence[Row], targets: Sequence[Target], params: "Params", means: Means
) -> dict[str, Any]:
    """The strength that makes a model say of some rows what one says that never knew them."""
    assert means.subject is not None  # noqa: S101
    ruler = Ruler(means.subject, rows, params.metric)
    stranger = params.surrogate
    if stranger is None:
        stranger = ruler.stranger(means.seed)
    ids, tokenizer = [target.id for target in targets], means.subject.tokenizer

    def known(sigma: "np.ndarray[Any, Any]") -> float:
        return ruler.known(Trial(tokenizer, params, means, ids, sigma))

    found = tuned(
        known,
        stranger,
        start=params.start,
        least=params.least,
        eta=params.eta,
        steps=params.steps,
        slack=params.slack,
        size=params.n if params.vector else 1,
        rng=generator(means.seed, "eco", "tuning"),
    )
    return {
        "sigma": found.sigma.tolist(),
        "known": found.known,
        "stranger": stranger,
        "is_reached": found.is_reached,
    }
