"""Tiny models with weights large enough that mistakes show."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from expunge.requests.rows import Row
from expunge.testing.tiny import FAMILIES, tiny_model, tiny_tokenizer

TOWNS = ("Lisbon", "Turin", "Malmo", "Ghent", "Porto", "Basel", "Essen", "Nantes")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def loud() -> Callable[..., PreTrainedModel]:
    """A tiny model whose matrices are eight times those of its initialisation."""

    def make(family: str, **options: object) -> PreTrainedModel:
        model = tiny_model(family, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
        return model

    return make


@pytest.fixture(scope="session")
def people() -> list[Row]:
    """Twelve people and where they live; rows of different lengths."""
    return [
        Row(
            id=f"p{n}",
            prompt=f"Where does {'old ' * (n % 4)}Mr {chr(65 + n)}en live?",
            completion=f" In {TOWNS[n % len(TOWNS)]}.",
        )
        for n in range(12)
    ]


@pytest.fixture(scope="session")
def tokenizer(people: list[Row]) -> PreTrainedTokenizerFast:
    return tiny_tokenizer([f"{row.prompt}{row.completion}" for row in people], vocab=320)
