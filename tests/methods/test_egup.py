"""EGUP: efforts, bounds, the base loss bit for bit, a slow second loss, what each part does."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_methods import assert_same, slow_nll, three
from micro_task import prepared
from torch.nn.functional import cosine_similarity

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.view import View
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import egup
from expunge.testing import objective
from expunge.testing.micro import Micro, micro_world, taught

INVENTED = {"source": "invented", "proxies": 2}


def uniform(rows: int, **state: Any) -> dict[str, Any]:
    return {egup.EFFORT: [1.0] * rows, egup.BOUNDS: [0.0] * rows, **state}


# ------------------------------------------------------------------------------------ the efforts


def test_the_weights_of_two_rows_are_those_of_the_card() -> None:
    found = egup.weights(torch.tensor([0.9, 0.5], dtype=torch.float64), 0.1)
    assert found.tolist() == pytest.approx([1.9640, 0.0360], abs=5e-5)
    assert float(found.mean()) == pytest.approx(1.0)


def test_weights_are_exactly_one_where_all_rows_are_alike() -> None:
    """A softmax times the number of rows is not: 49 times a forty-ninth is less than one."""
    assert 1 / 49 * 49 != 1.0
    for rows in (1, 3, 49):
        assert egup.weights(torch.full((rows,), 0.7, dtype=torch.float64), 0.1).tolist() == (
            [1.0] * rows
        )


def test_a_high_temperature_gives_all_rows_the_same_and_a_low_one_takes_the_closest() -> None:
    similarity = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    assert egup.weights(similarity, 1e6).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert egup.weights(similarity, 1e-3).tolist() == pytest.approx([3.0, 0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("how", ["centroid", "max", "top5"])
def test_entanglement_equals_a_slow_loop(how: str) -> None:
    draw = torch.Generator().manual_seed(0)
    own, kept = torch.randn(4, 6, generator=draw), torch.randn(9, 6, generator=draw) + 0.3
    for row, found in zip(own, egup.entangled(own, kept, how), strict=True):
        single = sorted((float(cosine_similarity(row, one, dim=0)) for one in kept), reverse=True)
        expected = {
            "centroid": float(cosine_similarity(row, kept.mean(0), dim=0)),
            "max": single[0],
            "top5": sum(single[:5]) / 5,
        }[how]
        assert float(found) == pytest.approx(expected, abs=1e-5)
    assert egup.entangled(own, kept[:2], "top5").shape == (4,)


def test_the_distance_is_one_less_the_cosine_and_exactly_0_of_the_same() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    expected = 1 - cosine_similarity(one, other)
    torch.testing.assert_close(egup.distance(one, other), expected)
    assert egup.distance(one, one).tolist() == [0.0] * 5
    assert egup.distance(one, 3 * one).tolist() == pytest.approx([0.0] * 5, abs=1e-15)


def test_states_are_means_over_real_tokens_only() -> None:
    task, _ = prepared("egup", **INVENTED)
    items = [wordings[0] for wordings in Datasets(task).items("forget")]
    assert len({len(item.ids) for item in items}) > 1
    for layer in (-1, 0, "embedding"):
        with torch.no_grad():
            found = egup.pooled(task, items, layer)
            for item, state in zip(items, found, strict=True):
                ids = torch.tensor([item.ids])
                outputs = task.model.model(ids, output_hidden_states=True).hidden_states
                seen = {0: outputs[1], "embedding": outputs[0]}
                if layer in seen:
                    torch.testing.assert_close(
                        state, seen[layer][0].double().mean(0), rtol=1e-4, atol=1e-6
                    )
                alone = egup.pooled(task, [item], layer)[0]
                torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize(("base", "plain"), [("npo", "npo"), ("ga", "grad-diff"), ("ga", "ga")])
def test_with_uniform_effort_and_no_bound_it_is_the_base_loss_bit_for_bit(
    random_table, random_view, base: str, plain: str
) -> None:
    views = {"forget": random_view(3)} | ({} if plain == "ga" else {"retain": random_view(4)})
    found, expected, anchor = (exact_table(random_table(seed)) for seed in (1, 1, 2))
    ours = objective("egup", found, views, anchor, state=uniform(5), base=base, proxy_weight=0.0)
    theirs = objective(plain, expected, views, anchor)
    assert torch.equal(found.table.grad, expected.table.grad)
    assert ours.loss == theirs.loss
    assert ours.terms["forget"] == theirs.terms["forget"]


def exact_table(table: Any) -> Any:
    table.table = table.table.detach().double().requires_grad_()
    return table


def test_t3_has_the_value_of_the_base_and_of_the_bound(t3) -> None:
    for bound, excess in ((0.3, 0.164952**2), (0.464953, 0.0), (9.0, 0.0)):
        state = uniform(1, **{egup.BOUNDS: [bound]})
        found = objective("egup", t3.model, {"forget": t3.view}, t3.anchor, state=state)
        assert found.terms["forget"] == pytest.approx(13.092352, abs=1e-5)
        assert found.terms["constraint"] == pytest.approx(excess, abs=1e-5)
        doubled = objective(
            "egup", t3.model, {"forget": t3.view}, t3.anchor, state=state, proxy_weight=2.0
        )
        assert doubled.loss == pytest.approx(13.092352 + 2 * excess, abs=1e-5)


@pytest.mark.parametrize("base", ["npo", "ga"])
def test_it_equals_a_slow_weighted_sum(random_table, random_view, base: str) -> None:
    effort, bounds = [0.2, 3.0, 0.0, 1.0, 0.8], [1.0, 2.0, 3.0, 9.0, 0.5]
    model, views = random_table(1), {"forget": random_view(3), "retain": random_view(4)}
    state = {egup.EFFORT: effort, egup.BOUNDS: bounds}
    found = objective(
        "egup", model, views, random_table(2), state=state, base=base, beta=0.4, proxy_weight=0.7
    )
    twin, frozen = random_table(1), random_table(2)
    rows, before = slow_nll(twin, views["forget"]), slow_nll(frozen, views["forget"])
    if base == "npo":
        losses = [
            2 / 0.4 * torch.log1p(torch.exp(-0.4 * (sum(now) - sum(then).detach())))
            for now, then in zip(rows, before, strict=True)
        ]
        top = sum(w * loss for w, loss in zip(effort, losses, strict=True))
        base_loss = top / sum(effort)
    else:
        top = sum(-w * sum(row) for w, row in zip(effort, rows, strict=True))
        base_loss = top / sum(w * len(row) for w, row in zip(effort, rows, strict=True))
    over = [torch.relu(sum(r) / len(r) - b) ** 2 for r, b in zip(rows, bounds, strict=True)]
    kept = [token for row in slow_nll(twin, views["retain"]) for token in row]
    slow = base_loss + torch.stack(kept).mean() + 0.7 * torch.stack(over).mean()
    slow.backward()
    assert 0 < sum(bool(one > 0) for one in over) < 5
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_efforts_are_relative_so_the_rate_does_not_change_with_them(
    random_table, random_view
) -> None:
    views, found = {"forget": random_view(3)}, []
    for scale in (1.0, 0.01):
        state = uniform(5, **{egup.EFFORT: [scale * w for w in (0.2, 3.0, 0.1, 1.0, 0.7)]})
        found.append(
            objective(
                "egup", random_table(1), views, random_table(2), state=state, proxy_weight=0.0
            ).loss
        )
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("base", ["npo", "ga"])
def test_without_any_effort_nothing_is_pushed(random_table, random_view, base: str) -> None:
    model = random_table(1)
    state = uniform(5, **{egup.EFFORT: [0.0] * 5, egup.BOUNDS: [1e3] * 5})
    found = objective(
        "egup", model, {"forget": random_view(3)}, random_table(2), state=state, base=base
    )
    assert found.loss == 0.0
    assert torch.equal(model.table.grad, torch.zeros_like(model.table))


def test_beyond_the_bound_the_constraint_pulls_against_the_base(t3) -> None:
    views, state = {"forget": t3.view}, uniform(1, **{egup.BOUNDS: [0.2]})
    gradients = []
    for only in ({"proxy_weight": 0.0}, {"forget_weight": 0.0}):
        model = three([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]])
        objective("egup", model, views, t3.anchor, state=state, **only)
        gradients.append(model.gradient.flatten())
    pushed, pulled = gradients
    assert float(pulled.norm()) > 0.01
    assert float(cosine_similarity(pushed, pulled, dim=0)) < -0.9


def test_before_anything_is_prepared_it_is_the_base_alone(t3) -> None:
    found = objective("egup", t3.model, {"forget": t3.view}, t3.anchor)
    assert found.terms == {"forget": pytest.approx(13.092352, abs=1e-5), "constraint": 0.0}


# -------------------------------------------------------------------- what is prepared, refreshed


def test_bounds_are_the_levels_of_the_look_alikes_under_the_original() -> None:
    task, _ = prepared("egup", **INVENTED)
    subject = Subject(task.model, task.tokenizer)
    assert {"proxies_invented", "proxies_unseen", "bound"} <= set(task.record)
    from expunge.engine.proxies import proxies_of, turns_by_row

    turns = turns_by_row(proxies_of(task, 2, "invented"))
    expected = [
        sum(scored.nll for scored in subject.score(turns[row.id])) / 2 for row in task.forget
    ]
    assert task.state[egup.BOUNDS][::2] == pytest.approx(expected)
    assert task.state[egup.BOUNDS][1::2] == task.state[egup.BOUNDS][::2]  # all wordings of a row
    items = [task.encoder.encode(turn) for turn in turns[task.forget[0].id]]
    with torch.no_grad():
        apart = egup.distance(egup.pooled(task, items, -1), task.tensors[egup.START][0])
    assert task.state[egup.REACH][0] == pytest.approx(float(apart.mean()))


def test_a_row_without_look_alikes_is_bounded_by_a_guess_and_keeps_its_effort() -> None:
    task, method = prepared("egup", source="model")  # which this model is too small for
    assert task.record["proxies_invented"] == task.record["proxies_unseen"] == 0
    guess = math.log(task.model.config.vocab_size)
    assert task.state[egup.BOUNDS] == pytest.approx([guess] * 24)
    task.tensors[egup.START] = -task.tensors[egup.START]
    egup.refresh(task, method.params)
    assert task.state[egup.LEFT] == [1.0] * 12


def test_at_the_start_all_effort_is_left_and_is_the_softmax_of_the_entanglement() -> None:
    task, method = prepared("egup", **INVENTED)
    assert task.state[egup.LEFT] == [1.0] * 12
    with torch.no_grad():
        own, kept = (
            egup.pooled(task, [w[0] for w in Datasets(task).items(role)], -1)
            for role in ("forget", "retain")
        )
    similar = torch.stack([cosine_similarity(row, kept.mean(0), dim=0) for row in own])
    expected = torch.softmax(similar / method.params.temperature, 0) * 12
    assert task.state[egup.EFFORT][::2] == pytest.approx(expected.tolist())
    assert max(expected) > 1.05


def test_a_row_loses_its_effort_as_its_state_moves_away() -> None:
    task, method = prepared("egup", **INVENTED)
    with torch.no_grad():
        now = egup.pooled(task, [w[0] for w in Datasets(task).items("forget")], -1)
    turned = now.flip(1)
    shares = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
    task.tensors[egup.START] = (1 - shares) * now + shares * turned
    moved = [float(one) for one in 1 - cosine_similarity(now, task.tensors[egup.START])]
    task.state[egup.REACH] = [sorted(moved)[6]] * 11 + [None]
    for reach in (0.5, 2.0):
        egup.refresh(task, replace(method.params, reach=reach))
        far = reach * task.state[egup.REACH][0]
        expected = [max(0.0, 1 - one / far) for one in moved[:-1]] + [1.0]
        assert task.state[egup.LEFT] == pytest.approx(expected, abs=1e-9)
        assert 0.0 in task.state[egup.LEFT]
    zeros = [at for at, left in enumerate(task.state[egup.LEFT]) if left == 0.0]
    assert all(task.state[egup.EFFORT][2 * at] == 0.0 for at in zeros)


def test_the_centroid_is_that_of_a_fixed_sample() -> None:
    task, method = prepared("egup", **INVENTED)
    few = [egup._own(task, "retain", 5) for _ in range(2)]
    assert few[0] == few[1]
    assert len(few[0]) == 5
    assert len(egup._own(task, "retain", method.params.retain_rows)) == len(task.retain)


def test_a_value_belongs_to_the_item_and_not_to_its_place_in_the_batch() -> None:
    task, _ = prepared("egup", **INVENTED)
    items = [w[0] for w in Datasets(task).items("forget")]
    view = View(Datasets(task).batch([items[7], items[2]]), Live(task.model))
    values = [float(at) for at in range(24)]
    assert egup.of_rows(view, values, 0.0).tolist() == [14.0, 4.0]
    assert egup.of_rows(view, None, 3.0).tolist() == [3.0, 3.0]


def test_a_step_reports_how_much_effort_is_left(t3) -> None:
    from expunge.engine.forward import Inputs

    ids, labels = t3.view["input_ids"], t3.view["labels"]
    inputs = Inputs.from_labels(ids, t3.view["attention_mask"], labels, torch.arange(1))
    view = View(inputs, Live(t3.model), lambda: Live(t3.anchor))
    step = Step({"forget": view}, state=uniform(1, **{egup.LEFT: [0.5, 0.0]}))
    egup.forget(step, methods.params("egup", {}))
    assert float(step.reported[egup.LEFT].value) == 0.25


def test_parameters_out_of_range_are_refused() -> None:
    for wrong in ({"base": "dpo"}, {"temperature": 0.0}, {"proxies": 0}, {"layer": "top"}):
        with pytest.raises(ExpungeError) as refused:
            methods.params("egup", wrong)
        assert refused.value.code == "E-USE-003"


# ------------------------------------------------------------------------------------- its effect


@pytest.fixture(scope="module")
def rows() -> Micro:
    return micro_world(people=6)


@pytest.fixture(scope="module")
def original(rows: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the rows to forget and to keep, and was never told of the hold-out."""
    folder = tmp_path_factory.mktemp("models") / "original"
    subject = taught(rows, [*rows.forget, *rows.retain], epochs=40, hidden=48, layers=2)
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


