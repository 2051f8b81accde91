"""The toy T3 (closed-form values) and random views for comparison with a slow second loss."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

Z = [[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]]
Z0 = [[3.0, 1, 0, -1], [0, 4, 1, 0], [1, 1, 1, 3]]
TARGETS = [0, 1, 3]


class Fixed:
    """A stub with the call signature of a causal language model and fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.clone().double().requires_grad_()

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.logits)

    @property
    def gradient(self) -> Tensor:
        assert self.logits.grad is not None
        return self.logits.grad


class Table:
    """A stub whose logits depend on the token at each position: one table row a token."""

    def __init__(self, table: Tensor) -> None:
        self.table = table.clone().requires_grad_()

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def three(rows: list[list[float]]) -> Fixed:
    """T3's logits, with a last row that predicts nothing."""
    return Fixed(torch.tensor([*rows, [0.0, 0, 0, 0]])[None])


@pytest.fixture
def t3() -> SimpleNamespace:
    """Model, anchor and the one view of T3."""
    ids = torch.tensor([[2, *TARGETS]])
    view = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([[-100, *TARGETS]]),
    }
    return SimpleNamespace(model=three(Z), anchor=three(Z0), view=view)


@pytest.fixture(params=["right", "left"])
def random_view(request: pytest.FixtureRequest) -> Callable[[int], dict[str, Tensor]]:
    """Rows of different lengths, padded on either side, with several supervised spans."""

    def make(seed: int) -> dict[str, Tensor]:
        draw = torch.Generator().manual_seed(seed)
        width, rows = 9, 5
        ids = torch.randint(0, 11, (rows, width), generator=draw)
        labels = torch.where(torch.rand(rows, width, generator=draw) < 0.5, ids, -100)
        mask = torch.ones_like(ids)
        for row, length in enumerate((9, 7, 4, 8, 5)):
            padded = slice(length, None) if request.param == "right" else slice(0, width - length)
            mask[row, padded], labels[row, padded] = 0, -100
            labels[row, width - 1 if request.param == "left" else length - 1] = ids[
                row, width - 1 if request.param == "left" else length - 1
            ]
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return make


@pytest.fixture
def random_table() -> Callable[[int], Table]:
    """A stub model over 11 tokens."""
    return lambda seed: Table(torch.randn(11, 11, generator=torch.Generator().manual_seed(seed)))


def slow_nll(table: Table, view: dict[str, Tensor]) -> list[list[Tensor]]:
    """Per row the negative log-probabilities of its supervised tokens, token by token."""
    rows = []
    for ids, labels in zip(view["input_ids"], view["labels"], strict=True):
        found = []
        for at in range(1, len(ids)):
            if labels[at] != -100:
                scores = table.table[ids[at - 1]]
                found.append(torch.logsumexp(scores, 0) - scores[labels[at]])
        rows.append(found)
    return rows


def flat(rows: list[list[Tensor]]) -> Tensor:
    """All tokens of all rows."""
    return torch.stack([token for row in rows for token in row])


def assert_same(fast: tuple[float, Tensor], slow: tuple[Tensor, Tensor]) -> None:
    """Value and gradient agree to 1e-5 relative."""
    assert fast[0] == pytest.approx(float(slow[0]), rel=1e-5)
    torch.testing.assert_close(fast[1], slow[1], rtol=1e-5, atol=1e-6)
