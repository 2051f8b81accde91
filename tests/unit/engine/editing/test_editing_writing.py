"""Keys and matrices: second moments, ridge, the change of rank one, every layout of a weight."""

from pathlib import Path

import pytest
import torch

from expunge.engine.datasets import Datasets
from expunge.engine.editing import keys as keys_room
from expunge.engine.editing.associations import associations
from expunge.engine.editing.keys import clashing, keys_of, moment
from expunge.engine.editing.values import entering_at
from expunge.engine.editing.writing import RIDGE, rank_one, ridged, write
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.testing import tiny_model
from expunge.testing.methods import taught_subject, world


def datasets_of(folder: Path | None = None) -> Datasets:
    subject = taught_subject()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world().forget, "retain": world().retain}, folder=folder,
    )  # fmt: skip
    return Datasets(task)


def texts() -> list:
    encoder = taught_subject().encoder
    return [encoder.encode(row.training) for row in world().retain]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ([[2.0, 1.0], [1.0, 2.0]], [[0.0, 0.5], [1.0, 0.5]]),
        ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]),
    ],
)
def test_the_change_of_rank_one_in_closed_form(moment: list, expected: list) -> None:
    """The card's check: W = I, k = (1, 0), v* = (0, 1)."""
    key, weight = torch.tensor([1.0, 0.0]), torch.eye(2, dtype=torch.float64)
    missing = torch.tensor([0.0, 1.0]) - weight @ key.double()
    made = weight + rank_one(torch.tensor(moment, dtype=torch.float64), key, key, missing)
    torch.testing.assert_close(made, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(made @ key.double(), torch.tensor([0.0, 1.0]).double())
    assert torch.linalg.matrix_rank(made - weight) == 1


def test_the_averaged_key_gives_the_direction_and_the_bare_one_the_value() -> None:
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64, generator=draw)
    spread = root @ root.T + torch.eye(6, dtype=torch.float64)
    key, bare, missing = (torch.randn(6, generator=draw).double() for _ in range(3))
    change = rank_one(spread, key, bare, missing)
    torch.testing.assert_close(change @ bare, missing)
    direction = torch.linalg.solve(spread, key)
    cosine = torch.nn.functional.cosine_similarity(change[0], direction, dim=0).abs()
    assert cosine == pytest.approx(1.0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3", "gemma3", "phi3"])
def test_a_change_is_added_in_the_layout_of_the_family(family: str) -> None:
    model = tiny_model(family, hidden=32)
    out = Slots(model).module(1, "mlp_out")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wide = out.weight.numel() // 32
    keys = torch.randn(5, wide, generator=torch.Generator().manual_seed(0))
    change = torch.randn(32, wide, generator=torch.Generator().manual_seed(1)).double()
    plain = out(keys)
    write(model, 1, change)
    torch.testing.assert_close(out(keys) - plain, keys @ change.T.float(), rtol=1e-3, atol=1e-3)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{Slots(model).names(1, 'mlp_out')[0]}.weight"}


def test_coarse_weights_are_rounded_once() -> None:
    model = tiny_model("llama", hidden=32, dtype=torch.bfloat16)
    weight = Slots(model).module(0, "mlp_out").weight
    before, change = weight.detach().double(), torch.full(weight.shape, 1e-3).double()
    write(model, 0, change)
    assert torch.equal(weight, (before + change).to(torch.bfloat16))


def test_the_second_moment_against_a_slow_second_way() -> None:
    subject, datasets = taught_subject(), datasets_of()
    found = moment(subject.model, datasets, texts(), 1)
    entered: list[torch.Tensor] = []
    handle = (
        Slots(subject.model)
        .module(1, "mlp_out")
        .register_forward_pre_hook(lambda _, given: entered.append(given[0][0].double()))
    )
    with torch.no_grad():
        for item in texts():
            subject.model(input_ids=torch.tensor([item.ids]))
    handle.remove()
    slow, count = torch.zeros_like(found), 0
    for key in torch.cat(entered):
        slow, count = slow + torch.outer(key, key), count + 1
    torch.testing.assert_close(found, slow / count, rtol=1e-4, atol=1e-6)
    assert found.dtype == torch.float64


def test_a_second_moment_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, datasets = taught_subject(), datasets_of(tmp_path / "made")
    first = moment(subject.model, datasets, texts(), 0)
    calls = []
    monkeypatch.setattr(keys_room, "_computed", lambda *given: calls.append(given) or first)
    assert torch.equal(moment(subject.model, datasets, texts(), 0), first)
    assert not calls
    moment(subject.model, datasets, texts(), 1)
    moment(subject.model, datasets, texts()[1:], 0)
    other = subject.copy().model
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    moment(other, datasets, texts(), 0)
    assert len(calls) == 3  # another block, other texts, other weights


def test_a_ridge_makes_any_moment_invertible() -> None:
    low = torch.diag(torch.tensor([4.0, 0.0], dtype=torch.float64))
    expected = [4 + 2 * RIDGE, 2 * RIDGE]
    torch.testing.assert_close(ridged(low).diagonal(), torch.tensor(expected).double())


def test_keys_are_means_over_prompts_or_over_their_two_kinds() -> None:
    subject, datasets = taught_subject(), datasets_of()
    rows = world().forget[:2]
    asked = associations(
        rows, {row.id: "I" for row in rows}, subject.encoder, place="last",
        contexts=("It is", "I do not", "Where was"),
    )  # fmt: skip
    found = keys_of(subject.model, datasets, asked, 0)
    grouped = keys_of(subject.model, datasets, asked, 0, by_group=True)
    for at, one in enumerate(asked):
        each = torch.cat(
            [entering_at(subject.model, datasets, [prompt], 0, "mlp_out") for prompt in one.prompts]
        )
        torch.testing.assert_close(found[at], each.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            grouped[at], (each[0] + each[1:].mean(0)) / 2, rtol=1e-4, atol=1e-5
        )
    alone = associations(rows, {row.id: "I" for row in rows}, subject.encoder, place="last")
    keys = keys_of(subject.model, datasets, alone, 0)
    assert torch.equal(keys, keys_of(subject.model, datasets, alone, 0, by_group=True))


def test_keys_that_cannot_be_told_apart_are_counted() -> None:
    keys = torch.tensor([[1.0, 0.0], [2.0, 0.01], [0.0, 1.0], [3.0, 0.0]])
    assert clashing(keys) == 3