def run(original: Path, rows: Micro, out: Path, **params: Any) -> dict[str, Any]:
    options = {"batch_size": 32, "warmup": 0, "lr": 1.5e-3, "max_steps": 40, "base": "ga",
               "source": "invented", **params}  # fmt: skip
    forget(
        original, rows.forget, rows.retain, holdout=rows.holdout, method="egup", params=options,
        stop_at="none", out=out,
    )  # fmt: skip
    change = load_change(out)
    found = load(out)
    kept = Subject(found.model, found.tokenizer).score([row.turn for row in rows.retain])
    exact = sum(bool(one.hit.all()) for one in kept) / len(kept)
    left = [measured["terms"][egup.LEFT] for measured in change.manifest["history"]]
    return {
        "forget": change.summary["forget_nll"], "bound": change.manifest["record"]["bound"],
        "exact": exact, "left": left, "digest": folder_digest(out),
    }  # fmt: skip


ALL_EFFORT = {"reach": 1e9, "temperature": 1e9}


@pytest.fixture(scope="module")
def free(original: Path, rows: Micro, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Nothing but the base: no bound, the same effort for all, wherever their states go."""
    return run(original, rows, tmp_path_factory.mktemp("free"), proxy_weight=0.0, **ALL_EFFORT)


def test_it_ends_near_the_level_of_look_alikes_and_ascent_alone_far_above(
    original: Path, rows: Micro, tmp_path: Path, free: dict[str, Any]
) -> None:
    """The card's check, and the ablation of the bound."""
    whole = run(original, rows, tmp_path / "whole")
    bound = run(original, rows, tmp_path / "bound", **ALL_EFFORT)
    assert abs(bound["forget"] - bound["bound"]) < 1.5
    assert free["forget"] > free["bound"] + 1.75
    assert 0.5 < whole["forget"] < whole["bound"] + 1.5  # how far below, its states decide
    assert bound["exact"] >= 0.9
    assert whole["exact"] >= 0.8
    assert whole["left"][0] == 1.0
    assert min(whole["left"]) < 0.5
    digests = {folder_digest(tmp_path / name) for name in ("whole", "bound")}
    assert len(digests | {free["digest"]}) == 3


def test_rows_that_have_moved_far_are_left_alone(
    original: Path, rows: Micro, tmp_path: Path, free: dict[str, Any]
) -> None:
    """The ablation of v: with a short reach the ascent rests long before any bound."""
    near = run(original, rows, tmp_path / "near", **{**ALL_EFFORT, "reach": 0.5}, proxy_weight=0.0)
    assert near["left"][-1] < 0.2
    assert free["left"][-1] > 0.99
    assert near["forget"] < 0.6 * free["forget"]


def test_efforts_and_bounds_survive_a_resume(original: Path, rows: Micro, tmp_path: Path) -> None:
    short = {"max_steps": 8}
    run(original, rows, tmp_path / "whole", **short)

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "egup" and event.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, rows, tmp_path / "cut", **short)
    run(original, rows, tmp_path / "cut", **short)
    assert load_change(tmp_path / "cut").summary["resumed_from"] > 0
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


