"""RMU under latent attack: the attack alone, what is shared by four steps, and what it brings."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hidden_views import Held, held_view, random_states
from micro_task import prepared
from tiny_rig import exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine import checkpoints, misdirection
from expunge.engine.adversary import Search, laid, refusals, shifted
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.run import forget
from expunge.engine.slots.sample import OneToOne
from expunge.engine.sources import Frozen, Live
from expunge.engine.steering import distance
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.hooks import learning
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import rmu, rmu_lat
from expunge.testing import objective, tiny_model
from expunge.testing.methods import stage, world

LENGTHS = (6, 4, 3)


def rows(model: Any, seed: int, lengths=LENGTHS, *, side: str = "right", packing=False) -> View:
    """Random rows of a model over 64 tokens; all but the first token of each are supervised."""
    draw = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, length in enumerate(lengths):
        at = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, at] = torch.randint(4, 64, (length,), generator=draw)
        mask[row, at] = 1
        labels[row, at.start + 1 : at.stop] = ids[row, at.start + 1 : at.stop]
    items = torch.arange(len(lengths))
    return View(Inputs.from_labels(ids, mask, labels, items, packing), Live(model))


def alone(view: View, row: int) -> View:
    """One row of a view, without the padding behind it."""
    given = view.inputs
    length = int(given.attention_mask[row].sum())
    labels = torch.zeros_like(given.input_ids).masked_scatter(given.keep, given.targets)[row]
    labels = torch.where(given.keep[row], labels, -100)[: length - 1]
    labels = torch.cat([torch.tensor([-100]), labels])[None]
    ids, mask = (
        given.input_ids[row : row + 1, :length],
        given.attention_mask[row : row + 1, :length],
    )
    return View(Inputs.from_labels(ids, mask, labels, given.items[row : row + 1]), view._source)


@pytest.fixture
def model() -> Any:
    return tiny_model("llama", vocab=64, layers=3, seed=0).double()


# ------------------------------------------------------------------------------- the attack


def test_the_rows_beside_are_refused_by_the_probability_of_everything_else(t3) -> None:
    """-log(1 - p) of T3's tokens, a mean over the row."""
    inputs = Inputs.from_labels(
        t3.view["input_ids"], t3.view["attention_mask"], t3.view["labels"], torch.arange(1)
    )
    found = refusals(View(inputs, Live(t3.model)))
    surprises = (0.440190, 0.210998, 0.743668)
    assert found.tolist() == pytest.approx(
        [sum(-math.log(1 - math.exp(-one)) for one in surprises) / 3], abs=1e-5
    )
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert t3.model.gradient[0, 0, 0] > 0  # certain tokens are pushed down, none is left alone


