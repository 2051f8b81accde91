"""SURE: closed forms, which rows move, that nothing else does, and what rounding leaves of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.rates import learning_rate
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.lm.load import load
from expunge.lm.quantise import matrices, quantise
from expunge.lm.subject import Subject
from expunge.methods import sure
from expunge.testing import objective, tiny_model

SHORT = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 4}
LONG = {**SHORT, "max_steps": 60}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def task_of(subject: Subject | None = None, **params: Any) -> Task:
    subject, (given, kept) = subject or knowing(), facts()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given, "retain": kept}, params=methods.params("sure", params),
    )  # fmt: skip


def mask_of(task: Task) -> dict[str, Tensor]:
    """The mask, every entry as a tensor."""
    shapes = {name: p.shape for name, p in task.model.named_parameters()}
    found = sure.mask(task.model, task, task.params)
    assert found.keys() == shapes.keys()
    return {
        name: one if isinstance(one, Tensor) else torch.full(shapes[name], one)
        for name, one in found.items()
    }


def run(original: Path, out: Path, method: str = "sure", **params: Any) -> Subject:
    forget(
        original, *facts(), method=method, params=params, stop_at="none", out=out,
        seed=params.pop("seed", 0),
    )  # fmt: skip
    loaded = load(load_change(out).folder)
    return Subject(loaded.model, loaded.tokenizer)


def test_t3_has_the_values_of_both_objectives(t3) -> None:
    assert objective("sure", t3.model, {"forget": t3.view}).loss == pytest.approx(
        -0.464952, abs=1e-5
    )
    npo = objective("sure", t3.model, {"forget": t3.view}, t3.anchor, objective="npo", beta=0.1)
    assert npo.loss == pytest.approx(13.092352, abs=1e-5)


def test_the_retain_term_is_added_once(random_table, random_view) -> None:
    model, views = random_table(1), {"forget": random_view(3), "retain": random_view(4)}
    found = objective("sure", model, views, retain_weight=3.0)
    twin = random_table(1)
    slow = -flat(slow_nll(twin, views["forget"])).mean()
    slow = slow + 3.0 * flat(slow_nll(twin, views["retain"])).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


@pytest.mark.parametrize(("moved", "differs"), [(0.4, False), (0.6, True), (-0.4, False)])
def test_less_than_half_a_step_rounds_back(moved: float, differs: bool) -> None:
    """The mechanism, in units of the step max|w| / 7."""
    step = 0.03
    codes = torch.tensor([[-7.0, -3, 0, 1, 4, 7]])
    weights = step * codes
    changed = weights + moved * step * torch.tensor([[0.0, 1, 1, 1, 1, 0]])
    before, after = (quantise(w, 4)[0].flatten() for w in (weights, changed))
    assert before.tolist() == codes[0].tolist()
    assert bool((before != after).any()) is differs


def slow_rows(gradients: dict[str, Tensor], percentile: float, columns: str = "") -> dict:
    """Norms of rows one by one, elements of vectors, and the percentile over all of them."""
    norms = {}
    for name, gradient in gradients.items():
        turned = gradient.T if columns and columns in name else gradient
        norms[name] = [float(row.double().norm()) for row in turned]
    limit = np.percentile([n for row in norms.values() for n in row], percentile)
    return {name: [n >= limit and n > 0 for n in row] for name, row in norms.items()}


@pytest.mark.parametrize("percentile", [0.0, 50.0, 90.0, 99.0])
def test_the_percentile_is_over_all_rows_of_all_matrices(percentile: float) -> None:
    draw = torch.Generator().manual_seed(0)
    gradients = {
        "a": torch.randn(30, 4, generator=draw),
        "b": 3 * torch.randn(20, 9, generator=draw),
        "bias": torch.randn(11, generator=draw),
        "unused": torch.zeros(5, 3),
    }
    found = sure.salient(gradients, (), percentile)
    for name, rows in slow_rows(gradients, percentile).items():
        mask = found[name]
        assert mask.shape == gradients[name].shape
        for row, moves in zip(mask, rows, strict=True):
            assert bool(row.all()) == bool(row.any()) == bool(moves)
    assert not found["unused"].any()  # even where the percentile is 0


def test_where_a_family_stores_outputs_as_columns_columns_are_chosen() -> None:
    tokenizer = knowing().tokenizer
    model = tiny_model("gpt2", vocab=len(tokenizer), positions=32)
    found = mask_of(task_of(Subject(model, tokenizer), percentile=75.0))
    matrices = [mask for name, mask in found.items() if ".h." in name and mask.ndim > 1]
    assert len(matrices) == 8
    for mask in matrices:
        assert torch.equal(mask, mask.any(0)[None].expand(mask.shape))
    mixed = [mask for mask in matrices if 0 < int(mask.sum()) < mask.numel()]
    assert mixed
    assert not any(torch.equal(m, m.any(1)[:, None].expand(m.shape)) for m in mixed)
    tokens = found["transformer.wte.weight"]
    assert torch.equal(tokens, tokens.any(1)[:, None].expand(tokens.shape))


def test_the_mask_is_that_of_the_forget_gradient_at_the_start() -> None:
    task = task_of()
    task.model.zero_grad()
    for row in task.forget:
        item = task.encoder.encode(row.training)
        logp = task.model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)
        told = [at for at, label in enumerate(item.labels) if label >= 0]
        sum(logp[at - 1, item.ids[at]] for at in told).backward()
    gradients = {n: p.grad.clone() for n, p in task.model.named_parameters()}
    task.model.zero_grad()
    found = mask_of(task)
    wrong = total = 0
    for name, rows in slow_rows(gradients, 90.0).items():
        assert found[name].shape == gradients[name].shape
        moves = found[name] if found[name].ndim == 1 else found[name].any(1)
        wrong += sum(a != b for a, b in zip(moves.tolist(), rows, strict=True))
        total += len(rows)
    assert wrong <= 2  # a row right at the limit, summed in another order
    chosen = sum(int((m if m.ndim == 1 else m.any(1)).sum()) for m in found.values())
    assert chosen == pytest.approx(0.1 * total, abs=2)


def test_both_objectives_have_one_gradient_at_the_start_but_for_a_factor() -> None:
    """So the mask is the same for both: rows of different lengths included."""
    model, anchor = (tiny_model("llama", vocab=32, dtype=torch.float64) for _ in range(2))
    ids = torch.arange(24).reshape(3, 8)
    labels = ids.clone()
    labels[0, :6] = labels[1, :2] = -100
    view = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    found = []
    for name in ("ga", "npo"):
        model.zero_grad()
        objective("sure", model, {"forget": view}, anchor, objective=name)
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    tokens = int((labels[:, 1:] != -100).sum())
    torch.testing.assert_close(found[1], found[0] * tokens / 3, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bf16-masters"])
def test_other_rows_end_bit_for_bit_under_weight_decay(
    precision: str, original: Path, tmp_path: Path
) -> None:
    """The trap: the original code's mask is never applied, so everything moves."""
    options = {**SHORT, "weight_decay": 0.1, "precision": precision}
    after = dict(run(original, tmp_path / "out", **options).model.named_parameters())
    plain = dict(run(original, tmp_path / "plain", "grad-diff", **options).model.named_parameters())
    chosen = mask_of(task_of())
    for name, weight in load(original).model.named_parameters():
        frozen = ~chosen[name]
        assert torch.equal(after[name][frozen], weight[frozen]), name
        if chosen[name].any() and "layers" in name:
            assert not torch.equal(after[name][chosen[name]], weight[chosen[name]]), name
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(plain[name][~chosen[name]], after[name][~chosen[name]])


