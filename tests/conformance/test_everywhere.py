"""Every method that trains in every precision, with every adapter, layout and family.

Twelve cases meet each pair of settings at least once, save that masters, which go with full weights
alone, stand in two families and two layouts; which ones changes from method to method. The gate
runs every other case, the odd ones of one method and the even ones of the next; the study runs all,
and the whole product.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine import trainer
from expunge.engine.check import check_forget
from expunge.engine.combinations import about_rewards
from expunge.engine.combinations import refused as combinations_refused
from expunge.engine.drivers import DRIVERS
from expunge.engine.method import GradientMethod
from expunge.engine.part_files import refused as runtime_refused
from expunge.engine.plan import Plan
from expunge.engine.session import Session
from expunge.lm.arch import base_of
from expunge.lm.subject import Subject
from expunge.testing import tiny_model
from expunge.testing.methods import DRAWS, world

GRADIENT = [card.id for card in methods.cards() if card.kind == "gradient"]
DRAWING = [card.id for card in methods.cards() if card.kind == "reinforcement"]

FAMILIES = ("llama", "qwen3", "gemma3", "gpt_neox")
WEIGHTS = ("full", "lora", "lora on 4 bits")
PRECISIONS = ("float32", "bf16", "bf16-masters")
LAYOUTS = ("padded", "packed", "checkpointing")
STEPS = 2

TABLE = {
    "full": (("bf16", 1), ("bf16-masters", 1), ("float32", 2), ("bf16-masters", 0)),
    "lora": (("float32", 0), ("bf16", 2), ("float32", 1), ("bf16", 2)),
    "lora on 4 bits": (("bf16", 2), ("float32", 0), ("bf16", 0), ("float32", 1)),
}
"""Weights -> for one family after the other its precision and number of its layout."""


@dataclass(frozen=True)
class Case:
    """One way to run a method."""

    family: str
    weights: str
    precision: str
    layout: str

    @property
    def adapter(self) -> str | None:
        return None if self.weights == "full" else "lora"

    @property
    def params(self) -> dict[str, object]:
        return {
            "max_steps": STEPS,
            "batch_size": 2,
            "lr": 1e-3,
            "warmup": 0,
            "lora_r": 2,
            "precision": self.precision,
            "packing": self.layout == "packed",
            "checkpointing": self.layout == "checkpointing",
            "base_bits": 4 if self.weights == "lora on 4 bits" else None,
        }

    @property
    def pairs(self) -> set[tuple[str, str]]:
        return set(combinations((self.family, self.weights, self.precision, self.layout), 2))


def pairwise(turn: int) -> Iterator[Case]:
    """Twelve cases; ``turn`` decides which families and layouts stand where."""
    for weights, row in TABLE.items():
        for place, (precision, layout) in enumerate(row):
            family = FAMILIES[(place + turn) % len(FAMILIES)]
            yield Case(family, weights, precision, LAYOUTS[(layout + turn) % len(LAYOUTS)])


def possible() -> list[Case]:
    """The whole product, without what `expunge.engine.combinations` refuses."""
    every = (Case(*choice) for choice in product(FAMILIES, WEIGHTS, PRECISIONS, LAYOUTS))
    return [case for case in every if not (case.adapter and case.precision == "bf16-masters")]


def test_the_table_covers_every_pair_but_what_masters_leave_out() -> None:
    wanted = set().union(*(case.pairs for case in possible()))
    covered = [set().union(*(case.pairs for case in pairwise(turn))) for turn in range(12)]
    assert {len(wanted - found) for found in covered} == {3}
    assert all("bf16-masters" in pair for found in covered for pair in wanted - found)
    assert set().union(*covered) == wanted
    assert all(case in possible() for turn in range(12) for case in pairwise(turn))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("everywhere")


@pytest.fixture(autouse=True)
def no_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of two steps need none, and writing them would take most of the time."""
    monkeypatch.setattr(trainer.UnlearningTrainer, "_save_checkpoint", lambda *_, **__: None)
    monkeypatch.setattr(trainer.Conductor, "on_save", lambda *_, **__: None)


@cache
def original(family: str) -> Subject:
    rows = world()
    model = tiny_model(family, vocab=len(rows.tokenizer), hidden=16, layers=2, positions=64)
    return Subject(model, rows.tokenizer)


