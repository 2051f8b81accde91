"""One detector: how much of the adapter a prompt gets, for the rows of one request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from expunge.engine.likeness import Likeness
from expunge.lm.encoders import Ids, Parts, TextEncoder
from expunge.lm.low_rank import LowRank


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """All that is kept of a request to know its prompts by.

    Attributes:
        encoder: Reads the prompts.
        beside: The low-rank matrices it was trained with.
        likeness: To the request's prompts; who has it can tell whether a guess was among them.
    """

    encoder: TextEncoder
    beside: Parts
    likeness: Likeness

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Ids]) -> Tensor:
        """[n], how much of the adapter each prompt gets."""
        return self.likeness(self.encoder.vectors(prompts, self.beside))

    @property
    def settings(self) -> dict[str, Any]:
        """What of it is no tensor."""
        return {
            "linears": list(self.beside),
            "scale": next((part.scale for part in self.beside.values()), 1.0),
            **self.likeness.settings,
        }

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What of it is."""
        found = self.likeness.tensors
        for place, part in enumerate(self.beside.values()):
            found |= {f"beside.{place}.a": part.a, f"beside.{place}.b": part.b}
        return found

    @classmethod
    def read(
        cls, encoder: TextEncoder, told: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> Self:
        """What `settings` and `tensors` gave.

        Raises:
            LookupError: When something is missing.
            ValueError: When it is made for another encoder.
        """
        beside = {}
        for place, name in enumerate(told["linears"]):
            a, b = (tensors[f"beside.{place}.{one}"].to(encoder.device) for one in "ab")
            beside[name] = LowRank(a, b, float(told["scale"])).requires_grad_(False)
            beside[name].check_fits(encoder.linear(name))
        return cls(encoder, beside, Likeness.read(told, tensors, encoder.device))
