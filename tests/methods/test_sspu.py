"""SSPU: the latents, the subspaces and the penalty by hand; the card's checks; rmu as its ablation.

The world is that of `edit_rig`: eight people to be forgotten, sixteen to be kept.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from edit_rig import knowing, original, people, said, task_of
from hidden_views import Held, held_view
from safetensors.torch import load_file

from expunge.core.errors import ExpungeError
from expunge.core.events import listening
from expunge.core.registry import methods
from expunge.engine import features
from expunge.engine.change import load_change, revert
from expunge.engine.check import check_forget
from expunge.engine.run import forget
from expunge.engine.steering import SEED, direction
from expunge.engine.step import Step
from expunge.lm import sae
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import sspu
from expunge.methods.sspu import settling, subspaces
from expunge.methods.sspu.subspaces import Matrices, bases, basis, latents_of, outside, within
from expunge.testing import tiny_model

QUICK = {"sae_steps": 150, "warmup": 0, "lr": 4e-3, "layer": 2}
"""An autoencoder that is good enough to choose latents by (FVU about .06)."""


def settings(**given: Any) -> Any:
    return methods.params("sspu", given)


def by_hand(decoder: torch.Tensor) -> sae.Autoencoder:
    """Latent j fires by as much as channel j of a state."""
    width = decoder.shape[1]
    return sae.Autoencoder(
        torch.eye(width), torch.zeros(width), decoder, torch.zeros(width), activation="relu"
    )


def test_latents_of_the_topic_and_those_that_only_the_rest_uses() -> None:
    """Means 1, .5, 0, 2 and 0, 2, 0, 1.5: s = 1, -1.5, 0, .5; the dead latent is in neither set."""
    coder = by_hand(torch.eye(4))
    forget = torch.tensor([[2.0, 0.5, -1.0, 2.0], [0.0, 0.5, -1.0, 2.0]])
    retain = torch.tensor([[-1.0, 2.0, -1.0, 1.5]])
    chosen = latents_of(coder, forget, retain, 3, "difference")
    assert chosen.topic.tolist() == [0, 3]
    assert chosen.other.tolist() == [1]
    size = torch.cat([forget, retain]).norm(dim=1).mean()
    assert chosen.total == pytest.approx(float(1.5 / size))
    ratio = latents_of(coder, forget, retain, 1, "ratio")  # 2 / 1e-8, .25 / 4, 0, 4 / 2.25
    assert (ratio.topic.tolist(), ratio.other.tolist()) == ([0], [1])
    assert ratio.total == pytest.approx(2 / 1e-8)


def test_bases_of_directions_that_repeat_are_as_wide_as_what_they_span() -> None:
    """The card's trap: QR of duplicates. Bases are at right angles to one another."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 16, generator=draw)
    rows[1], rows[2] = 3 * rows[0], rows[0] + 1e-9 * rows[3]
    rows[6] = rows[4] - rows[0]  # half of it is of the topic
    rows[7] = 2 * rows[0] + rows[3]  # all of it
    coder = sae.Autoencoder(rows, torch.zeros(8), rows, torch.zeros(16))
    chosen = subspaces.Latents(torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7]), 0.0)
    topic, away = bases(coder, chosen)
    assert (topic.shape, away.shape) == ((16, 2), (16, 2))
    for found in (topic, away):
        torch.testing.assert_close(found.T @ found, torch.eye(2).double())
    assert float((topic.T @ away).abs().max()) < 1e-5
    for row in rows[:4].double():
        torch.testing.assert_close(topic @ topic.T @ row, row, rtol=1e-5, atol=1e-5)
    assert basis(torch.zeros(0, 5).double()).shape == (5, 0)


def push(tensors: dict, state: dict | None = None, index: int = 0, **more: Any) -> torch.Tensor:
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    step = Step(
        {"forget": held_view(Held({0: states}))}, tensors=tensors, state=state or {SEED: 3},
        index=index,
    )  # fmt: skip
    return sspu.target(step, 8, settings(layer=0, **more))


def test_the_control_vector_lies_among_other_features_and_is_c_long() -> None:
    away = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0))).Q
    (vector, again) = push({settling.AWAY: away}, steering=6.5)[:, 0]
    assert float(vector.norm()) == pytest.approx(6.5, rel=1e-6)
    torch.testing.assert_close(away @ away.T @ vector, vector)
    assert torch.equal(vector, again)
    drawn = direction(3, "", 8)
    expected = away @ away.T @ drawn
    torch.testing.assert_close(vector, 6.5 * expected / expected.norm())
    whole = push({}, steering=6.5)[0, 0]
    assert torch.equal(whole, 6.5 * drawn)
    assert not torch.allclose(vector, whole, atol=0.1)
    measured = push({settling.AWAY: away}, {SEED: 3, sspu.LENGTHS: {"": 2.0}}, scale=5.0)
    assert float(measured[0, 0].norm()) == pytest.approx(10.0, rel=1e-6)