def test_how_much_moves_is_told_and_the_percentile_is_the_switch(
    original: Path, tmp_path: Path
) -> None:
    told, weights = [], []
    for percentile in (0.0, 90.0):
        out = tmp_path / str(percentile)
        subject = run(original, out, **SHORT, percentile=percentile)
        manifest = read_manifest(out)
        assert manifest is not None
        told.append(manifest["record"]["share_that_moves"])
        weights.append(subject.model.lm_head.weight)
    assert told[0] > 0.9
    assert 0.02 < told[1] < 0.2
    assert not torch.equal(*weights)


def test_layers_still_hold() -> None:
    found = mask_of(task_of(layers=(1,), percentile=50.0))
    assert {name for name, mask in found.items() if mask.any()} <= {
        name for name in found if "layers.1." in name
    }
    assert found["model.layers.1.mlp.up_proj.weight"].any()


def step_of(**params: Any) -> tuple[StepGradient, Task]:
    subject = knowing().copy()
    subject.model.double()
    task = task_of(subject, **params)
    method = GradientMethod.assemble(methods.load("sure"), task.params)
    anchor = Frozen(task.model)
    sampler = method.sample(task, task.params)
    return StepGradient(
        method, task, Datasets(task), sampler, lambda _: anchor, steps=4
    ), task  # fmt: skip


def gradient_of(**params: Any) -> dict[str, Tensor]:
    step, task = step_of(**params)
    step(task.model, 0, lambda loss: loss.backward())
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def test_recomputed_rows_are_those_of_the_steps_own_forget_gradient_counted_once() -> None:
    """The trap: the original code's forget gradient goes in twice."""
    options = {"batch_size": 5}
    forgotten = gradient_of(**options, retain_weight=0.0)
    both = gradient_of(**options, retain_weight=2.0)
    found = gradient_of(**options, retain_weight=2.0, recompute=True)
    chosen = slow_rows(forgotten, 90.0)
    for name, gradient in found.items():
        rows = torch.tensor(chosen[name])
        wanted = both[name] * (rows if gradient.ndim == 1 else rows[:, None])
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-12)
    assert any(gradient.any() for gradient in found.values())


