"""Wrappers, and the slots and hooks of methods: who is called, with what, in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.registry import _Source, methods
from expunge.engine.change import read_manifest
from expunge.engine.check import Report, check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.finish import Finishing
from expunge.engine.gradient import StepGradient
from expunge.engine.mean import Mean
from expunge.engine.method import REPLACEABLE, GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.combine import Gradients
from expunge.engine.slots.sample import one_to_one
from expunge.engine.slots.select import Selection
from expunge.engine.slots.stop import Measured
from expunge.engine.sources import Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.wrappers import read_wrapper
from expunge.testing.methods import stage, taught_subject, world

SLOTS = """
from dataclasses import dataclass

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.mean import mean_of
from expunge.engine.slots.combine import weighted_sum
from expunge.engine.slots.mask import blocks_only
from expunge.engine.slots.sample import one_to_one
from expunge.engine.slots.select import Selection

CALLS = []


def called(name, given):
    CALLS.append((name, given))


def select(*given):
    called("select", given)
    return Selection([3, 0, 5])


def mask(*given):
    called("mask", given)
    return blocks_only(given[0], [-1])


def prepare(*given):
    called("prepare", given)
    given[0].state["passed"] = 0


def sample(*given):
    called("sample", given)
    return one_to_one(given[0], given[0].params)


def retain(*given):
    called("retain", given)
    return given[0].retain.nll


def combine(*given):
    called("combine", given)
    gradients = given[0]
    return [f + r for f, r in zip(gradients.forget, gradients.retain, strict=True)]


def stop(*given):
    called("stop", given)
    return given[0][-1].step >= 4


def on_epoch(*given):
    called("on_epoch", given)
    given[0]["passed"] += 1


def finish(*given):
    called("finish", given)
    given[0].record["passed"] = given[0].task.state["passed"]
"""

METHOD = (
    '''"""A method that has every slot."""
CARD = {
    "id": "synthetic", "kind": "gradient", "summary": "s", "paper": "p", "access": "weights",
    "needs": ["forget", "retain"], "cost": "c", "maturity": "paper", "version": 1,
}
'''
    + SLOTS
    + '''

@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared ones, and one of its own."""

    strength: float = param(2.0, help="h")


def forget(*given):
    called("forget", given)
    return -given[0].forget.nll
'''
)

WRAPPER = (
    '''"""A wrapper that has every slot, and a term."""
CARD = {
    "id": "around", "kind": "wrapper", "summary": "s", "paper": "p", "access": "weights",
    "needs": ["retain", "refusal"], "cost": "c", "maturity": "paper", "version": 1,
    "value": "strength",
}
'''
    + SLOTS
    + '''

