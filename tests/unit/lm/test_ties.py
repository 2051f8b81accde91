"""TIES: the sign is voted for by size, those who lost do not count, small entries go."""

import pytest
import torch

from expunge.lm.ties import ties


def test_the_card_s_vectors() -> None:
    merged = ties([torch.tensor([1.0, -2.0]), torch.tensor([3.0, 1.0])], [1.0, 1.0], 1.0)
    assert merged.tolist() == [2.0, -2.0]


def test_equal_weights_of_any_size_give_the_same() -> None:
    changes = list(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(ties(changes, [1 / 3] * 3, 0.6), ties(changes, [1.0] * 3, 0.6))


def test_zeros_have_no_vote_and_no_share() -> None:
    merged = ties([torch.tensor([0.0, 0.0]), torch.tensor([-3.0, 0.0])], [1.0, 1.0], 1.0)
    assert merged.tolist() == [-3.0, 0.0]


def test_a_draw_goes_to_plus() -> None:
    assert ties([torch.tensor([2.0]), torch.tensor([-2.0])], [1.0, 1.0], 1.0).tolist() == [2.0]


def test_weights_count_in_the_vote_and_in_the_mean() -> None:
    first, second = torch.tensor([3.0, 1.0]), torch.tensor([-4.0, 4.0])
    merged = ties([first, second], [0.6, 0.4], 1.0)
    assert merged.tolist() == pytest.approx([3.0, (0.6 * 1 + 0.4 * 4) / 1.0])


def test_each_keeps_its_largest_entries() -> None:
    change = torch.tensor([[4.0, -1.0], [0.5, -3.0]])
    assert ties([change], [1.0], 0.5).tolist() == [[4.0, 0.0], [0.0, -3.0]]
    assert torch.equal(ties([change], [1.0], 1.0), change)


def test_one_after_the_other_is_averaged_where_they_agree() -> None:
    changes = torch.randn(4, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = [0.1, 0.2, 0.3, 0.4]
    merged = ties(list(changes), weights, 1.0)
    for entry in range(30):
        voted = sum(w * float(c[entry]) for w, c in zip(weights, changes, strict=True))
        same = [
            (w, float(c[entry]))
            for w, c in zip(weights, changes, strict=True)
            if (float(c[entry]) > 0) == (voted >= 0)
        ]
        mean = sum(w * c for w, c in same) / sum(w for w, _ in same)
        assert float(merged[entry]) == pytest.approx(mean)