def test_recomputing_does_not_depend_on_the_cut_into_parts() -> None:
    """The original code chooses rows in every micro-batch anew."""
    whole = gradient_of(batch_size=8, accumulation=1, recompute=True)
    parts = gradient_of(batch_size=1, accumulation=8, recompute=True)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-12)


def test_recomputing_moves_other_rows_in_other_steps(original: Path, tmp_path: Path) -> None:
    options = {**SHORT, "batch_size": 2, "max_steps": 8}
    before = load(original).model.lm_head.weight
    moved = [
        (run(original, tmp_path / str(again), **options, recompute=again).model.lm_head.weight
         != before).any(1).sum()
        for again in (False, True)
    ]  # fmt: skip
    assert moved[1] != moved[0]


def test_the_learning_rate_is_larger_than_other_methods() -> None:
    for size in (1_000_000, 7_000_000_000):
        mine, others = (
            learning_rate(methods.params(id, {}), size, adapter=False) for id in ("sure", "npo")
        )
        assert mine == pytest.approx(5 * others, rel=0.05)


def codes(model: torch.nn.Module) -> dict[str, Tensor]:
    """Four bits, one step for each matrix: as the card rounds."""
    weights = matrices(model)
    return {name: (weight / (weight.abs().max() / 7)).round() for name, weight in weights.items()}


def rounded(subject: Subject) -> Subject:
    twin = subject.copy()
    with torch.no_grad():
        for name, weight in matrices(twin.model).items():
            weight.copy_(codes(subject.model)[name] * weight.abs().max() / 7)
    return twin


def shares(subject: Subject) -> tuple[float, float]:
    """Share of codes that changed: of all, and of those whose weight moved."""
    before, after = knowing().model, subject.model
    differ = [codes(before)[name] != code for name, code in codes(after).items()]
    moved = [matrices(before)[name] != weight for name, weight in matrices(after).items()]
    both = sum(int((d & m).sum()) for d, m in zip(differ, moved, strict=True))
    every = sum(int(d.sum()) for d in differ) / sum(d.numel() for d in differ)
    return every, both / sum(int(m.sum()) for m in moved)


def test_what_it_forgets_stays_forgotten_in_four_bits(original: Path, tmp_path: Path) -> None:
    """The card's check.

    The rig is small: an eighth of its rows are words, which take most of the highest tenth. With a
    fifth the linear layers move as in a large model.
    """
    plain = run(original, tmp_path / "plain", "grad-diff", **LONG | {"lr": 1e-4})
    options = LONG | {"lr": 3e-3, "percentile": 80.0}
    subjects = [run(original, tmp_path / str(s), **options, seed=s) for s in range(2)]
    mine = np.mean([shares(subject) for subject in subjects], axis=0)
    theirs = shares(plain)
    assert mine[0] > theirs[0]
    assert mine[1] > 3 * theirs[1]
    for held in (subjects, [rounded(subject) for subject in subjects]):
        assert np.mean([exact(subject, facts()[0]) for subject in held]) <= 0.1
        assert np.mean([exact(subject, facts()[1]) for subject in held]) >= 0.85
    assert exact(rounded(knowing()), facts()[0]) == 1.0


def test_the_highest_tenth_forgets_by_either_objective(original: Path, tmp_path: Path) -> None:
    for name in ("ga", "npo"):
        subject = run(
            original, tmp_path / name, **LONG | {"lr": 5e-3, "max_steps": 40}, objective=name
        )
        assert exact(subject, facts()[0]) <= 0.25
        assert exact(subject, facts()[1]) > exact(subject, facts()[0])


@pytest.mark.parametrize(
    "wrong", [{"percentile": 101.0}, {"objective": "dpo"}, {"beta": 0.0}, {"recompute": "perhaps"}]
)
def test_what_cannot_be_is_refused_before_weights_load(
    wrong: dict, original: Path, tmp_path
) -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        run(original, tmp_path / "out", **SHORT | wrong)


def test_rows_in_pieces_are_not_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    sure.prepare(task_of(), methods.params("sure", {"recompute": True}))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    sure.prepare(task_of(), methods.params("sure", {}))
    with pytest.raises(ExpungeError, match="E-USE-006"):
        sure.prepare(task_of(), methods.params("sure", {"recompute": True}))


def test_a_step_by_hand_is_chosen_by_first_dimension() -> None:
    """Without the engine behind it a combiner knows no names."""
    gradients = Gradients(
        [torch.tensor([[0.0, 0.0], [1.0, 1.0]])], [torch.ones(2, 2)], {"forget": 1.0, "retain": 1.0}
    )
    params = replace(methods.params("sure", {"retain_weight": 2.0}), recompute=True)
    (made,) = sure.combine(gradients, {}, params)
    assert made.tolist() == [[0.0, 0.0], [3.0, 3.0]]