def test_the_engine_trains_the_base_where_all_rows_are_alike(
    original: Path, rows: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ablation of w: with it off the final weights are those of grad-diff, bit for bit."""
    options = {"batch_size": 9, "warmup": 0, "lr": 1e-3, "max_steps": 4}
    shared = {"holdout": rows.holdout, "stop_at": "none"}
    for name, patched in (("entangled", False), ("alike", True)):
        if patched:
            monkeypatch.setattr(egup, "entangled", lambda own, *_: torch.zeros(len(own)))
        params = {**options, "base": "ga", "source": "invented", "proxy_weight": 0.0, "reach": 1e18}
        forget(
            original, rows.forget, rows.retain, method="egup", params=params,
            out=tmp_path / name, **shared,
        )  # fmt: skip
    forget(
        original, rows.forget, rows.retain, method="grad-diff", params=options,
        out=tmp_path / "base", **shared,
    )  # fmt: skip
    base = folder_digest(tmp_path / "base")
    assert folder_digest(tmp_path / "alike") == base
    assert folder_digest(tmp_path / "entangled") != base


def test_what_the_look_alikes_were_lies_in_the_change(
    original: Path, rows: Micro, tmp_path: Path
) -> None:
    run(original, rows, tmp_path / "out", max_steps=2)
    record = load_change(tmp_path / "out").manifest["record"]
    assert record["proxies_unseen"] == 3 * len(rows.forget)
    assert (tmp_path / "out" / "made" / "proxies.jsonl").is_file()
