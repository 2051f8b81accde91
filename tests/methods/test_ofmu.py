"""OFMU: closed forms of both levels on quadratics, the forms of differences, and what Adam does."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from micro_task import prepared
from quadratic import A, B, Bowls
from tiny_rig import exact, facts, saved

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.check import check_forget
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import ofmu
from expunge.testing import objective
from expunge.testing.methods import stage, taught_subject, world

START = [1.5, -0.7, 0.4]


def chosen(**params: Any) -> ofmu.Params:
    return ofmu.Params(**{"beta": 0.4, "inner": "plain", "inner_rate": 0.02, **params})


def state_of(params: ofmu.Params, **state: float) -> dict[str, Any]:
    return {ofmu.RHO: params.rho, ofmu.RATE: params.inner_rate, ofmu.REST: -1.0, **state}


def combined(
    bowls: Bowls, params: ofmu.Params, state: dict[str, Any] | None = None
) -> list[torch.Tensor]:
    return ofmu.combine(bowls.gradients(), state_of(params) if state is None else state, params)


def phi_slope(theta: torch.Tensor, beta: float, gamma: float = 1.0) -> torch.Tensor:
    """grad Phi by hand, with L_f = L_1: both losses have constant Hessians A and B."""
    f, r = A @ theta, B @ (theta - 1)
    cos = f @ r / (f.norm() * r.norm())
    by_f = r / (f.norm() * r.norm()) - cos * f / f.norm() ** 2
    by_r = f / (f.norm() * r.norm()) - cos * r / r.norm() ** 2
    return gamma * f - beta * (A @ by_f + B @ by_r)


def outer_slope(theta: torch.Tensor, params: ofmu.Params, rho: float) -> torch.Tensor:
    """grad J by central differences of J itself, whose gradient of Phi is the one by hand."""

    def value(at: torch.Tensor) -> float:
        off, up = at - 1, phi_slope(at, params.beta, params.forget_weight)
        return float(params.retain_weight * 0.5 * off @ B @ off + rho * up @ up)

    steps = torch.eye(3, dtype=torch.float64) * 1e-5
    slopes = [(value(theta + e) - value(theta - e)) / 2e-5 for e in steps]
    return torch.tensor(slopes, dtype=torch.float64)


@pytest.fixture
def theta() -> torch.Tensor:
    return torch.tensor(START, dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.0, 0.4, 3.0])
@pytest.mark.parametrize(("form", "near"), [("exact", 1e-9), ("finite", 1e-5)])
def test_the_slope_of_the_inner_objective_is_the_one_by_hand(
    theta: torch.Tensor, beta: float, form: str, near: float
) -> None:
    params = chosen(beta=beta, hvp=form, epsilon=1e-3, forget_weight=1.5)
    (found,) = ofmu.slope(Bowls(START, sign=-1.0), params)
    torch.testing.assert_close(found, phi_slope(theta, beta, 1.5), rtol=near, atol=near)


@pytest.mark.parametrize("beta", [0.0, 0.4, 3.0])
@pytest.mark.parametrize(("form", "near"), [("exact", 1e-6), ("finite", 1e-4)])
def test_the_outer_gradient_is_that_of_the_penalised_retain_loss(
    theta: torch.Tensor, beta: float, form: str, near: float
) -> None:
    """The card's check: autograd against finite differences, to 1e-5."""
    params = chosen(beta=beta, hvp=form, epsilon=1e-3, retain_weight=2.0)
    bowls, state = Bowls(START, sign=-1.0), state_of(params, **{ofmu.RHO: 0.3})
    (found,) = ofmu.outer(bowls, state, params)
    expected = outer_slope(theta, params, rho=0.3)
    torch.testing.assert_close(found, expected, rtol=near, atol=near)
    assert torch.equal(bowls.theta, theta)
    assert state[ofmu.REST] == pytest.approx(float(phi_slope(theta, beta).norm()), rel=1e-4)
    without_second = 2.0 * B @ (theta - 1)
    assert float((found - without_second).norm()) > 0.1


