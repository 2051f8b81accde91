"""AlphaEdit: the system in closed form, what lies in the null space, earlier edits, thresholds."""

from pathlib import Path

import pytest
import torch
from edit_rig import LAST, TEXT, datasets_of, edited, knowing, original, people, refused, said
from safetensors.torch import load_file

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import load_change
from expunge.engine.editing.keys import moment
from expunge.engine.editing.null_space import KEYS, constrained, null_space
from expunge.engine.run import forget

OPEN = {"threshold": 0.1, "l2": 0.1}
"""A null space and a weight that leave a small model something to write."""


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def test_the_system_in_closed_form() -> None:
    """The card's check: P = 1, K = 2, T = 3, L2 = 10 give 6/14."""
    made = constrained(one(1.0), one(2.0), one(3.0), one(0.0), 10.0)
    torch.testing.assert_close(made, one(6 / 14))


def test_it_solves_the_papers_system_and_stays_in_the_null_space() -> None:
    """Against the system as the paper writes it, which is not symmetric."""
    null = torch.linalg.qr(numbers(8, 3)).Q
    keys, missing, old = numbers(4, 8, seed=1), numbers(4, 5, seed=2), numbers(2, 8, seed=3)
    held, projector = old.T @ old, null @ null.T
    made = constrained(null, keys, missing, held, 10.0)
    system = projector @ (keys.T @ keys + held) + 10.0 * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(made.T, torch.linalg.solve(system, projector @ keys.T @ missing))
    torch.testing.assert_close(projector @ made.T, made.T)


def test_without_a_null_space_nothing_is_written() -> None:
    none = torch.zeros(8, 0, dtype=torch.float64)
    held = torch.zeros(8, 8, dtype=torch.float64)
    made = constrained(none, numbers(4, 8), numbers(4, 5), held, 10.0)
    assert made.shape == (5, 8)
    assert not made.any()


def test_keys_of_low_rank_are_left_alone() -> None:
    others = numbers(5, 12)
    null = null_space(others.T @ others / 5, methods.params("alphaedit", {}))
    assert null.shape == (12, 7)
    held = torch.zeros(12, 12, dtype=torch.float64)
    made = constrained(null, numbers(3, 12, seed=1), numbers(3, 4, seed=2), held, 1.0)
    assert (made @ others.T).norm() < 1e-5 * made.norm()
    assert made.norm() > 0.1


@pytest.mark.parametrize(
    ("nullspace", "threshold", "count"),
    [("energy", 0.02, 2), ("energy", 0.5, 3), ("absolute", 0.02, 2), ("absolute", 0.5, 2)],
)
def test_what_counts_as_null(nullspace: str, threshold: float, count: int) -> None:
    energy = torch.diag(torch.tensor([4.0, 0.01, 5.0, 1.0, 0.001], dtype=torch.float64))
    given = {"nullspace": nullspace, "threshold": threshold}
    found = null_space(energy, methods.params("alphaedit", given))
    assert found.shape == (5, count)
    small = sorted(float(found[:, at] @ energy @ found[:, at]) for at in range(count))
    assert small == pytest.approx([0.001, 0.01, 1.0][:count])


def test_an_absolute_threshold_means_another_thing_in_every_model() -> None:
    """The card's trap: the same text, keys a tenth as long, and everything is null."""
    keys = numbers(50, 6)
    spread, short = keys.T @ keys / 50, keys.T @ keys / 5000
    paper = methods.params("alphaedit", {"nullspace": "absolute", "threshold": 2e-2})
    with pytest.raises(ExpungeError, match="No direction of 6 is null"):
        null_space(spread, paper)
    assert null_space(short, paper).shape[1] >= 4
    share = methods.params("alphaedit", {"threshold": 0.2})
    assert null_space(spread, share).shape == null_space(short, share).shape


def test_what_was_edited_before_is_moved_less() -> None:
    null, key, missing = torch.eye(6, dtype=torch.float64), numbers(1, 6), numbers(1, 4, seed=1)
    free = torch.zeros(6, 6, dtype=torch.float64)
    first = constrained(null, key, missing, free, 1.0)
    second = constrained(null, key, missing, key.T @ key, 1.0)
    assert second.norm() < 0.9 * first.norm()


def test_the_null_space_spares_what_is_kept(tmp_path: Path) -> None:
    """The ablation: with every direction null, keys of what is kept are moved, and said less."""
    world, subject = people(), knowing()
    texts = [subject.encoder.encode(row.training) for row in world.retain]
    spread = moment(subject.model, datasets_of(subject, world), texts, 1)
    name = "model.layers.1.mlp.down_proj.weight"
    before = load_file(original(tmp_path) / "model.safetensors")[name]

    def moves(threshold: float) -> tuple[float, float]:
        after, change = edited(tmp_path, "alphaedit", **LAST, **TEXT, threshold=threshold, l2=0.1)
        made = (load_file(change.folder / "model.safetensors")[name] - before).double()
        moved = float(((made @ spread) * made).sum().sqrt() / made.norm())
        return moved, said(after, world.retain)

    (inside, kept), (anywhere, lost) = moves(1e-3), moves(2.0)
    assert inside < 0.2 * anywhere
    assert kept > 0.95 > lost + 0.1


def test_it_makes_a_model_say_that_it_does_not_know(tmp_path: Path) -> None:
    world = people()
    after, change = edited(tmp_path, "alphaedit", **LAST, **OPEN, **TEXT)
    assert refused(after, world.forget) > 0.5
    assert said(after, world.forget) < 0.5
    assert said(after, world.retain) > 0.8
    assert change.manifest["record"]["null"]["1"] > 20


def test_keys_go_on_to_the_next_request(tmp_path: Path) -> None:
    world, out = people(), tmp_path / "second"
    _, first = edited(tmp_path, "alphaedit", max_steps=4, **LAST, **TEXT)
    options = {"method": "alphaedit", "params": {"max_steps": 3, **LAST, **TEXT}, "stop_at": "none"}
    forget(first.folder, world.forget[8:], world.retain, out=out, **options)
    one, both = (load_file(folder / "made" / KEYS)["block 1"] for folder in (first.folder, out))
    assert (len(one), len(both)) == (4, 7)
    assert torch.equal(both[:4], one)
    alone = tmp_path / "alone"
    (first.folder / "made" / KEYS).unlink()
    forget(first.folder, world.forget[8:], world.retain, out=alone, **options)
    weights = [load_file(folder / "model.safetensors") for folder in (out, alone)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert load_change(out).summary["steps"] == 3


def test_defaults_are_the_papers() -> None:
    params = methods.params("alphaedit", {})
    assert params.contexts == 5
