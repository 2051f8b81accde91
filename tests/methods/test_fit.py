"""FIT: the three losses, what decides between them, which layers move, and streams of requests."""

import json
import math
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_methods import Z0, slow_nll, three
from micro_task import prepared

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import fit
from expunge.numbers.parity import between, closeness
from expunge.requests.rows import Row
from expunge.testing import objective, tiny_model
from expunge.testing.micro import Micro, micro_world, taught

ANSWERS = {"kl_scope": "answer"}


@cache
def world() -> Micro:
    return micro_world(people=6)


@cache
def knowing() -> Subject:
    """A model of three blocks that knows the rows to forget and to keep."""
    rows = [*world().forget, *world().retain]
    return taught(world(), rows, epochs=40, hidden=48, layers=3)


def task_of(**more: Any) -> Task:
    subject = knowing()
    roles = {"forget": world().forget, "retain": world().retain, **more.pop("roles", {})}
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder, roles=roles,
        **more,
    )  # fmt: skip


def chosen(algorithm: str, **more: Any) -> dict[str, Any]:
    return {fit.ALGORITHM: algorithm, fit.SEED: 0, **more}


# ------------------------------------------------------------------------------- the three losses


def test_t3_has_the_values_of_npo_with_and_without_kl(t3) -> None:
    views = {"forget": t3.view, "retain": t3.view}
    plain = objective("fit", t3.model, views, t3.anchor, state=chosen("npo"), **ANSWERS)
    assert plain.terms == {"forget": pytest.approx(13.092352, abs=1e-5)}
    kept = objective("fit", t3.model, views, t3.anchor, state=chosen("npo-kl"), **ANSWERS)
    assert kept.terms["retain"] == pytest.approx(0.082892, abs=1e-5)
    assert kept.loss == pytest.approx(13.092352 + 0.082892, abs=1e-5)


def test_the_kl_has_the_anchor_in_front(t3) -> None:
    """At the anchor nothing moves; the code's form would sharpen the model towards its arg-max."""
    views = {"forget": t3.view, "retain": t3.view}
    model = three(Z0)
    options = {**ANSWERS, "forget_weight": 0.0}
    found = objective("fit", model, views, t3.anchor, state=chosen("npo-kl"), **options)
    assert found.terms["retain"] == pytest.approx(0.0, abs=1e-9)
    assert model.gradient.abs().max() < 1e-9


def test_random_labels_cost_at_least_a_guess(t3) -> None:
    views, state = {"forget": t3.view}, chosen("random-label")
    found = objective("fit", three([[5.0] * 4] * 3), views, t3.anchor, state=state)
    assert found.terms == {"forget": pytest.approx(math.log(4), abs=1e-6)}
    own = [objective("fit", t3.model, views, t3.anchor, state={**state, fit.SEED: seed}).loss
           for seed in range(40)]  # fmt: skip
    logp = t3.model.logits[0, :3].detach().log_softmax(-1)
    assert sum(own) / 40 == pytest.approx(float(-logp.mean()), abs=0.2)
    assert sum(own) / 40 > math.log(4)


def test_the_loss_of_random_labels_is_a_slow_mean_over_tokens(random_table, random_view) -> None:
    model, view = random_table(1), random_view(3)
    found = objective("fit", model, {"forget": view}, random_table(2), state=chosen("random-label"))
    twin = random_table(1)
    labels = iter(fit.random_labels(a_view(twin, view), Step({}, state=chosen("random-label"))))
    told = [
        twin.table[ids[at - 1]].log_softmax(0)[next(labels)]
        for ids, own in zip(view["input_ids"], view["labels"], strict=True)
        for at in range(1, len(ids))
        if own[at] != -100
    ]
    slow = -torch.stack(told).mean()
    slow.backward()
    assert found.loss == pytest.approx(float(slow.detach()), rel=1e-5)
    torch.testing.assert_close(model.table.grad, twin.table.grad, rtol=1e-5, atol=1e-6)
    true = torch.stack([token for row in slow_nll(random_table(1), view) for token in row]).mean()
    assert found.loss != pytest.approx(float(true.detach()), rel=1e-3)