def test_without_products_the_outer_gradient_is_the_retain_one(theta: torch.Tensor) -> None:
    (found,) = ofmu.outer(Bowls(START, -1.0), state_of(chosen()), chosen(hvp="none"))
    torch.testing.assert_close(found, B @ (theta - 1))


def test_a_step_ascends_t_times_and_then_looks_outward_from_there(theta: torch.Tensor) -> None:
    params, bowls = chosen(inner_steps=7, rho=0.2), Bowls(START, sign=-1.0)
    (found,) = combined(bowls, params)
    for _ in range(7):
        theta = theta + 0.02 * phi_slope(theta, 0.4)
    torch.testing.assert_close(bowls.theta.detach(), theta, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, outer_slope(theta, params, 0.2), rtol=1e-5, atol=1e-6)


def test_the_outer_gradient_may_be_taken_where_the_ascent_began(theta: torch.Tensor) -> None:
    """The weights end up where the inner steps lead all the same."""
    inner, start = Bowls(START, -1.0), Bowls(START, -1.0)
    (there,) = combined(inner, chosen())
    (here,) = combined(start, chosen(outer_at="start"))
    assert torch.equal(inner.theta, start.theta)
    torch.testing.assert_close(here, outer_slope(theta, chosen(), 0.01), rtol=1e-5, atol=1e-6)
    assert float((there - here).norm()) > 1e-2


def test_decorrelation_lowers_the_cosine_and_its_absence_does_not() -> None:
    """One inner step with and without beta, from gradients that agree."""
    cosines = {}
    for beta in (0.0, 2.0):
        bowls = Bowls(START, sign=-1.0)
        combined(bowls, chosen(beta=beta, inner_steps=1, inner_rate=0.05))
        f, r = A @ bowls.theta.detach(), B @ (bowls.theta.detach() - 1)
        cosines[beta] = float(f @ r / (f.norm() * r.norm()))
    start = torch.tensor(START, dtype=torch.float64)
    f, r = A @ start, B @ (start - 1)
    before = float(f @ r / (f.norm() * r.norm()))
    assert before > 0.2
    assert abs(cosines[2.0]) < before - 0.005
    assert cosines[0.0] > cosines[2.0] + 0.01


def test_the_inner_adam_is_its_own_and_new_in_each_step() -> None:
    """By hand, twice: a state kept over steps would make the second ascent another one."""
    params = chosen(inner="adam", inner_rate=0.03, inner_steps=3)
    bowls = Bowls(START, sign=-1.0)
    theta = torch.tensor(START, dtype=torch.float64)
    for _ in range(2):
        combined(bowls, params)
        m, v = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for t in (1, 2, 3):
            up = phi_slope(theta, 0.4)
            m, v = 0.9 * m + 0.1 * up, 0.999 * v + 0.001 * up**2
            scaled = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            theta = theta + 0.03 * scaled
        torch.testing.assert_close(bowls.theta.detach(), theta, rtol=1e-7, atol=1e-7)
    assert bowls.theta.grad is None


def test_rho_grows_by_its_factor_up_to_its_bound() -> None:
    params = chosen(rho=0.5, rho_growth=1.5, rho_max=1.2)
    state, seen = state_of(params), []
    for _ in range(4):
        seen.append(state[ofmu.RHO])
        combined(Bowls(START, -1.0), params, state)
    assert seen == pytest.approx([0.5, 0.75, 1.125, 1.2])


def test_where_a_side_has_no_gradient_there_is_no_cosine(theta: torch.Tensor) -> None:
    """A retain term at its minimum, as a divergence from the anchor is at the start."""
    for form in ("exact", "finite"):
        bowls = Bowls([1.0, 1.0, 1.0], sign=-1.0)
        (found,) = ofmu.slope(bowls, chosen(hvp=form))
        torch.testing.assert_close(found, A @ torch.ones(3, dtype=torch.float64))
        (outward,) = ofmu.outer(bowls, state_of(chosen(rho=0.3)), chosen(hvp=form, rho=0.3))
        assert outward.isfinite().all()


