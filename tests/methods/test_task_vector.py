"""Task-vector negation: the arithmetic, its ends, adapters, scope, the climb, and TINY's order."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from safetensors.torch import load_file
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.engine.change import read_manifest, revert
from expunge.engine.finish import Finishing, moved, weights_that_move
from expunge.engine.measure import Level
from expunge.engine.merge import climb, inside
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.headers import weight_files
from expunge.testing import objective, tiny_model
from expunge.testing.methods import stage, world

OVERFIT = {"max_steps": 12, "lr": 2e-3, "warmup": 0}


def test_the_forget_rows_are_learnt_at_first(random_table, random_view) -> None:
    model, view = random_table(1), random_view(3)
    found = objective("task-vector", model, {"forget": view})
    twin = random_table(1)
    slow = flat(slow_nll(twin, view)).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_the_example_of_the_card() -> None:
    assert moved(torch.tensor([1.0]), torch.tensor([1.5]), -0.5).item() == 0.75


def test_no_step_is_the_original_and_one_forward_the_trained_bit_for_bit() -> None:
    original, trained = torch.tensor([-0.0, 1e-8, 3.3]), torch.tensor([0.5, 1.0, -0.1])
    there = moved(original, trained, 0.0)
    assert torch.equal(there.view(torch.int32), original.view(torch.int32))
    assert torch.equal(moved(original, trained, 1.0), trained)


def test_what_training_left_alone_stays_bit_identical() -> None:
    original = torch.tensor([-0.0, float("inf"), 2.0])
    there = moved(original, torch.tensor([-0.0, float("inf"), 3.0]), -1.5)
    assert torch.equal(there[:2].view(torch.int32), original[:2].view(torch.int32))
    assert there[2].item() == 0.5


def test_small_differences_of_half_precision_are_not_lost() -> None:
    original, trained = torch.tensor([1.0, 256.0]).bfloat16(), torch.tensor([1.0078, 258.0])
    far = moved(original, trained.bfloat16(), -0.25)
    exact = original.float() - 0.25 * (trained.bfloat16().float() - original.float())
    assert torch.equal(far, exact.bfloat16())
    in_half = original + torch.tensor(-0.25).bfloat16() * (trained.bfloat16() - original)
    assert far.dtype == in_half.dtype == torch.bfloat16


def _trained(family: str = "llama", **options: object) -> tuple[Finishing, dict[str, Tensor]]:
    model = tiny_model(family, vocab=32, seed=0, **options)
    original = weights_that_move(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    known = Level(0.1, 0.9, (0.1,))
    task = SimpleNamespace(model=model)
    change = Finishing(
        model, original, task, before=(known, known), stop=None, measure=lambda: (known, known)
    )
    return change, {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2"])
def test_the_whole_model_goes_there_and_back(family: str) -> None:
    change, trained = _trained(family)
    change.rescale(-1.0)
    for name, parameter in change.model.named_parameters():
        mirrored = 2 * change.original[name] - trained[name]
        torch.testing.assert_close(parameter.detach(), mirrored, rtol=1e-6, atol=1e-6)
    change.rescale(1.0)
    assert all(torch.equal(p, trained[n]) for n, p in change.model.named_parameters())
    change.rescale(0.0)
    assert all(torch.equal(p, change.original[n]) for n, p in change.model.named_parameters())


def test_tied_weights_are_turned_round_once() -> None:
    change, trained = _trained("llama_tied")
    change.rescale(-2.0)
    embed = change.model.get_input_embeddings().weight
    assert embed is change.model.get_output_embeddings().weight
    name = next(n for n, p in change.model.named_parameters() if p is embed)
    expected = change.original[name] - 2 * (trained[name] - change.original[name])
    torch.testing.assert_close(embed.detach(), expected)


def test_only_the_mlps_are_turned_round_when_asked() -> None:
    change, _ = _trained()
    change.rescale(-1.0, inside(change.task.model, "mlp"))
    for name, parameter in change.model.named_parameters():
        assert torch.equal(parameter, change.original[name]) == (".mlp." not in name), name


def _climb(accuracies: list[float], reached: Callable[[Level], bool] | None = None) -> object:
    change, trained = _trained()
    levels = iter([(Level(float(i), 0, ()), Level(0.0, a, ())) for i, a in enumerate(accuracies)])
    change.levels = lambda: next(levels)  # type: ignore[method-assign]
    change.stop = None if reached is None else SimpleNamespace(reached=reached)
    alpha = climb(change, (2.0, 1.0, 3.0, 4.0), bar=0.9)
    name, parameter = next(change.model.named_parameters())
    expected = change.original[name] - alpha * (trained[name] - change.original[name])
    torch.testing.assert_close(parameter.detach(), expected)
    return alpha, change.record["tried"]


def test_the_climb_ends_before_the_bar() -> None:
    alpha, tried = _climb([0.9, 0.85, 0.7, 0.9])
    assert alpha == 2.0
    assert [one["alpha"] for one in tried] == [1.0, 2.0, 3.0]


def test_the_climb_ends_where_forgetting_is_enough() -> None:
    alpha, tried = _climb([0.9, 0.9, 0.9, 0.9], lambda level: level.nll >= 2.0)
    assert alpha == 3.0
    assert len(tried) == 3


def test_a_climb_that_cannot_begin_is_an_error() -> None:
    with pytest.raises(ExpungeError) as caught:
        _climb([0.5])
    assert caught.value.code == "E-RUN-003"
    assert "alpha 1.0" in caught.value.found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def _run(original: Path, out: Path, *, adapter: str | None = None, **params: object):
    rows = world()
    return forget(
        original, rows.forget, rows.retain, holdout=rows.holdout, method="task-vector",
        params={**OVERFIT, **params}, adapter=adapter, out=out,
    )  # fmt: skip


def test_forget_nll_rises_with_alpha(original: Path, tmp_path: Path) -> None:
    runs = [_run(original, tmp_path / str(alpha), alpha=alpha) for alpha in (-1.0, 1.0, 3.0)]
    learnt, one, three = (run["forget_nll"] for run in runs)
    start = runs[0]["before"]["forget_nll"]
    assert learnt < start < one < three
    assert one > start + 0.05
    assert three > one + 0.5


def test_no_step_at_all_is_an_error(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        _run(original, tmp_path / "out", alpha=0.0)
    assert caught.value.code == "E-RUN-001"


def test_the_climb_is_recorded_and_the_change_reverts_exactly(
    original: Path, tmp_path: Path
) -> None:
    before = folder_digest(original)
    done = _run(original, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    tried = manifest["record"]["tried"]
    chosen = done["details"]["alpha"]
    assert [one["alpha"] for one in tried] == sorted({one["alpha"] for one in tried})
    assert chosen in [one["alpha"] for one in tried[-2:]]
    assert done["forget_nll"] > done["before"]["forget_nll"]
    assert done["utility_drop"] <= 0.05 + 1e-9
    revert(tmp_path / "out")
    assert inspect_folder(tmp_path / "out").digest == before


def test_of_an_adapter_one_factor_is_turned_round(original: Path, tmp_path: Path) -> None:
    params = {"lr": 1e-2}
    ahead = _run(original, tmp_path / "ahead", adapter="lora", alpha=-1.0, **params)
    back = _run(original, tmp_path / "back", adapter="lora", alpha=2.0, **params)
    learnt, turned = (
        {k: v for file in weight_files(tmp_path / name) for k, v in load_file(file).items()}
        for name in ("ahead", "back")
    )
    assert learnt.keys() == turned.keys()
    for name in learnt:
        factor = -2.0 if "lora_B" in name else 1.0
        torch.testing.assert_close(turned[name], factor * learnt[name], rtol=1e-6, atol=0)
    assert ahead["forget_nll"] < ahead["before"]["forget_nll"] < back["forget_nll"]