@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Its own."""

    strength: float = param(2.0, help="h", low=0.0)
    parts: tuple[int, ...] = param((1,), help="h")


def term(*given):
    called("term", given)
    return given[1].strength * given[0].refusal.nll
'''
)

SIGNATURES: dict[str, tuple[type, ...]] = {
    "select": (Task,), "mask": (torch.nn.Module, Task), "prepare": (Task,), "sample": (Task,),
    "forget": (Step,), "retain": (Step,), "term": (Step,), "combine": (Gradients, dict),
    "stop": (list,), "on_epoch": (dict,), "finish": (Finishing,),
}  # fmt: skip
"""What each is called with before its parameters (architecture, section 4)."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a component file known to the registry; its module."""

    def add(id: str, source: str):
        folder = tmp_path / f"{id}_package"
        folder.mkdir()
        (folder / f"{id}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(__import__("sys").modules, id, raising=False)
        monkeypatch.setitem(methods._sources, id, _Source(id, folder / f"{id}.py"))
        monkeypatch.delitem(methods._cards, id, raising=False)
        return methods.load(id)

    yield add
    for id in ("synthetic", "around"):
        methods._cards.pop(id, None)


def run(original: Path, out: Path, **options: Any) -> dict[str, Any]:
    rows = world()
    params = {"max_steps": 8, "batch_size": 2, "lr": 1e-3, "warmup": 0}
    options = {"stop_at": "none", "params": params} | options
    return forget(original, rows.forget, rows.retain, out=out, **options)


def check(original: Path, tmp_path: Path, *wrappers: str, **options: Any) -> Report:
    rows = world()
    return check_forget(
        original, rows.forget, rows.retain, wrappers=wrappers, out=tmp_path / "out", **options
    )


def assert_called(module, names: set[str], params: Any) -> None:
    """Each of ``names`` was called, with what the architecture says and the parameters last."""
    assert {name for name, _ in module.CALLS} == names
    for name, given in module.CALLS:
        assert given[-1] == params
        for value, kind in zip(given[:-1], SIGNATURES[name], strict=True):
            assert isinstance(value, kind), (name, value)
    (last,) = (given for name, given in module.CALLS if name == "finish")
    assert last == module.CALLS[-1][1]
    assert all(isinstance(m, Measured) for n, g in module.CALLS if n == "stop" for m in g[0])


def test_a_method_is_asked_for_every_slot_and_hook_it_has(
    original: Path, tmp_path: Path, component
) -> None:
    module = component("synthetic", METHOD)
    done = run(original, tmp_path / "out", method="synthetic")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    expected = module.Params(max_steps=8, batch_size=2, lr=1e-3, warmup=0)
    assert_called(module, set(SIGNATURES) - {"term"}, expected)
    assert (done["stopped_by"], done["steps"]) == ("method", 4)
    assert manifest["record"]["passed"] == 2  # three rows in steps of two


def test_a_wrapper_takes_over_every_slot_with_parameters_of_its_own(
    original: Path, tmp_path: Path, component
) -> None:
    module = component("around", WRAPPER)
    done = run(original, tmp_path / "out", method="npo", wrappers=["around:3,parts=1,2"])
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert_called(module, set(SIGNATURES) - {"forget"}, module.Params(strength=3.0, parts=(1, 2)))
    assert (done["stopped_by"], done["steps"]) == ("method", 4)
    assert manifest["wrappers"] == [{"id": "around", "params": {"strength": 3.0, "parts": [1, 2]}}]
    assert set(manifest["history"][-1]["terms"]) == {"forget", "retain", "around"}
    assert manifest["history"][-1]["terms"]["around"] > 0


def test_a_run_resumes_only_with_the_wrappers_it_was_begun_with(
    original: Path, tmp_path: Path, component
) -> None:
    component("around", WRAPPER)
    plans = [
        check(original, tmp_path, *wrappers).plan.fingerprint  # type: ignore[union-attr]
        for wrappers in ([], ["around:3"], ["around:4"], ["around:strength=3"])
    ]
    assert len(set(plans)) == 3
    assert plans[1] == plans[3]


@dataclass(frozen=True)
class Own:
    """Parameters of a synthetic wrapper."""

    name: str


def wrapper(id: str, *needs: str, **slots: Any) -> tuple[Any, Own]:
    card = {"id": id, "kind": "wrapper", "needs": list(needs)}
    return SimpleNamespace(CARD=card, **slots), Own(id)


def assembled(method_id: str, *wrappers: Any, **params: Any) -> GradientMethod:
    resolved = methods.params(method_id, params)
    return GradientMethod.assemble(methods.load(method_id), resolved, wrappers)


@pytest.mark.parametrize("slot", REPLACEABLE)
def test_each_slot_is_replaced_alone(slot: str) -> None:
    plain = assembled("npo")
    around = wrapper("one", **{slot: lambda *given: given})
    found = assembled("npo", around)
    for name in (*REPLACEABLE, "forget"):
        given = ["a", "b", found.params]
        if name == slot:
            assert getattr(found, name)(*given) == ("a", "b", Own("one"))
        else:
            assert getattr(found, name) is getattr(plain, name)


def test_a_slot_may_be_the_name_of_a_shared_one() -> None:
    found = assembled("npo", wrapper("one", select="all"))
    assert found.select(SimpleNamespace(forget=[1, 2]), None) == Selection(range(2))


def test_a_module_that_is_called_like_a_slot_is_none() -> None:
    import types

    found = assembled("npo", wrapper("one", retain=types.ModuleType("retain")))
    assert found.retain is assembled("npo").retain


def test_needs_are_those_of_the_method_and_its_wrappers() -> None:
    assert assembled("npo").views == ["forget", "retain"]
    assert assembled("npo", wrapper("one", "refusal")).views == ["forget", "refusal", "retain"]
    own = wrapper("one", "alternate", retain=lambda step, params: None)
    assert assembled("npo", own, retain_term="kl").needs == {"forget", "anchor", "alternate"}


def test_hooks_run_in_turn_the_methods_first() -> None:
    order: list[Any] = []
    base = SimpleNamespace(
        CARD={"id": "base", "needs": ["forget"]}, forget=None,
        prepare=lambda task, params: order.append(type(params)),
    )  # fmt: skip
    hooks = [
        wrapper(id, prepare=lambda task, own: order.append(own.name), on_epoch=lambda *_: None)
        for id in ("one", "two")
    ]
    found = GradientMethod.assemble(base, GradientParams(), hooks)  # type: ignore[arg-type]
    found.prepare(None, found.params)  # type: ignore[misc]
    assert order == [GradientParams, "one", "two"]
    assert found.on_epoch is not None
    assert found.finish is None


def test_two_that_claim_one_slot_are_refused_by_name_before_weights_load(
    original: Path, tmp_path: Path, component, monkeypatch: pytest.MonkeyPatch
) -> None:
    component("around", WRAPPER)
    monkeypatch.setattr("expunge.engine.run.load", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "out", wrappers=["coreset:0.5", "around"])
    assert caught.value.code == "E-USE-006"
    for word in ("coreset", "around", "'select'"):
        assert word in caught.value.found


@pytest.mark.parametrize(
    ("wrappers", "method", "code", "word"),
    [
        (["wagel"], "npo", "E-USE-001", "wagel"),
        (["npo"], "ga", "E-USE-001", "npo"),
        (["coreset:2"], "npo", "E-USE-003", "share"),
        (["coreset:a few"], "npo", "E-USE-003", "share"),
        (["coreset:"], "npo", "E-USE-003", "coreset:value"),
        (["coreset:shares=.1"], "npo", "E-USE-002", "shares"),
        (["coreset", "coreset:0.1"], "npo", "E-USE-006", "2 times"),
        (["coreset"], "ft-retain", "E-USE-006", "ft-retain"),
        ([], "coreset", "E-USE-006", "--with coreset"),
    ],
)
def test_what_cannot_be_wrapped_is_said_at_check(
    original: Path, tmp_path: Path, wrappers, method: str, code: str, word: str
) -> None:
    problems = check(original, tmp_path, *wrappers, method=method).problems
    assert [problem.code for problem in problems] == [code]
    assert word in str(problems[0])


def test_all_that_is_wrong_is_told_at_once(original: Path, tmp_path: Path) -> None:
    problems = check(original, tmp_path, "wagel", "coreset:2", method="npo").problems
    assert [problem.code for problem in problems] == ["E-USE-001", "E-USE-003"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coreset", {}),
        ("coreset:0.1", {"share": 0.1}),
        ("coreset:share=0.1", {"share": 0.1}),
        ("coreset:0.1,selector=min-k", {"share": 0.1, "selector": "min-k"}),
        ("coreset: selector = min-k , match-steps=no", {"selector": "min-k", "match_steps": False}),
    ],
)
def test_a_value_without_a_name_is_the_one_the_card_names(text: str, expected: Mapping) -> None:
    found = read_wrapper(text)
    assert found.id == "coreset"
    assert found.params == replace(methods.params("coreset", {}), **expected)


