"""WAGLE: the card's example, the share, every score against a slow one, and what does not move."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import load_change
from expunge.engine.masks import AppliedMask
from expunge.engine.run import forget
from expunge.engine.saliency import nll_gradients, top_share
from expunge.engine.slots.mask import Mask
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import wagle
from expunge.methods.wagle import Params, attribution
from expunge.testing import tiny_model

SHORT = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 4}
SCORES = ("attribution", "magnitude", "gradient", "random", "wanda", "ffn")

THETA = torch.tensor([1.0, -2.0, 0.5, 0.1])
G_F = torch.tensor([0.2, 0.1, -0.4, 1.0])
G_R = torch.tensor([0.0, 1e-6, -2e-6, 0.0])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def task_of(method: str = "npo", seed: int = 0, **params: Any) -> Task:
    subject, (given, kept) = knowing(), facts()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given, "retain": kept}, seed=seed, params=methods.params(method, params),
    )  # fmt: skip


def mask_of(task: Task | None = None, **params: Any) -> Mask:
    task = task or task_of()
    return wagle.mask(task.model, task, Params(**params))


def whole(mask: Mask) -> dict[str, Tensor]:
    """Every entry as a tensor."""
    shapes = {name: p.shape for name, p in knowing().model.named_parameters()}
    assert mask.keys() == shapes.keys()
    return {
        name: one if isinstance(one, Tensor) else torch.full(shapes[name], one)
        for name, one in mask.items()
    }


def run(original: Path, out: Path, *wrappers: str, **options: Any) -> dict[str, Tensor]:
    options = {"method": "grad-diff", "params": SHORT, "stop_at": "none"} | options
    forget(original, *facts(), wrappers=wrappers, out=out, **options)
    return dict(load(load_change(out).folder).model.named_parameters())


def test_the_example_of_the_card() -> None:
    scores = attribution(THETA, G_F, G_R, 1e-6)
    torch.testing.assert_close(scores, torch.tensor([0.2, 0.3, 1.0, 0.1]))
    assert top_share({"w": lambda: scores}, 0.5)["w"].tolist() == [False, True, True, False]


def test_each_half_of_the_score_decides_in_the_example() -> None:
    """|theta g_f| alone would keep 0 and 2, another sign of g_r others again."""
    plain = attribution(THETA, G_F, torch.zeros(4), 1e-6)
    torch.testing.assert_close(plain, torch.tensor([0.2, 0.2, 0.2, 0.1]))
    turned = attribution(THETA, G_F, -G_R, 1e-6)
    torch.testing.assert_close(turned, torch.tensor([0.2, 0.1, 0.6, 0.1]))


def test_sums_over_batches_with_a_mu_as_many_times_larger_rank_alike() -> None:
    means = attribution(THETA, G_F, G_R, 1e-6)
    sums = attribution(THETA, 100 * G_F, 100 * G_R, 100 * 1e-6)
    torch.testing.assert_close(sums, 100 * means)
    assert not torch.allclose(attribution(THETA, G_F, 100 * G_R, 1e-6), means)


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.95])
def test_the_ratio_is_of_all_weights_together(ratio: float) -> None:
    found = whole(mask_of(ratio=ratio))
    total = sum(one.numel() for one in found.values())
    assert sum(int(one.sum()) for one in found.values()) == round(ratio * total)
    shares = [float(one.float().mean()) for one in found.values()]
    assert max(shares) - min(shares) > 0.2  # not the ratio in every tensor


def slow(score: str, ratio: float) -> Tensor:
    """By sorting all scores, rows one at a time through the model."""
    task = task_of()
    gradients = []
    for role in ("forget", "retain"):
        task.model.zero_grad()
        tokens = 0
        for row in task.roles[role]:
            item = task.encoder.encode(row.training)
            logp = task.model(input_ids=torch.tensor([item.ids])).logits[0].log_softmax(-1)
            told = [at for at, label in enumerate(item.labels) if label >= 0]
            (-sum(logp[at - 1, item.ids[at]] for at in told)).backward()
            tokens += len(told)
        gradients.append([p.grad / tokens for p in task.model.parameters()])
        task.model.zero_grad()
    weights = [p.detach() for p in task.model.parameters()]
    scores = {
        "attribution": lambda w, f, r: ((w - r / 1e-6) * f).abs(),
        "magnitude": lambda w, f, r: w.abs(),
        "gradient": lambda w, f, r: f.abs(),
    }[score]
    flat = torch.cat([scores(*each).flatten() for each in zip(weights, *gradients, strict=True)])
    best = flat.sort(descending=True, stable=True).indices[: round(ratio * len(flat))]
    return torch.zeros(len(flat), dtype=torch.bool).index_fill(0, best, True)


@pytest.mark.parametrize("score", ["attribution", "magnitude", "gradient"])
def test_scores_are_those_of_a_slow_sort(score: str) -> None:
    """Sums are taken in another order, so a few scores right at the limit may fall otherwise."""
    found = whole(mask_of(score=score, ratio=0.2))
    flat = torch.cat([one.flatten() for one in found.values()])
    assert float((flat != slow(score, 0.2)).float().mean()) < 1e-3


def test_the_scores_choose_different_weights() -> None:
    flat = [torch.cat([m.flatten() for m in whole(mask_of(score=s, ratio=0.2)).values()])
            for s in SCORES]  # fmt: skip
    for at, one in enumerate(flat):
        for other in flat[at + 1 :]:
            assert float((one != other).float().mean()) > 0.02


def test_mu_decides_how_much_the_retain_rows_count() -> None:
    small, large = (whole(mask_of(mu=mu, ratio=0.2)) for mu in (1e-6, 1e6))
    assert any(not torch.equal(small[name], large[name]) for name in small)


def test_random_weights_are_those_of_the_seed() -> None:
    drawn = [whole(mask_of(task_of(seed=s), score="random", ratio=0.3)) for s in (0, 0, 1)]
    same = [torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0]]
    assert all(same)
    assert not torch.equal(drawn[0]["lm_head.weight"], drawn[2]["lm_head.weight"])
    assert all(0.1 < float(m.float().mean()) < 0.5 for m in drawn[0].values() if m.numel() > 500)


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_wanda_takes_the_ratio_of_each_outputs_weights(family: str) -> None:
    task = task_of()
    model = tiny_model(family, vocab=len(task.tokenizer), positions=32)
    slots = Slots(model)
    name = slots.names(0, "mlp_out")[0]
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: seen.append(given[0][0])
    )
    with torch.no_grad():
        for row in task.forget:
            model(input_ids=torch.tensor([task.encoder.encode(row.training).ids]))
    handle.remove()
    mask = wagle.mask(model, replace(task, model=model), Params(score="wanda", ratio=0.25))
    weight = model.get_submodule(name).weight.detach()
    by_output = weight.T if family == "gpt2" else weight
    products = by_output.abs() * torch.cat(seen).square().sum(0).sqrt()
    got = mask[f"{name}.weight"].T if family == "gpt2" else mask[f"{name}.weight"]
    count = round(0.25 * by_output.shape[1])
    for output, chosen in enumerate(got):
        best = products[output].topk(count).indices
        assert set(chosen.nonzero()[:, 0].tolist()) == set(best.tolist())
    inside = {f"{linear}.weight" for linear in slots.linears()}
    assert all(mask[n] is True for n, _ in model.named_parameters() if n not in inside)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_ffn_moves_the_mlps_and_nothing_else(family: str) -> None:
    task, model = task_of(), tiny_model(family)
    mask = wagle.mask(model, task, Params(score="ffn"))
    moved = {name for name, moves in mask.items() if moves is True}
    assert moved == {name for name, _ in model.named_parameters() if ".mlp." in name}
    assert moved
    assert not any(isinstance(one, Tensor) for one in mask.values())


def test_layers_of_the_method_still_hold() -> None:
    inside = whole(mask_of(task_of("npo", layers=(0,)), ratio=0.5))
    block = {name for name in inside if "layers.0." in name}
    assert not any(one.any() for name, one in inside.items() if name not in block)
    total = sum(inside[name].numel() for name in block)
    assert sum(int(inside[name].sum()) for name in block) == round(0.5 * total)


def test_all_weights_are_the_method_itself_bit_for_bit(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "plain")
    run(original, tmp_path / "all", "wagle:1")
    run(original, tmp_path / "half", "wagle:0.5")
    digests = [folder_digest(tmp_path / name) for name in ("plain", "all", "half")]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("precision", ["float32", "bf16", "bf16-masters"])
def test_masked_weights_end_bit_for_bit_under_weight_decay(
    precision: str, original: Path, tmp_path: Path
) -> None:
    before = dict(load(original).model.named_parameters())
    chosen = whole(mask_of(ratio=0.3))
    params = {**SHORT, "weight_decay": 0.1, "precision": precision}
    after = run(original, tmp_path / "out", "wagle:0.3", params=params)
    for name, weight in before.items():
        frozen = ~chosen[name]
        assert torch.equal(after[name][frozen], weight[frozen]), name
    moved = sum(int((after[n] != before[n]).sum()) for n in before)
    assert moved > 0.5 * sum(int(one.sum()) for one in chosen.values())


def test_zeroed_gradients_alone_would_let_weight_decay_in(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original code's mask."""
    monkeypatch.setattr(AppliedMask, "on_weights", lambda self: None)
    before = dict(load(original).model.named_parameters())
    chosen = whole(mask_of(ratio=0.3))
    params = {**SHORT, "weight_decay": 0.1}
    after = run(original, tmp_path / "out", "wagle:0.3", params=params)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(after[name][~chosen[name]], before[name][~chosen[name]])


