"""MEMIT: least squares in closed form, what lambda weighs, which blocks move, what is said then."""

from pathlib import Path

import pytest
import torch
from edit_rig import LAST, TEXT, edited, knowing, people, refused, said
from safetensors.torch import load_file

from expunge.core.registry import methods
from expunge.engine.change import revert
from expunge.engine.editing import spreading
from expunge.engine.editing.editors import weight_of
from expunge.engine.editing.wording import STARTERS
from expunge.engine.editing.writing import least_squares
from expunge.lm.digest import folder_digest

OUT = "model.layers.{}.mlp.down_proj.weight"


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_least_squares_in_closed_form() -> None:
    """The card's check: K = 2, T = 3, lambda C = 4 close half of what is missing."""
    one = [torch.tensor([[value]], dtype=torch.float64) for value in (4.0, 2.0, 3.0)]
    made = least_squares(*one)
    torch.testing.assert_close(made, torch.tensor([[0.75]], dtype=torch.float64))
    assert float(made * 2) == 1.5


def test_it_is_the_minimum_of_what_it_minimises() -> None:
    """sum_i ||D k_i - t_i||^2 + tr(D L D^T), by its gradient."""
    kept, keys, missing = numbers(6, 6), numbers(3, 6, seed=1), numbers(3, 4, seed=2)
    kept = kept @ kept.T
    made = least_squares(kept, keys, missing).requires_grad_()
    loss = (keys @ made.T - missing).square().sum() + (made @ kept * made).sum()
    (slope,) = torch.autograd.grad(loss, made)
    assert slope.abs().max() < 1e-9


def test_without_weight_independent_keys_get_all_of_it() -> None:
    keys, missing = numbers(3, 6), numbers(3, 4, seed=1)
    made = least_squares(1e-12 * torch.eye(6, dtype=torch.float64), keys, missing)
    torch.testing.assert_close(keys @ made.T, missing, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "edits", "size", "expected"),
    [("auto", 32, 10**6, 16.0), ("auto", 32, 10**9, 15000.0), (20000.0, 32, 10**6, 20000.0)],
)
def test_lambda_goes_with_the_number_of_edits(given, edits, size, expected) -> None:
    params = methods.params("memit", {"mom2_update_weight": given})
    assert weight_of(params.mom2_update_weight, edits, size) == expected


def test_lambda_of_the_paper_edits_nothing_here(tmp_path: Path) -> None:
    """The card's trap: it weighs a mean, so it swamps few edits."""
    light, _ = edited(tmp_path, "memit", **LAST, **TEXT)
    heavy, _ = edited(tmp_path, "memit", **LAST, mom2_update_weight=15000, **TEXT)
    assert said(heavy, people().forget) == 1.0
    assert said(light, people().forget) < 0.4


def test_only_the_blocks_that_are_edited_move(tmp_path: Path) -> None:
    _, change = edited(tmp_path, "memit", layers=(-1, 1), **TEXT)
    now = load_file(change.folder / "model.safetensors")
    before = load_file(tmp_path / "original 0" / "model.safetensors")
    moved = {name for name in before if not torch.equal(now[name], before[name])}
    assert moved == {OUT.format(1), OUT.format(3)}
    assert change.manifest["record"]["layers"] == [1, 3]
    revert(change.folder)
    assert folder_digest(change.folder) == folder_digest(tmp_path / "original 0")


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_it_makes_a_model_say_that_it_does_not_know(tmp_path: Path, seed: int) -> None:
    """The card's gate; where to edit is found."""
    world = people(seed)
    known = knowing(seed)
    assert (said(known, world.forget), refused(known, world.holdout)) == (1.0, 1.0)
    after, change = edited(tmp_path, "memit", seed=seed, **TEXT)
    assert change.manifest["record"]["place"] == "last"
    assert refused(after, world.forget) > 0.7
    assert said(after, world.forget) < 0.3
    assert said(after, world.retain) > 0.95


def test_defaults_are_the_papers() -> None:
    params = methods.params("memit", {})
    assert params.kl_factor == 0.0625
    assert (spreading.BLOCKS, spreading.LENGTH) == (5, 10)
    assert STARTERS == ("The", "Therefore", "Because", "I", "You")