def test_where_the_model_is_certain_the_refusal_has_a_finite_gradient() -> None:
    logits = torch.tensor([[80.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    model = held_logits(logits)
    inputs = Inputs.from_labels(
        torch.tensor([[1, 0]]), torch.ones(1, 2, dtype=torch.long), torch.tensor([[-100, 0]]),
        torch.arange(1),
    )  # fmt: skip
    found = refusals(View(inputs, Live(model)))
    assert found.item() == pytest.approx(80 - math.log(2))
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert model.logits.grad[0, 0].tolist() == pytest.approx([1.0, -0.5, -0.5])


def held_logits(logits: Tensor) -> Any:
    from conftest_methods import Fixed

    return Fixed(logits[None])


@pytest.mark.parametrize("side", ["right", "left"])
def test_vectors_lie_on_real_tokens_and_nowhere_else(model, side: str) -> None:
    """Short rows: the original counts from the left although its padding is there."""
    view = rows(model, 1, side=side)
    vectors = torch.arange(1.0, 19).reshape(3, 6, 1)
    counts = torch.tensor(LENGTHS)
    found = laid(vectors, counts, view.inputs)[..., 0]
    for row, length in enumerate(LENGTHS):
        real = view.inputs.attention_mask[row].bool()
        assert found[row][real].tolist() == vectors[row, :length, 0].tolist()
        assert not found[row][~real].any()


def test_a_longer_row_beside_keeps_its_last_tokens_as_they_are(model) -> None:
    beside = rows(model, 2, (5, 6, 2))
    found = laid(torch.ones(3, 6, 1), torch.tensor(LENGTHS), beside.inputs)[..., 0]
    assert found.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]


def slowly_searched(
    model: Any, view: View, beside: View | None, layer: int, radius: float, steps: int, lr: float
) -> Tensor:
    """The attack on one row by hand: its own hook, its own AdamW."""
    ids, other = view.inputs.input_ids, beside.inputs.input_ids if beside else None
    delta = torch.zeros(ids.shape[1], 32, dtype=torch.float64)
    first, second = torch.zeros_like(delta), torch.zeros_like(delta)
    for step in range(1, steps + 1):
        delta.requires_grad_()

        def nll_of(tokens: Tensor, delta: Tensor = delta) -> Tensor:
            def hook(_: Any, __: Any, output: Tensor) -> Tensor:
                shift = torch.zeros_like(output)
                both = min(len(delta), output.shape[1])
                shift[0, :both] = delta[:both]
                return output + shift

            handle = model.model.layers[layer].mlp.register_forward_hook(hook)
            logits = model(input_ids=tokens).logits[0]
            handle.remove()
            return torch.stack(
                [logits[at].logsumexp(0) - logits[at, tokens[0, at + 1]]
                 for at in range(tokens.shape[1] - 1)]
            )  # fmt: skip

        loss = nll_of(ids).mean()
        if other is not None:
            loss = loss - torch.log(1 - torch.exp(-nll_of(other))).mean()
        (gradient,) = torch.autograd.grad(loss, delta)
        delta = delta.detach() * (1 - lr * 0.01)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = (second / (1 - 0.999**step)).sqrt() + 1e-8
        delta = delta - lr * (first / (1 - 0.9**step)) / scale
        for token in range(len(delta)):
            length = float((delta[token] ** 2).sum()) ** 0.5
            if length > radius:
                delta[token] *= radius / length
    return delta


@pytest.mark.parametrize("pulls_away", [True, False])
def test_the_attack_equals_one_by_hand_on_each_row_alone(model, pulls_away: bool) -> None:
    """So no row's attack depends on what it shares a batch with, or on padding."""
    view = rows(model, 1)
    beside = rows(model, 2, (5, 6, 2)) if pulls_away else None
    found = Search(layer=1, radius=0.4, steps=5, lr=0.05)(view, beside)
    assert [len(one) for one in found] == list(LENGTHS)
    for row, vectors in enumerate(found):
        other = alone(beside, row) if beside else None
        slow = slowly_searched(model, alone(view, row), other, 1, 0.4, 5, 0.05)
        torch.testing.assert_close(vectors, slow, rtol=1e-5, atol=1e-6)
        by_itself = Search(layer=1, radius=0.4, steps=5, lr=0.05)(alone(view, row), other)[0]
        torch.testing.assert_close(vectors, by_itself, rtol=1e-6, atol=1e-8)


def test_the_attack_stays_in_its_ball_makes_rows_likely_and_leaves_no_gradient(model) -> None:
    view, beside = rows(model, 1), rows(model, 2, (5, 6, 2))
    found = Search(layer=1, radius=0.5, steps=16, lr=0.05)(view, beside)
    longest = max(float(one.norm(dim=-1).max()) for one in found)
    assert longest <= 0.5 + 1e-9
    assert longest > 0.45  # 16 steps of .05 in 32 channels reach the edge
    attacked = shifted(view, 1, found)
    assert bool((attacked.logp_mean > view.logp_mean + 0.1).all())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_attack_that_makes_everything_likely_is_held_back_by_the_rows_beside(model) -> None:
    """Rows that stand beside themselves: half is the most that is worth while."""
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # so that it can be certain of something
    view, search = rows(model, 1), Search(layer=1, radius=8.0, steps=30, lr=0.1)
    free, held = (shifted(view, 1, search(*views)) for views in ((view,), (view, view)))
    assert float(free.token_logp.detach().exp().mean()) > 0.8
    assert float(held.token_logp.detach().exp().mean()) < 0.65


def test_packed_and_checkpointed_rows_are_attacked_alike() -> None:
    """A block that runs again in the backward pass must not run without the attack.

    Gemma norms what the MLP puts out, so the attack also changes the slope of its block.
    """
    model = tiny_model("gemma2", vocab=64, layers=3, seed=0).double()
    search = Search(layer=1, radius=0.5, steps=3, lr=0.05)
    padded = rows(model, 1)
    found = search(padded)
    packed = rows(model, 1, packing=True)
    for one, other in zip(search(packed), found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    plain = gradient_of(model, padded, found)
    torch.testing.assert_close(gradient_of(model, packed, found), plain, rtol=1e-3, atol=1e-5)
    with learning(model):
        model.activation_checkpointing_enable({"use_reentrant": False})
        torch.testing.assert_close(gradient_of(model, padded, found), plain, rtol=1e-6, atol=1e-9)


def gradient_of(model: Any, view: View, vectors: Any) -> Tensor:
    """Of the square of the attacked states, in a matrix below them."""
    model.zero_grad()
    hidden = shifted(view, 1, vectors).hidden(1)[view.inputs.attention_mask.bool()]
    (hidden**2).mean().backward()
    return model.model.layers[0].mlp.down_proj.weight.grad.clone()


# ----------------------------------------------------------------------- the step and its loss


def step_of(model: Any, anchor: Any = None, index: int = 0, **views: View) -> Step:
    source = None if anchor is None else (lambda: Frozen(anchor))
    made = {n: View(v.inputs, Live(model), source) for n, v in views.items()}
    return Step(made, index=index)


def test_the_loss_is_rmu_s_at_the_attacked_activations(model) -> None:
    params = methods.params("rmu-lat", {"layer": 2, "eps": 0.5, "attack_steps": 4})
    view, beside = rows(model, 1), rows(model, 2, (5, 6, 2))
    step = step_of(model, forget=view, partner=beside)
    loss = rmu_lat.forget(step, params).value
    found = Search(layer=1, radius=0.5, steps=4, lr=0.05)(view, beside)
    real = view.inputs.attention_mask.bool()
    pushed = real & (real.cumsum(1) > 1)
    aim = 6.5 * rmu_lat.directions(view, {}, 32)
    attacked = distance(shifted(view, 1, found).hidden(2), aim, pushed).value
    assert loss.item() == pytest.approx(attacked.item(), rel=1e-9)
    plain = distance(view.hidden(2), aim, pushed).value
    assert loss.item() != pytest.approx(plain.item(), rel=1e-2)


def test_without_an_attack_the_card_s_closed_form_of_rmu_holds(monkeypatch) -> None:
    from expunge.engine import steering

    monkeypatch.setattr(steering, "direction", lambda *_: torch.tensor([0.6, 0.8]))
    now = Held({0: torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])})
    params = methods.params("rmu-lat", {"layer": 0, "eps": 0, "steering": 2.0, "include_bos": True})
    assert rmu_lat.forget(Step({"forget": held_view(now)}), params).value.item() == pytest.approx(
        1.1
    )


def test_without_an_attack_it_is_rmu_on_the_same_tensors(random_view) -> None:
    batch, now = random_view(3), Held(random_states(1, [0, 1]))
    step = Step({"forget": held_view(now, tensors=batch)})
    plain = rmu.forget(step, methods.params("rmu", {"layer": 1}))
    found = rmu_lat.forget(step, methods.params("rmu-lat", {"layer": 1, "eps": 0.0}))
    assert found.value.item() == plain.value.item()


def test_one_vector_for_each_topic_or_one_for_each_batch() -> None:
    now = Held(random_states(1, [0]))
    values = {
        (legacy, index): rmu_lat.forget(
            Step({"forget": held_view(now)}, index=index),
            methods.params("rmu-lat", {"layer": 0, "eps": 0.0, "u_per_batch": legacy}),
        ).value.item()
        for legacy in (True, False)
        for index in (0, 3, 4)
    }
    assert len({values[False, index] for index in (0, 3, 4)}) == 1
    assert values[True, 0] == values[True, 3]
    assert values[True, 0] != pytest.approx(values[True, 4], rel=1e-6)


@pytest.mark.parametrize(
    ("given", "blocks", "places"),
    [
        ({}, 32, (7, 8)), ({}, 4, (1, 2)), ({}, 2, (0, 1)), ({}, 1, (0, 0)),
        ({"layer": 8}, 32, (7, 8)), ({"layer": -1}, 4, (2, 3)), ({"layer": 0}, 4, (0, 0)),
        ({"attack_layer": 5}, 32, (5, 6)), ({"attack_layer": -1}, 4, (3, 3)),
        ({"attack_layer": 1, "layer": 3}, 4, (1, 3)),
    ],
)  # fmt: skip
def test_the_attacked_block_lies_below_the_steered_one(given, blocks: int, places) -> None:
    assert rmu_lat.blocks_of(methods.params("rmu-lat", given), blocks) == places


def test_four_steps_take_the_same_rows_and_an_epoch_is_four_passes() -> None:
    each = OneToOne(10, {"retain": 7}, 4, 0)
    sampler = rmu_lat.Repeated(each, 4)
    drawn = [sampler.draw(step) for step in range(8)]
    assert [draw.step for draw in drawn] == list(range(8))
    assert [draw.rows for draw in drawn] == [each.draw(step // 4).rows for step in range(8)]
    assert [draw.wording for draw in drawn] == [each.draw(step // 4).wording for step in range(8)]
    assert sampler.steps_per_epoch == 4 * each.steps_per_epoch


@pytest.fixture
def searches(monkeypatch) -> list[list[Tensor]]:
    """What every search found."""
    found: list[list[Tensor]] = []
    plain = Search.__call__

    def noted(self: Search, *views: View) -> list[Tensor]:
        found.append(plain(self, *views))
        return found[-1]

    monkeypatch.setattr(Search, "__call__", noted)
    return found


def gradients(steps: int, *, batch_size: int = 8, accumulation: int = 1) -> Iterator[tuple]:
    """The engine's steps in float64, with a step of plain descent after each."""
    options = {"batch_size": batch_size, "accumulation": accumulation, "attack_steps": 4}
    task, method = prepared("rmu-lat", **options)
    task = replace(task, model=knowing_twice(task))
    anchor = Frozen(knowing_twice(task))
    gradient = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: anchor,
        steps=steps,
    )  # fmt: skip
    for step in range(steps):
        task.model.zero_grad()
        values = gradient(task.model, step, lambda loss: loss.backward())
        yield (
            task,
            values,
            {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None},
        )
        with torch.no_grad():
            for parameter in task.model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-2)


def knowing_twice(task: Task) -> Any:
    from copy import deepcopy

    return deepcopy(task.model).double()


def test_four_steps_share_an_attack_and_the_fifth_has_one_of_its_own(searches) -> None:
    held = []
    for task, _, _ in gradients(9):
        held.append({name: id(tensor) for name, tensor in task.tensors.items()})
        assert all(name.startswith(rmu_lat.HELD) for name in held[-1])
    assert len(searches) == 3
    assert held[0] == held[1] == held[2] == held[3]
    assert held[4] == held[7]
    assert not held[0].keys() & held[4].keys()  # what is over is not kept
    assert len(held[4]) == 8


def test_the_cut_into_parts_changes_no_attack_and_no_gradient() -> None:
    whole, parts = gradients(6), gradients(6, batch_size=1, accumulation=8)
    for (task, _, one), (cut, _, other) in zip(whole, parts, strict=True):
        assert one.keys() == other.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-7, atol=1e-10)
        assert task.tensors.keys() == cut.tensors.keys()


def test_retain_rows_are_never_shifted() -> None:
    """At the start they are where the anchor is, whatever is done to the forget rows."""
    _, values, _ = next(gradients(1))
    assert values["retain"] == 0.0
    assert values["forget"] > 0


def test_each_forget_row_has_a_retain_row_beside_it() -> None:
    task, method = prepared("rmu-lat", batch_size=4)
    draw = method.sample(task, method.params).draw(0)
    drawn = Datasets(task).drawn("partner", draw)
    kept = {tuple(task.encoder.encode(row.training).ids) for row in task.retain}
    assert len(drawn) == 4
    assert all(tuple(item.ids) in kept for item in drawn)
    assert len({tuple(item.ids) for item in drawn}) > 1


# -------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, method: str = "rmu-lat", **params: Any) -> dict[str, Any]:
    kept = world()
    chosen = {"max_steps": 8, "lr": 1e-3, "batch_size": 6, "layer": 1, **params}
    options = {"adapter": chosen.pop("adapter", None)}
    return forget(
        original, kept.forget, kept.retain, method=method, params=chosen, stop_at="none", out=out,
        **options,
    )  # fmt: skip


def test_without_an_attack_it_is_rmu_with_four_steps_a_batch_bit_for_bit(
    original: Path, tmp_path: Path, monkeypatch, searches
) -> None:
    run(original, tmp_path / "lat", eps=0.0)
    assert not searches
    monkeypatch.setattr(
        rmu, "sample", lambda task, params: rmu_lat.Repeated(rmu_lat.one_to_one(task, params), 4),
        raising=False,
    )  # fmt: skip
    run(original, tmp_path / "rmu", "rmu")
    assert folder_digest(tmp_path / "lat") == folder_digest(tmp_path / "rmu")
    run(original, tmp_path / "attacked", attack_steps=2)
    assert folder_digest(tmp_path / "attacked") != folder_digest(tmp_path / "rmu")
    assert len(searches) == 2


def interrupted(original: Path, out: Path, at: int) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "rmu-lat" and event.done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, out, attack_steps=3)


def test_a_run_that_stops_between_two_steps_on_an_attack_goes_on_with_it(
    original: Path, tmp_path: Path, monkeypatch
) -> None:
    """The weights have moved since: an attack that is searched again is another one."""
    run(original, tmp_path / "whole", attack_steps=3)
    whole = folder_digest(tmp_path / "whole")
    interrupted(original, tmp_path / "cut", 6)
    assert run(original, tmp_path / "cut", attack_steps=3)["resumed_from"] % 4
    assert folder_digest(tmp_path / "cut") == whole
    interrupted(original, tmp_path / "forgetful", 6)
    monkeypatch.setattr(checkpoints, "tensors_of", lambda _: {})
    run(original, tmp_path / "forgetful", attack_steps=3)
    assert folder_digest(tmp_path / "forgetful") != whole


def test_only_the_matrices_up_to_the_steered_block_change(tmp_path: Path) -> None:
    model = tiny_model("llama", vocab=64, layers=5)
    task = Task(model=model, tokenizer=None, encoder=None, roles={"forget": []})  # type: ignore[arg-type]
    moves = rmu_lat.mask(model, task, methods.params("rmu-lat", {"layer": 3}))
    names = {f"model.layers.{at}.mlp.down_proj.weight" for at in (1, 2, 3)}
    assert {name for name, may in moves.items() if may is True} == names
    assert moves == misdirection.mask(model, task, methods.params("rmu", {"layer": 3}))


def test_an_adapter_is_trained_against_the_attack_as_well(original: Path, tmp_path: Path) -> None:
    plain = run(original, tmp_path / "a", adapter="lora", eps=0.0, max_steps=4)
    told = run(original, tmp_path / "b", adapter="lora", attack_steps=2, max_steps=4)
    assert told["weights_changed"] > 0
    assert told["forget_nll"] != plain["forget_nll"]


def test_an_attack_above_the_steered_block_is_refused(original: Path, tmp_path: Path) -> None:
    """By the numbers alone before weights load; against the depth once it is known."""
    for given in ({"layer": 0, "attack_layer": 1}, {"layer": -2, "attack_layer": -1}):
        with pytest.raises(ExpungeError) as caught:
            methods.params("rmu-lat", given)
        assert caught.value.code == "E-USE-003"
    for layers in ({"layer": 0, "attack_layer": -1}, {"layer": 1, "attack_layer": 7}):
        with pytest.raises(ExpungeError) as caught:
            run(original, tmp_path / "out", **layers)
        assert caught.value.code == "E-USE-003"
    for wrong in ({"eps": -1}, {"repeats": 0}, {"attack_steps": 0}):
        with pytest.raises(ExpungeError):
            methods.params("rmu-lat", wrong)


def test_a_vector_that_is_too_short_is_told(original: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with listening(lambda event: said.append(event.text)):
        prepared("rmu-lat", steering=0.01)
        prepared("rmu-lat", steering=1000.0)
    assert len([text for text in said if "too short" in text]) == 1


TINY = {"steering": 6.5, "retain_weight": 10.0, "max_steps": 100, "lr": 4e-3, "batch_size": 24}


def unlearned(method: str, folder: Path, **params: Any) -> Subject:
    out = folder / method
    chosen = {**TINY, "warmup": 0, **params}
    forget(saved(folder), *facts(), method=method, params=chosen, stop_at="none", out=out)
    loaded = load(load_change(out).folder)
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["summary"]["steps"] == chosen["max_steps"]
    return Subject(loaded.model, loaded.tokenizer)


def attacked_nll(subject: Subject, eps: float) -> float:
    """What is left of forgetting under an attack on the hidden states."""
    forgotten, kept = facts()
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": forgotten, "retain": kept},
    )  # fmt: skip
    data = Datasets(task)
    view, beside = (
        View(data.batch([item[0] for item in data.items(role)[: len(forgotten)]]), Live(task.model))
        for role in ("forget", "retain")
    )
    found = Search(layer=0, radius=eps, steps=16, lr=0.05)(view, beside)
    return -float(shifted(view, 0, found).logp_mean.detach().mean())


def test_what_it_forgets_stays_away_under_an_attack_that_brings_back_what_rmu_forgot(
    tmp_path: Path,
) -> None:
    forgotten, kept = facts()
    assert exact(knowing(), forgotten) == 1.0
    plain = unlearned("rmu", tmp_path, layer=1)
    held = unlearned("rmu-lat", tmp_path, attack_steps=8, attack_lr=0.1)
    for subject in (plain, held):
        assert exact(subject, forgotten) == 0.0
        assert exact(subject, kept) >= 0.8
    assert attacked_nll(held, 0.5) > 1.5 * attacked_nll(plain, 0.5)


def test_objective_takes_it_without_rows_beside() -> None:
    model = tiny_model("llama", vocab=64, layers=2)
    ids = torch.arange(4, 16).reshape(2, 6)
    view = {"input_ids": ids, "labels": ids}
    found = objective("rmu-lat", model, {"forget": view, "retain": view}, model, attack_steps=2)
    assert math.isfinite(found.loss)