def test_it_is_drawn_once_or_in_every_step() -> None:
    once = [push({}, index=at, steering=1.0) for at in (0, 1)]
    anew = [push({}, index=at, steering=1.0, redraw="step") for at in (0, 1, 1)]
    assert torch.equal(*once)
    assert not torch.allclose(anew[0], anew[1])
    assert torch.equal(anew[1], anew[2])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3", "qwen3"])
def test_the_penalty_is_of_what_leaves_the_subspace_of_outputs(family: str) -> None:
    """By hand, on matrices of both layouts: GPT-2 keeps [in, out]."""
    model = tiny_model(family, vocab=32, hidden=16, layers=2)
    topic = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(0))).Q
    matrices = Matrices(model, [1])
    before = matrices.weights()
    (start,) = before.values()
    assert start.shape[0] == 16
    assert float(matrices.penalty(before, topic).detach()) == 0.0
    weight = matrices._modules[1].weight
    inside = topic @ torch.ones(4, start.shape[1])
    other = torch.randn(start.shape, generator=torch.Generator().manual_seed(1))
    leaves = other - topic @ (topic.T @ other)
    for move, expected in ((inside, 0.0), (leaves, 1.0)):
        with torch.no_grad():
            weight.copy_((start + move).T if weight.shape != start.shape else start + move)
        ratio = float(leaves.square().sum() / start.square().sum()) * expected
        assert float(matrices.penalty(before, topic).detach()) == pytest.approx(
            ratio, rel=1e-4, abs=1e-6
        )
        assert matrices.share_outside(before, topic) == pytest.approx(expected, abs=1e-3)
    matrices.penalty(before, topic).backward()
    slope = weight.grad.T if weight.shape != start.shape else weight.grad
    torch.testing.assert_close(
        slope, 2 * outside(leaves, topic) / start.square().sum(), rtol=1e-3, atol=1e-6
    )


def test_vectors_within_a_subspace_keep_their_precision() -> None:
    away = torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(0))).Q
    made = within(torch.ones(1, 1, 6, dtype=torch.float64), away)
    assert made.dtype == torch.float64
    assert float(made.norm()) == pytest.approx(1.0)


@cache
def folder() -> Path:
    return Path(mkdtemp())


@cache
def made(method: str = "sspu", adapter: str | None = None, **more: Any) -> tuple[Subject, dict]:
    """What a method makes of the model that knows everybody, and its manifest; made once."""
    out = folder() / f"out {len(list(folder().iterdir()))}"
    given = {**QUICK, **more} if method == "sspu" else more
    forget(
        original(folder()), people().forget, people().retain, method=method, params=given,
        adapter=adapter, stop_at="none", out=out,
    )  # fmt: skip
    loaded = load(out)
    return Subject(loaded.model, loaded.tokenizer), {**load_change(out).manifest, "at": out}


def moved(subject: Subject, topic: torch.Tensor) -> float:
    """Share of the update outside a subspace, from the weights that were written."""
    before = Matrices(knowing().model, [0, 1, 2]).weights()
    return Matrices(subject.model, [0, 1, 2]).share_outside(before, topic)


@cache
def topic_of() -> torch.Tensor:
    task = task_of(knowing().copy(), people())
    sspu.prepare(task, settings(**QUICK))
    return task.tensors[settling.TOPIC]


def test_it_forgets_keeps_and_mostly_writes_to_the_topic() -> None:
    assert said(knowing(), people().forget) == said(knowing(), people().retain) == 1.0
    subject, manifest = made(max_steps=200)
    assert said(subject, people().forget) <= 0.2
    assert said(subject, people().retain) >= 0.95
    record = manifest["record"]
    assert record["outside"] < 0.5
    assert (record["layer"], record["topic_features"], record["other_features"]) == (2, 8, 8)
    assert moved(subject, topic_of()) == pytest.approx(record["outside"], abs=0.02)


@pytest.mark.slow
def test_so_it_does_with_another_seed() -> None:
    """Measured: .34, .98 and .34."""
    out, world = folder() / "seed 1", people(1)
    forget(
        original(folder(), 1), world.forget, world.retain, method="sspu", seed=1, stop_at="none",
        params={"warmup": 0, "lr": 4e-3, "layer": 2, "max_steps": 200}, out=out,
    )  # fmt: skip
    loaded = load(out)
    subject = Subject(loaded.model, loaded.tokenizer)
    assert said(subject, world.forget) <= 0.5
    assert said(subject, world.retain) >= 0.95
    assert load_change(out).manifest["record"]["outside"] < 0.5