def test_a_fifth_of_the_weights_forgets_and_keeps(original: Path, tmp_path: Path) -> None:
    """TINY: forget EM 0, retain EM 1 with GradDiff in 60 steps."""
    options = {**SHORT, "max_steps": 60}
    run(original, tmp_path / "out", "wagle:0.2", params=options)
    loaded = load(load_change(tmp_path / "out").folder)
    subject = Subject(loaded.model, loaded.tokenizer)
    assert exact(subject, facts()[0]) <= 0.25
    assert exact(subject, facts()[1]) >= 0.7


def test_it_looks_at_so_many_rows_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def watched(task: Task, role: str, most: int | None = None) -> dict[str, Tensor]:
        asked.append((role, most))
        return nll_gradients(task, role, most)

    monkeypatch.setattr(wagle, "nll_gradients", watched)
    few, whole_set = whole(mask_of(rows=3, ratio=0.2)), whole(mask_of(ratio=0.2))
    assert asked[:2] == [("forget", 3), ("retain", 3)]
    assert not torch.equal(few["lm_head.weight"], whole_set["lm_head.weight"])


@pytest.mark.parametrize("given", ["0", "1.5", "0.5,score=luck", "0.5,mu=0", "0.5,rows=0"])
def test_what_cannot_be_is_refused_before_weights_load(
    given: str, original: Path, tmp_path: Path
) -> None:
    with pytest.raises(ExpungeError, match="E-USE-003"):
        run(original, tmp_path / "out", f"wagle:{given}")