@cache
def planned(family: str, folder: Path) -> Plan:
    """A plan of the family; method, parameters and adapter are put in by each case."""
    path, rows = folder / family, world()
    original(family).model.save_pretrained(path)
    rows.tokenizer.save_pretrained(path)
    report = check_forget(
        path, rows.forget[:4], rows.retain[:4], stop_at="none", out=folder / f"{family} out"
    )
    assert report.plan is not None, report.problems
    return report.plan


def settings(method_id: str, case: Case) -> dict[str, object]:
    """What a case asks of a method; one that draws answers is to draw few."""
    return {**DRAWS, **case.params} if method_id in DRAWING else case.params


def refusals(method_id: str, case: Case, folder: Path) -> list[ExpungeError]:
    """Why a method does not take a pair of settings, as it says before weights load."""
    try:
        params = methods.params(method_id, settings(method_id, case))
    except ExpungeError as error:
        return list(getattr(error, "problems", (error,)))
    module, onto = methods.load(method_id), planned(case.family, folder).folder
    needs = GradientMethod.assemble(module, params).needs
    drawing = about_rewards(params, onto) if method_id in DRAWING else ()
    return [
        *drawing,
        *combinations_refused([module], params, needs=needs, adapter=case.adapter, folder=onto),
        *runtime_refused(method_id, onto, case.adapter),
    ]


def run(method_id: str, case: Case, folder: Path) -> None:
    """Two steps; full weights move and stay finite, frozen ones stay bit for bit."""
    if problems := refusals(method_id, case, folder):
        assert {problem.code for problem in problems} <= {"E-USE-003", "E-USE-006"}, problems
        return
    params = methods.params(method_id, settings(method_id, case))
    plan = replace(
        planned(case.family, folder), method=method_id, params=params, adapter=case.adapter
    )
    own = Path(mkdtemp(dir=folder))  # what draws keeps its reference there
    session = Session(plan, original(case.family).copy(), own)
    before = state(session)
    kind = methods.card(method_id).kind
    trained = session.train(None) if kind == "gradient" else DRIVERS[kind](session, None).trained
    assert 1 <= trained.steps <= STEPS  # a model that only guesses may be told to stop
    after = state(session)
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert all(
        torch.isfinite(tensor.float()).all() for tensor in state(session, adapter=True).values()
    )
    if trained.runtime is not None:  # what it changes is not in the weights
        assert not moved
        assert trained.runtime.moves
    elif case.adapter is None:
        assert moved, "nothing moved"
        assert {p.dtype for p in session.model.parameters()} == {torch.float32}
    else:
        assert not moved, f"frozen weights moved: {moved}"
        ups = [p for name, p in session.model.named_parameters() if "lora_B" in name]
        assert any(p.any() for p in ups), "the adapter did not move"
    assert case.weights != "lora on 4 bits" or any(t.dtype == torch.uint8 for t in before.values())


def state(session: Session, *, adapter: bool = False) -> dict[str, Tensor]:
    """A copy of all weights and codes, those of the adapter only if asked for."""
    return {
        name.replace("base_layer.", ""): tensor.clone()
        for name, tensor in base_of(session.model).state_dict().items()
        if adapter or "lora_" not in name
    }


@pytest.mark.parametrize("method_id", [*GRADIENT, *DRAWING])
def test_no_method_refuses_all_or_most_without_need(method_id: str, folder: Path) -> None:
    """Plain full weights always go, and nobody refuses settings that it does not say."""
    refused = [case for case in possible() if refusals(method_id, case, folder)]
    plain = [c for c in possible() if c.weights == "full" and c.precision == "float32"]
    assert not [case for case in refused if case in plain and case.layout == "padded"]
    assert len(refused) < len(possible()) - len(FAMILIES)


def cases() -> Iterator[Any]:
    """Every method with every place in its table; half of the places wait for the study."""
    for number, method_id in enumerate([*GRADIENT, *DRAWING]):
        for place in range(12):
            marks = [pytest.mark.slow] if (number + place) % 2 else []
            yield pytest.param(method_id, place, marks=marks)


@pytest.mark.parametrize(("method_id", "place"), cases())
def test_the_method_works(method_id: str, place: int, folder: Path) -> None:
    case = list(pairwise([*GRADIENT, *DRAWING].index(method_id)))[place]
    run(method_id, case, folder)


@pytest.mark.slow
@pytest.mark.parametrize("case", possible(), ids=str)
@pytest.mark.parametrize("method_id", [*GRADIENT, *DRAWING])
def test_the_method_works_in_the_whole_product(method_id: str, case: Case, folder: Path) -> None:
    run(method_id, case, folder)
