"""What an ensemble says of the rows it was trained on: each shard alone, and all of them heard.

    k(row) = share of the tokens of the row's value that are the model's first choice

A row is known by one voice of m. What is heard gives its value ``p / m`` of what that voice gives,
and to whatever the others say in its place the rest: where they agree on something else, that is
said. So an ensemble can be useless in two ways, and each is told: its shards learnt nothing, or the
mean does not let them be heard.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from expunge.core.rng import generator
from expunge.engine.exact.serving import Voices, adapters_of, speakers
from expunge.engine.exact.state import Ensemble
from expunge.engine.measure import ITEMS
from expunge.engine.runtime import Part
from expunge.lm.subject import Subject
from expunge.lm.values import places
from expunge.requests.rows import Row

LEARNABLE = 0.1
"""The original's lead over the base below which there was hardly anything to be learnt."""

ENOUGH = 0.5
"""Share of that lead from which an ensemble counts as having learnt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """How well some rows of an ensemble are known: means of ``k`` over them.

    Attributes:
        rows: Their number.
        base: By the base model.
        original: By the original.
        alone: By the voice of each row's own shard.
        heard: By all voices together.
    """

    rows: int
    base: float
    original: float
    alone: float
    heard: float

    def share(self, known: float) -> float:
        """How much of the original's lead over the base is there; 1 where there is no lead."""
        lead = self.original - self.base
        return (known - self.base) / lead if lead >= LEARNABLE else 1.0

    def caution(self, voices: int, mean: str) -> str:
        """What a user must know of such an ensemble; nothing where it is of use."""
        told = (
            f"of the values' tokens {self.alone:.0%} are the first choice of the voice that was "
            f"trained on them, {self.heard:.0%} of all {voices} together ({self.base:.0%} of the "
            f"base, {self.original:.0%} of the original)."
        )
        if self.share(self.alone) < ENOUGH:
            return (
                f"The ensemble learnt little of its own rows: {told} Raise --set epochs, or give "
                "another --set lr."
            )
        if self.share(self.heard) < ENOUGH:
            return (
                f"The ensemble knows its rows and does not say them: {told} A row is known by one "
                f"voice of {voices}, and the mean of {mean} is what is heard. Lower --set shards: "
                "with --set shards=1 nothing is averaged. What a deletion then costs stands in the "
                "record of the change."
            )
        return ""


class Knowing:
    """Asks a base, an original and the voices of an ensemble.

    Args:
        base: The base model, without the ensemble.
        original: The original.
        rows: Hash of its content -> row; what is not there is not asked.
        seed: Decides which rows are asked, where there are more than `ITEMS`.
    """

    def __init__(
        self, base: Subject, original: Subject, rows: Mapping[str, Row], seed: int
    ) -> None:
        self._base, self._original, self._rows, self._seed = base, original, rows, seed

    def known(self, ensemble: Ensemble, folder: Path, part: Part) -> Known | None:
        """How well an ensemble knows rows of its own; None where none of them is at hand.

        Args:
            ensemble: Its state.
            folder: Where the files of its stages lie.
            part: What is served.
        """
        asked = self._asked(ensemble)
        everything = [row for rows in asked for row in rows]
        if not everything:
            return None
        voices = [
            adapters_of(folder, one.shard, one.sequence, one.chain.files)
            for one in speakers(ensemble)
        ]
        alone = [
            said
            for voice, rows in zip(voices, asked, strict=True)
            for said in self._heard([voice], rows, part.settings)
        ]
        return Known(
            rows=len(everything),
            base=_mean(_said(self._base, everything)),
            original=_mean(_said(self._original, everything)),
            alone=_mean(alone),
            heard=_mean(self._heard(voices, everything, part.settings)),
        )

    def _asked(self, ensemble: Ensemble) -> list[list[Row]]:
        """Of each voice the rows it was trained on, together at most `ITEMS`."""
        found = [
            (number, self._rows[member.key])
            for number, one in enumerate(speakers(ensemble))
            for member in ensemble.behind(one.shard, one.chain.order[: len(one.chain.files)])
            if member.key in self._rows
        ]
        if len(found) > ITEMS:
            draw = generator(self._seed, "known").choice(len(found), ITEMS, replace=False)
            found = [found[int(index)] for index in sorted(draw)]
        return [
            [row for number, row in found if number == voice]
            for voice in range(len(speakers(ensemble)))
        ]

    def _heard(
        self,
        voices: Sequence[Mapping[str, Tensor]],
        rows: Sequence[Row],
        settings: Mapping[str, Any],
    ) -> list[float]:
        """What some voices say together, which are in the model for that long."""
        model = self._base.model
        put = Voices(model, voices, float(settings["scale"]), str(settings["mean"])).put_in()
        try:
            return _said(Subject(model, self._base.tokenizer), rows)
        finally:
            for handle in put:
                handle.remove()


def _said(subject: Subject, rows: Sequence[Row]) -> list[float]:
    """Of each row the share of its value's tokens that are the first choice."""
    found = [places(row)[0] for row in rows]
    scored = subject.score(
        [place.turn for place in found], keep=[((place.start, place.end),) for place in found]
    )
    return [float(one.hit.mean()) if len(one.hit) else math.nan for one in scored]


def _mean(shares: Sequence[float]) -> float:
    told = [share for share in shares if not math.isnan(share)]
    return round(fmean(told), 4) if told else 0.0