def gradient(method: GradientMethod) -> tuple[dict[str, Tensor], dict[str, float], StepGradient]:
    """The first step of float64: gradient and terms."""
    subject, rows = taught_subject().copy(), world()
    task = Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": rows.forget, "retain": rows.retain},
    )  # fmt: skip
    anchor = Frozen(subject.copy().model.double())
    sampler = one_to_one(task, method.params)
    step = StepGradient(method, task, Datasets(task), sampler, lambda _: anchor, steps=5)
    terms = step(task.model, 0, lambda loss: loss.backward())
    named = task.model.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None}, terms, step


def refusing(step: Step, own: Own) -> Mean:
    return 0.5 * step.refusal.nll


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("combine", [False, True])
def test_a_term_is_added_to_the_forget_side(accumulation: int, combine: bool) -> None:
    given = {"batch_size": 8 // accumulation, "accumulation": accumulation, "forget_weight": 4.0}
    around = wrapper("one", "refusal", term=refusing, **({"combine": weighted} if combine else {}))
    found, terms, _ = gradient(assembled("npo", around, **given))
    plain, told, _ = gradient(assembled("npo", **given))
    alone = SimpleNamespace(CARD={"id": "a", "needs": ["refusal"]}, forget=refusing)
    params = methods.params("ga", given)
    added, _, _ = gradient(GradientMethod.assemble(alone, params))  # type: ignore[arg-type]
    assert terms["forget"] == pytest.approx(told["forget"], rel=1e-12)
    assert terms["one"] > 0
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value + added[name], rtol=1e-9, atol=1e-12)


def weighted(gradients: Gradients, state: Mapping[str, Any], own: Own) -> list[Tensor]:
    """As the weights of the test say."""
    assert set(gradients.values) == {"forget", "retain", "one"}
    return [4.0 * f + r for f, r in zip(gradients.forget, gradients.retain, strict=True)]


def test_an_added_term_rests_with_the_forget_term() -> None:
    _, _, step = gradient(assembled("npo", wrapper("one", "refusal", term=refusing)))
    step.paused = True
    terms = step(step.task.model, 1, lambda loss: loss.backward())
    assert terms["forget"] == terms["one"] == 0.0
    assert terms["retain"] != 0.0