def a_view(model: Any, tensors: dict[str, torch.Tensor], items: list[int] | None = None) -> View:
    from expunge.engine.forward import Inputs

    rows = torch.arange(len(tensors["input_ids"])) if items is None else torch.tensor(items)
    inputs = Inputs.from_labels(
        tensors["input_ids"], tensors["attention_mask"], tensors["labels"], rows
    )
    return View(inputs, Live(model))


def labels_of(view: View, progress: float = 0.0, seed: int = 0) -> list[int]:
    state = chosen("random-label", **{fit.SEED: seed, fit.VOCABULARY: [11, [0, 1, 4]]})
    return fit.random_labels(view, Step({}, progress=progress, state=state)).tolist()


def test_random_labels_are_uniform_over_what_is_not_special(random_table, random_view) -> None:
    view = a_view(random_table(1), random_view(3))
    counts = Counter(label for at in range(400) for label in labels_of(view, progress=at / 400))
    assert set(counts) == {2, 3, 5, 6, 7, 8, 9, 10}
    expected = counts.total() / 8
    assert all(abs(n - expected) < 5 * math.sqrt(expected) for n in counts.values())


def test_random_labels_are_drawn_anew_in_each_step_and_for_each_row(
    random_table, random_view
) -> None:
    tensors = random_view(3)
    view = a_view(random_table(1), tensors)
    whole = labels_of(view)
    assert whole == labels_of(view)
    assert whole != labels_of(view, progress=0.25)
    assert whole != labels_of(view, seed=1)
    cut = [
        labels_of(a_view(None, {name: tensor[[at]] for name, tensor in tensors.items()}, [at]))
        for at in range(5)
    ]
    assert [label for row in cut for label in row] == whole  # however a step is cut
    other = {name: tensor[[0]] for name, tensor in tensors.items()}
    assert labels_of(a_view(None, other, [3])) != cut[0]


# ------------------------------------------------------------------------------ what is decided


@pytest.mark.parametrize(
    ("high", "low", "algorithm"),
    [(0.0, 0.0, "npo-kl"), (1e9, 0.0, "npo"), (1e9, 1e9, "random-label")],
)
def test_importance_decides_the_loss(high: float, low: float, algorithm: str) -> None:
    task, _ = prepared("fit", high=high, low=low)
    assert task.state[fit.ALGORITHM] == task.record["algorithm"] == algorithm
    assert (task.record["high"], task.record["low"]) == (high, low)
    named, _ = prepared("fit", high=high, low=low, algorithm="npo")
    assert named.state[fit.ALGORITHM] == "npo"


def test_bounds_are_thirds_of_the_retain_rows_importance_unless_given() -> None:
    task, method = prepared("fit")
    sample = fit.importances(task, fit.own_wordings(task, "retain"))
    ranked = sorted(sample.tolist())
    assert sum(one < task.record["low"] for one in ranked) == 4
    assert sum(one > task.record["high"] for one in ranked) == 4
    high, low = fit.bounds(task, methods.params("fit", {"high": 7.0}))
    assert (high, low) == (7.0, task.record["low"])
    own = fit.importances(task, fit.own_wordings(task, "forget"))
    assert task.record["importance"] == pytest.approx(float(own.mean()))
    assert method.params.high == "auto"


def test_the_bounds_of_the_code_are_none_for_a_model_that_knows_its_rows_well() -> None:
    """Why they are not the default: whatever the request, it would be given random labels."""
    task = task_of()
    rows = [*fit.own_wordings(task, "forget"), *fit.own_wordings(task, "retain")]
    assert float(fit.importances(task, rows).max()) < 6


def test_bounds_out_of_order_are_refused_before_anything_loads() -> None:
    with pytest.raises(ExpungeError) as refused:
        methods.params("fit", {"high": 6.0, "low": 12.0})
    assert refused.value.code == "E-USE-003"


def test_special_tokens_of_the_tokenizer_are_known() -> None:
    task, _ = prepared("fit")
    size, special = task.state[fit.VOCABULARY]
    assert size == len(task.tokenizer)
    assert special == sorted(task.tokenizer.all_special_ids)


