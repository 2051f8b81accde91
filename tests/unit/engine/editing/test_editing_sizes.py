"""The papers' limits first, wider ones where they do not suffice, and given ones in any case."""

import pytest
import torch

from expunge.core.registry import methods
from expunge.engine.editing.editors import weight_of
from expunge.engine.editing.sizes import is_large, length_weight, limits_of

SMALL, LARGE = 1_000_000, 500_000_000


def test_large_begins_where_learning_rates_are_the_papers() -> None:
    assert is_large(LARGE)
    assert not is_large(LARGE - 1)


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("memit", {}, [(0.5, 0.75), (0.01, 1.5)]),
        ("rome", {}, [(0.5, 4.0), (0.01, 4.0)]),
        ("memit", {"clamp_norm_factor": 2.0}, [(0.5, 2.0), (0.01, 2.0)]),
        ("memit", {"v_weight_decay": 0.3}, [(0.3, 0.75), (0.3, 1.5)]),
        ("alphaedit", {"v_weight_decay": 0.3, "clamp_norm_factor": 2.0}, [(0.3, 2.0)]),
    ],
)
def test_the_papers_limits_come_first_and_given_ones_stand(method, given, expected) -> None:
    assert limits_of(methods.params(method, given)) == expected


def test_the_length_of_a_change_weighs_by_the_length_of_keys() -> None:
    assert length_weight(methods.params("alphaedit", {"l2": 7.0}), torch.ones(2, 3), SMALL) == 7.0
    params = methods.params("alphaedit", {})
    keys = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    assert length_weight(params, keys, LARGE) == 10.0
    assert length_weight(params, keys, SMALL) == pytest.approx(0.01 * (25 + 1) / 2)
    assert length_weight(params, 10 * keys, SMALL) == pytest.approx(26 / 2)


def test_other_keys_weigh_as_in_the_paper_or_by_the_number_of_edits() -> None:
    assert weight_of("auto", 12, LARGE) == 15000.0
    assert weight_of("auto", 12, SMALL) == 6.0
    assert weight_of(3.0, 12, SMALL) == 3.0