def test_without_penalty_and_subspace_it_is_rmu_bit_for_bit() -> None:
    """The card's check; with either of them on, the weights are others."""
    shared = {
        "steering": 6.5, "retain_weight": 30.0, "max_steps": 6, "layer": 2, "warmup": 0, "lr": 4e-3
    }  # fmt: skip
    off = {"lambda_reg": 0.0, "subspace": "whole"}
    weights = {
        name: load_file(made(method, **shared, **more)[1]["at"] / "model.safetensors")
        for name, method, more in (
            ("rmu", "rmu", {}), ("off", "sspu", off),
            ("penalty", "sspu", {**off, "lambda_reg": 5.0}),
            ("subspace", "sspu", {**off, "subspace": "features"}),
        )
    }  # fmt: skip
    assert all(torch.equal(weights["rmu"][n], weights["off"][n]) for n in weights["rmu"])
    for name in ("penalty", "subspace"):
        other = [n for n in weights["rmu"] if not torch.equal(weights["rmu"][n], weights[name][n])]
        assert sorted(other) == [f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1, 2)]


def test_a_large_penalty_confines_the_update_and_the_loss_still_falls() -> None:
    """The card's check: lambda = 1e6."""
    tight, manifest = made(lambda_reg=1e6, max_steps=60)
    loose, other = made(lambda_reg=0.0, max_steps=60)
    assert manifest["record"]["outside"] < 1e-2
    assert other["record"]["outside"] > 0.7
    start, after = (distance_of(one) for one in (knowing(), tight))
    assert after < start
    assert distance_of(loose) < after  # confined, it has less room


def distance_of(subject: Subject) -> float:
    """The forget loss of a model, by the control vector of the run."""
    task = task_of(knowing().copy(), people())
    sspu.prepare(task, settings(**QUICK))
    datasets = features.Datasets(task)
    inputs = datasets.batch([item for row in datasets.items("forget") for item in row])
    view = features.View(inputs, features.Live(subject.model))
    step = Step({"forget": view}, state=task.state, tensors=task.tensors)
    with torch.no_grad():
        return float(sspu.forget(step, settings(**QUICK)).value)


def test_an_update_that_leaves_the_subspace_is_named() -> None:
    said_: list[str] = []
    with listening(lambda event: said_.append(event.text)):  # not from the cache, which is silent
        _, manifest = made.__wrapped__(lambda_reg=1e-3, max_steps=5)
    assert manifest["record"]["outside"] >= 0.5
    assert any("lambda_reg" in text for text in said_)


def test_an_adapter_is_confined_as_the_weights_are() -> None:
    _, manifest = made(adapter="lora", lambda_reg=1e6, max_steps=40)
    _, other = made(adapter="lora", lambda_reg=0.0, max_steps=40)
    assert manifest["record"]["outside"] < 0.1 < 0.5 < other["record"]["outside"]


def test_the_block_is_the_one_with_the_largest_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {0: 0.1, 1: 0.7, 2: 0.3, 3: 0.2}
    asked: list[int] = []

    def coder(task: Any, params: Any, layer: int) -> sae.Autoencoder:
        asked.append(layer)
        return sae.Autoencoder(torch.eye(64), torch.zeros(64), torch.eye(64), torch.zeros(64), 8)

    def chosen(*_: Any) -> subspaces.Latents:
        return subspaces.Latents(torch.tensor([1]), torch.tensor([2]), sums[asked[-1]])

    monkeypatch.setattr(settling, "coder_of", coder)
    monkeypatch.setattr(settling, "latents_of", chosen)
    task = task_of(knowing(), people())
    moves = sspu.mask(task.model, task, settings(candidates=(0, 1, -1)))
    assert asked == [0, 1, 3]
    assert task.record["layer"] == 1
    assert {name for name, may in moves.items() if may} == {
        f"model.layers.{at}.mlp.down_proj.weight" for at in (0, 1)
    }
    assert sspu.placed(settings(), task.state, 4).layer == 1
    named = task_of(knowing(), people())
    settling.settle(named, settings(layer=-1))
    assert named.record["layer"] == 3
    free = task_of(knowing(), people())
    settling.settle(free, settings())
    assert asked[-3:] == [0, 1, 2]  # 1/8, 1/4, 3/8 and 1/2 of four blocks


def test_scores_leave_out_first_tokens_and_padding() -> None:
    """The card's trap: the state of the first token would drown the mean."""
    task = task_of(knowing(), people())
    items = features.chosen_items(task, settings())["forget"]
    states = features.states_of(task, items[:3], 1)
    assert len(states) == sum(len(item.ids) - 1 for item in items[:3])
    for item in items[:3]:
        with torch.no_grad():
            whole = features.View(
                features.Datasets(task).batch([item]), features.Live(task.model)
            ).hidden(1)[0]
        near = torch.cdist(whole, states).min(1).values
        assert float(near[1:].max()) < 1e-4
        assert float(near[0]) > 0.1