def test_t3_is_ascent_up_to_the_cap(t3) -> None:
    views = {"forget": t3.view}
    assert objective("ofmu", t3.model, views).loss == pytest.approx(-0.464952, abs=1e-5)
    found = objective("ofmu", t3.model, views, cap=0.5)
    assert found.loss == pytest.approx(-(0.440190 + 0.210998 + 0.5) / 3, abs=1e-5)
    as_npo = objective("ofmu", t3.model, views, t3.anchor, forget_loss="npo")
    assert as_npo.loss == pytest.approx(13.092352, abs=1e-5)


@pytest.mark.parametrize("cap", [2.0, "auto", "none"])
def test_a_token_at_the_cap_is_pushed_no_further(
    random_table, random_view, cap: float | str
) -> None:
    model, twin, view = random_table(1), random_table(1), random_view(3)
    model.table.data *= 4
    twin.table.data *= 4
    found = objective("ofmu", model, {"forget": view}, cap=cap)
    nll = flat(slow_nll(twin, view))
    bound = {"auto": 2 * math.log(11), "none": math.inf}.get(cap, cap)
    assert bool((nll > bound).any()) == (cap != "none")
    slow = -torch.stack(
        [min(token, torch.tensor(bound), key=lambda x: float(x.detach())) for token in nll]
    ).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow.detach(), twin.table.grad))


def test_the_run_may_end_where_the_inner_problem_is_at_rest() -> None:
    def after(rest: float, tolerance: float) -> bool:
        history = [Measured(5, 1.0, False, {"rest": rest}, 4.0)]
        return ofmu.stop(history, chosen(tolerance=tolerance))

    assert after(0.0, 1e-3)
    assert after(1e-4, 1e-3)
    assert not after(2e-3, 1e-3)
    assert not after(-1.0, 1e-3)  # not known before the first step
    assert not after(0.0, 0.0)
    assert not ofmu.stop([Measured(5, 1.0, False, {}, 4.0)], chosen(tolerance=1.0))


def test_the_inner_rate_is_a_share_of_the_outer_one() -> None:
    task, method = prepared("ofmu", lr=2e-3, inner_steps=8)
    assert task.state[ofmu.RATE] == pytest.approx(2.5e-4)
    assert task.record["inner_rate"] == task.state[ofmu.RATE]
    assert prepared("ofmu", inner_rate=7e-5)[0].state[ofmu.RATE] == 7e-5
    assert method.params.precision == "float32"
    size = sum(p.numel() for p in task.model.parameters())
    auto = prepared("ofmu")[0].state[ofmu.RATE]
    assert auto == pytest.approx(1e-5 * (5e8 / size) ** 0.5 / 5, rel=0.05)


@pytest.mark.parametrize(("params", "code"), [
    ({"precision": "bf16"}, "E-USE-003"),
    ({"precision": "auto"}, "E-USE-003"),
    ({"checkpointing": True}, "E-USE-006"),
    ({"base_bits": 4}, "E-USE-006"),
    ({"inner_steps": 0}, "E-USE-003"),
    ({"hvp": "some"}, "E-USE-003"),
])  # fmt: skip
def test_what_has_no_second_derivative_is_refused_before_weights_load(
    params: dict[str, Any], code: str, original: Path, tmp_path: Path
) -> None:
    rows = world()
    report = check_forget(
        original, rows.forget, rows.retain, method="ofmu", params=params, out=tmp_path / "out"
    )
    assert [problem.code for problem in report.problems] == [code]
    assert report.plan is None


def test_differences_go_with_checkpointing() -> None:
    assert methods.params("ofmu", {"checkpointing": True, "hvp": "finite"}).checkpointing