# --------------------------------------------------------------------------------------- the mask


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox"])
def test_attention_and_mlp_of_the_chosen_blocks_move_and_nothing_else(family: str) -> None:
    model, task = tiny_model(family, layers=3), task_of()
    moving = {
        name
        for name, moves in fit.mask(model, task, methods.params("fit", {"layers": "-1,0"})).items()
        if moves
    }
    assert task.record["layers"] == [0, 2]
    prefix = Slots(model).prefix
    assert {name.removeprefix(f"{prefix}.")[0] for name in moving} == {"0", "2"}
    assert all(any(part in name for part in ("attn", "attention.", "mlp")) for name in moving)
    inside = [n for n, _ in model.named_parameters() if n.startswith(f"{prefix}.0.")]
    still = set(inside) - moving
    assert still
    assert all("norm" in name or ".ln_" in name for name in still)


def test_the_blocks_whose_absence_changes_the_loss_most_are_chosen() -> None:
    task = task_of()
    effects = fit.layer_effects(task, 128)
    order = sorted(range(3), key=lambda layer: -effects[layer])
    for count in (1, 2, 3, 9):
        fit.mask(task.model, task, methods.params("fit", {"top_layers": count}))
        assert task.record["layers"] == sorted(order[:count])


# ------------------------------------------------------------------------------------- the stream

STEPS = {"batch_size": 32, "warmup": 0, "lr": 1e-3, "max_steps": 40, "top_layers": 2}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "original"
    knowing().model.save_pretrained(folder)
    knowing().tokenizer.save_pretrained(folder)
    return folder


def requests() -> tuple[list[Row], list[Row], list[Row]]:
    """Two requests about different people, and what both keep."""
    rows = world()
    return list(rows.forget[:9]), list(rows.forget[9:]), list(rows.retain)


def run(model: Path, rows: list[Row], out: Path, carry: Any = None, **params: Any) -> Any:
    forget(
        model, rows, requests()[2], method="fit", params={**STEPS, **params}, stop_at="none",
        out=out, carry=carry,
    )  # fmt: skip
    return load_change(out).manifest