def test_it_is_trained_once_for_a_run_and_anew_for_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, train = [], sae.train
    monkeypatch.setattr(sae, "train", lambda *a, **k: trained.append(1) or train(*a, **k))
    monkeypatch.setattr(features, "_RECENT", {})
    world = people()
    for rows, seed in (
        (world.forget, 0),
        (world.forget, 0),
        (world.forget[:8], 0),
        (world.forget, 1),
    ):
        task = features.Task(
            model=knowing().model, tokenizer=knowing().tokenizer, encoder=knowing().encoder,
            roles={"forget": rows, "retain": world.retain}, seed=seed, folder=tmp_path / "made",
        )  # fmt: skip
        features.coder_of(task, settings(sae_steps=2), 1)
    assert len(trained) == 3
    assert not (tmp_path / "made").exists()  # it is no part of the change
    assert len(list((tmp_path / features.FOLDER).iterdir())) == 3


def test_a_given_autoencoder_is_used_as_it_is(tmp_path: Path) -> None:
    task = task_of(knowing(), people())
    coder = features.coder_of(task, settings(sae_steps=20), 1)
    sae.save(coder, tmp_path / "own.safetensors")
    given = settings(sae=str(tmp_path / "own.safetensors"))
    again = features.coder_of(task, given, 1)
    assert torch.equal(again.encoder, coder.encoder)
    assert features.layer_of_file(given) == 1
    with pytest.raises(ExpungeError, match="E-USE-006"):
        features.coder_of(task, given, 2)


@pytest.mark.parametrize(
    ("width", "layer", "more", "code"),
    [
        (64, 1, {}, ""), (64, 1, {"layer": -3}, ""), (64, None, {"layer": 0}, ""),
        (32, 1, {}, "E-USE-006"), (64, 1, {"layer": 3}, "E-USE-006"), (64, None, {}, "E-USE-007"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_before_weights_load(
    tmp_path: Path, width: int, layer: int | None, more: dict, code: str
) -> None:
    eye = torch.eye(width)
    coder = sae.Autoencoder(eye, torch.zeros(width), eye, torch.zeros(width), 4, layer=layer)
    sae.save(coder, tmp_path / "sae.safetensors")
    report = check_forget(
        original(folder()), people().forget, people().retain, method="sspu", out=tmp_path / "out",
        params={"sae": str(tmp_path / "sae.safetensors"), **more}, stop_at="none",
    )  # fmt: skip
    assert [problem.code for problem in report.problems] == [code] * bool(code)


def test_a_pickled_file_is_refused_with_the_exit_code_of_its_class(tmp_path: Path) -> None:
    (tmp_path / "ae.pt").write_bytes(b"\x80\x04")
    report = check_forget(
        original(folder()), people().forget, people().retain, method="sspu", out=tmp_path / "out",
        params={"sae": str(tmp_path / "ae.pt")}, stop_at="none",
    )  # fmt: skip
    assert [(problem.code, int(problem.exit_code)) for problem in report.problems] == [
        ("E-MODEL-003", 3)
    ]


def test_nothing_left_besides_the_topic_is_said() -> None:
    task = task_of(knowing(), people())
    eye = torch.eye(64)
    coder = sae.Autoencoder(eye, torch.zeros(64), eye, torch.zeros(64), 8)
    none = torch.zeros(0, dtype=torch.long)
    for topic, other in ((none, torch.tensor([1])), (torch.tensor([1]), none)):
        with pytest.raises(ExpungeError, match="E-USE-003"):
            settling._keep(task, settings(), 1, coder, subspaces.Latents(topic, other, 0.0))


def test_its_change_reverts_and_its_state_is_plain() -> None:
    task = task_of(knowing().copy(), people())
    sspu.prepare(task, settings(**QUICK))
    assert json.loads(json.dumps(task.state)) == task.state
    _, manifest = made(lambda_reg=1e-3, max_steps=5)
    assert not (manifest["at"] / "made").exists()
    revert(manifest["at"])
    assert folder_digest(manifest["at"]) == folder_digest(original(folder()))


def test_defaults_are_the_card_s() -> None:
    params = settings()
    assert (params.expansion, params.sae_k, params.sae_steps) == (2, 8, 1500)
    assert (params.score, params.subspace, params.redraw) == ("difference", "features", "never")
    assert (params.retain_term, params.steering, params.scale) == ("mse", "auto", 5.0)
    assert params.features is None