def test_attention_without_second_derivatives_is_refused_before_training(monkeypatch) -> None:
    subject = taught_subject().copy()
    monkeypatch.setattr(subject.model.config, "_attn_implementation_internal", "flex_attention")
    task = Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": world().forget, "retain": world().retain},
    )  # fmt: skip
    with pytest.raises(ExpungeError) as caught:
        ofmu.prepare(task, methods.params("ofmu", {}))
    assert caught.value.code == "E-USE-006"
    ofmu.prepare(task, methods.params("ofmu", {"hvp": "finite"}))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def _micro(original: Path, out: Path, **params: object) -> dict[str, Any]:
    rows, given = world(), {"max_steps": 4, "lr": 1e-3, "batch_size": 4, "inner_steps": 1}
    forget(
        original, rows.forget, rows.retain, method="ofmu", params={**given, **params},
        stop_at="none", out=out,
    )  # fmt: skip
    manifest = read_manifest(out)
    assert manifest is not None
    return manifest


def test_a_run_that_was_cut_goes_on_with_the_same_rho(original: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "ofmu" and event.done >= 3:
            raise KeyboardInterrupt

    whole = _micro(original, tmp_path / "whole", rho_growth=2.0)
    rhos = [measured["terms"]["rho"] for measured in whole["history"]]
    assert rhos == pytest.approx([0.01 * 2**step for step in range(4)])
    assert whole["history"][0]["terms"]["rest"] == -1.0
    assert all(measured["terms"]["rest"] > 0 for measured in whole["history"][1:])
    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        _micro(original, tmp_path / "cut", rho_growth=2.0)
    _micro(original, tmp_path / "cut", rho_growth=2.0)
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")


@pytest.mark.parametrize("off", [{"beta": 0.0}, {"rho": 0.0}, {"hvp": "none"}, {"hvp": "finite"}])
def test_every_part_changes_the_weights(
    off: dict[str, Any], original: Path, with_all: str, tmp_path: Path
) -> None:
    _micro(original, tmp_path / "off", **{**SHORT, **off})
    assert folder_digest(tmp_path / "off") != with_all


SHORT = {"max_steps": 1, "inner_steps": 1, "rho": 1.0}


@pytest.fixture(scope="module")
def with_all(original: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("runs") / "all"
    _micro(original, out, **SHORT)
    return folder_digest(out)


@pytest.fixture(scope="module")
def on_rig(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[float, ...]]:
    folder = tmp_path_factory.mktemp("rig")
    model = saved(folder)

    def run(name: str, stop_at: str = "none", **params: Any) -> tuple[float, ...]:
        """Share of forget and of retain rows that are known by heart afterwards."""
        forget(model, *facts(), method="ofmu", params=params, stop_at=stop_at, out=folder / name)
        loaded = load(load_change(folder / name).folder)
        return tuple(exact(Subject(loaded.model, loaded.tokenizer), rows) for rows in facts())

    return run


def test_it_forgets_to_the_level_and_keeps_the_others(on_rig: Callable[..., Any]) -> None:
    forgotten, kept = on_rig("default", stop_at="placebo")
    assert forgotten <= 0.25
    assert kept >= 0.9


def test_it_keeps_what_the_naive_form_destroys(on_rig: Callable[..., Any]) -> None:
    """The naive form: Adam inside at the learning rate. Both forget every fact."""
    short = {"batch_size": 24, "lr": 1e-3, "max_steps": 10, "inner_steps": 8, "beta": 0.01}
    stable, naive = on_rig("stable", **short), on_rig("naive", **short, inner_rate=1e-3)
    assert max(stable[0], naive[0]) <= 0.1
    assert stable[1] >= 0.4
    assert stable[1] >= naive[1] + 0.2


def test_params_are_literals_of_the_card() -> None:
    assert methods.card("ofmu").params.keys() == asdict(methods.params("ofmu", {})).keys()