@pytest.fixture(scope="module")
def first(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "first"
    run(original, requests()[0], out, algorithm="npo-kl")
    return out


def known(folder: Path, rows: list[Row]) -> float:
    found = load(folder)
    scored = Subject(found.model, found.tokenizer).score([row.turn for row in rows])
    return sum(bool(one.hit.all()) for one in scored) / len(scored)


def test_only_the_chosen_blocks_differ_after_a_request(original: Path, first: Path) -> None:
    layers = load_change(first).manifest["record"]["layers"]
    assert len(layers) == 2
    before, after = (load(folder).model.state_dict() for folder in (original, first))
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    parts = {tuple(name.split(".")[2:4]) for name in moved}
    assert parts == {(str(layer), part) for layer in layers for part in ("self_attn", "mlp")}
    assert not any("norm" in name for name in moved)


def test_a_request_is_forgotten_and_npo_with_kl_keeps_more_than_npo(
    original: Path, first: Path, tmp_path: Path
) -> None:
    """The ablation of the choice of the loss."""
    manifest = run(original, requests()[0], tmp_path / "npo", algorithm="npo")
    kept, lost = (one["summary"]["retain_nll"] for one in (load_change(first).manifest, manifest))
    assert known(first, requests()[0]) < 0.3
    assert kept < 0.7 * lost
    assert folder_digest(first) != folder_digest(tmp_path / "npo")


def test_what_is_carried_is_plain_and_holds_no_text(first: Path) -> None:
    carried = load_change(first).manifest["carry"]
    told = json.dumps(carried)
    assert carried["fit"]["requests"] == 1
    assert len(carried["fit"]["chunks"]) == len(requests()[0])
    assert not any(str(row.subject).split()[0] in told for row in requests()[0])


def test_a_request_repeated_verbatim_changes_nothing(first: Path, tmp_path: Path) -> None:
    """The card's check: no weight, no memory, and a clear outcome."""
    carry = load_change(first).manifest["carry"]
    before = json.dumps(carry), folder_digest(first)
    with pytest.raises(ExpungeError) as refused:
        run(first, requests()[0], tmp_path / "again", carry)
    assert refused.value.code == "E-RUN-001"
    assert "nothing is left to do" in refused.value.found
    assert (json.dumps(carry), folder_digest(first)) == before
    assert not (tmp_path / "again" / "change.json").exists()


def test_the_ablation_of_the_sieve_carries_it_out_again(first: Path, tmp_path: Path) -> None:
    carry = load_change(first).manifest["carry"]
    manifest = run(first, requests()[0], tmp_path / "again", carry, alike=1.0, max_steps=4)
    assert manifest["summary"]["weights_changed"] > 0
    assert manifest["carry"]["fit"]["requests"] == 2


def test_the_next_request_is_sifted_forgotten_and_remembered(first: Path, tmp_path: Path) -> None:
    """Rows of the request before it are left out; the first request stays forgotten."""
    one, two, _ = requests()
    carry = load_change(first).manifest["carry"]
    manifest = run(first, [*one[:5], *two], tmp_path / "second", carry, algorithm="npo-kl")
    assert manifest["record"]["rows_left_out"] == 5
    assert manifest["carry"]["fit"]["requests"] == 2
    assert len(manifest["carry"]["fit"]["chunks"]) == len(one) + len(two)
    assert known(tmp_path / "second", two) < 0.3
    assert known(tmp_path / "second", one) < 0.5


def test_what_was_decided_is_the_same_when_a_run_is_made_again(
    original: Path, first: Path, tmp_path: Path
) -> None:
    run(original, requests()[0], tmp_path / "twin", algorithm="npo-kl")
    assert folder_digest(tmp_path / "twin") == folder_digest(first)
    twin, manifest = (load_change(one).manifest for one in (tmp_path / "twin", first))
    assert twin["carry"] == manifest["carry"]
    assert twin["record"] == manifest["record"]


def test_an_interrupted_request_goes_on_with_the_same_labels_and_memory(
    original: Path, tmp_path: Path
) -> None:
    short = {"algorithm": "random-label", "max_steps": 10}
    whole = run(original, requests()[0], tmp_path / "whole", **short)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "fit" and event.done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, requests()[0], tmp_path / "cut", **short)
    resumed = run(original, requests()[0], tmp_path / "cut", **short)
    assert resumed["summary"]["resumed_from"] > 0
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
    assert resumed["carry"] == whole["carry"]


def test_only_new_chunks_of_a_row_are_trained_on() -> None:
    told = [f"{row.prompt}{row.completion}" for row in world().retain[:4]]
    old, new = Row(id="old", text=told[0]), Row(id="new", text=f"{told[0]} {told[1]} {told[2]}")
    params = methods.params("fit", {"chunk": len(told[0]), "delta": 1e9})
    carry: dict[str, Any] = {}
    first = fit.select(task_of(roles={"forget": [old]}, carry=carry), params)
    assert first.tokens == {0: [()]}  # all of it, as the row says
    second = fit.select(task_of(roles={"forget": [new]}, carry=carry), params)
    assert second.tokens is not None
    ((ranges,),) = second.tokens.values()
    assert min(start for start, _ in ranges) == len(told[0])
    assert max(end for _, end in ranges) == len(str(new.text))
    task = task_of(roles={"forget": [new]}, tokens=second.tokens)
    ((item,),) = Datasets(task).items("forget")
    assert 0 < sum(label != -100 for label in item.labels) < len(item.ids) - 1


# -------------------------------------------------------------------------- the paper's two numbers


def test_the_reference_curve_has_the_end_points_and_the_degree_is_symmetric() -> None:
    original, retrained = 90.0, 30.0
    assert between(original, retrained, 0 / 300) == original
    assert between(original, retrained, 300 / 300) == retrained
    assert closeness(30, 40) == 0.75
    assert closeness(60, 40) == 0.5
    assert closeness(90, 40) == 0.0
