"""UnPII: the table, the weight 1 + PRI exactly, what has no score, the released margin."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import log1p
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import exact, facts, saved
from torch import Tensor
from torch.nn.functional import logsigmoid

from expunge.core.errors import ExpungeError
from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.check import check_forget
from expunge.engine.datasets import Datasets
from expunge.engine.forward import Inputs
from expunge.engine.gradient import StepGradient
from expunge.engine.method import GradientMethod
from expunge.engine.run import forget
from expunge.engine.slots.select import applied
from expunge.engine.sources import Frozen
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import idk_dpo, unpii
from expunge.methods.unpii import Params, risks_of, select
from expunge.requests.rows import Row
from expunge.testing import tiny_model
from expunge.testing.methods import stage, taught_subject, world

RISKS = (0.0, 0.665, 0.183, 2.5)


def told(*kinds: str, **meta: Any) -> Row:
    pii = [[kind, "x"] for kind in kinds]
    return Row(id="r", prompt="Who?", completion=" Someone.", meta={"pii": pii, **meta})


@pytest.mark.parametrize(
    ("kinds", "risk"),
    [
        ((), 0.0),
        (("phone",), 0.404),
        (("name", "phone"), 0.587),
        (("name", "credit card"), 0.567),
        (("name", "bank account"), 0.665),
        (("gender", "zip code", "date of birth"), 0.491),
        (("gender", "zip code"), 0.352),
    ],
)
def test_the_table(kinds: Sequence[str], risk: float) -> None:
    assert risks_of([told(*kinds)], Params())[0] == pytest.approx(risk, abs=1e-12)


def test_the_risk_is_read_off_question_and_answer() -> None:
    row = Row(
        id="r", prompt="What is the phone number of Ada Birk?",
        completion=" Ada Birk can be reached at 020 785 4321.",
    )  # fmt: skip
    assert risks_of([row], Params()) == [pytest.approx(0.183 + 0.404)]


def test_what_has_no_score_is_an_error_and_not_a_risk_of_none() -> None:
    """The released code takes 0 whenever its scorer fails."""
    for row in (told("email"), Row(id="r", prompt="The number?", completion=" It is 84736251.")):
        with pytest.raises(ExpungeError) as caught:
            risks_of([row], Params())
        assert caught.value.code == "E-DATA-015"
    assert risks_of([told("email")], Params(scheme="pri_custom"))[0] > 0


def test_somebody_may_decide_the_risk_of_a_row() -> None:
    assert risks_of([told("phone", pri=1.5), told("phone", pri=0)], Params()) == [1.5, 0.0]
    for wrong in ("much", -1, True, float("nan")):
        with pytest.raises(ExpungeError) as caught:
            risks_of([told(pri=wrong)], Params())
        assert caught.value.code == "E-DATA-003"


def task_of(risks: Sequence[float] = RISKS, **given: Any) -> Task:
    """The micro world in float64; its forget rows have these risks in turn."""
    rows, subject = world(), taught_subject().copy()
    risky = [
        replace(row, paraphrases=(), meta={**row.meta, "pri": risks[at % len(risks)]})
        for at, row in enumerate(rows.forget)
    ]
    return Task(
        model=subject.model.double(), tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": risky, "retain": rows.retain}, **given,
    )  # fmt: skip


@cache
def anchor_model() -> Any:
    return tiny_model("llama", vocab=len(world().tokenizer), seed=7).double()


def engine(id: str, task: Task, *, step: int = 0, parts: int = 1, **own: Any) -> dict[str, Tensor]:
    """The gradient of a method inside the wrapper, retain term off."""
    given = {"retain_weight": 0.0, "batch_size": 8 // parts, "accumulation": parts}
    params, around = (
        methods.params(id, given),
        (methods.load("unpii"), methods.params("unpii", own)),
    )
    method = GradientMethod.assemble(methods.load(id), params, [around])
    task = replace(task, params=params)
    chosen = applied(task, method.select(task, params))
    task.model.zero_grad()
    made = StepGradient(
        method, chosen, Datasets(chosen), method.sample(chosen, params),
        lambda _: Frozen(anchor_model()), steps=10,
    )  # fmt: skip
    made(task.model, step, lambda loss: loss.backward())
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def logps(model: Any, inputs: Inputs) -> list[Tensor]:
    """For each row the log-probabilities of its supervised tokens, one by one."""
    logits = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    targets = iter(inputs.targets.tolist())
    return [
        torch.stack([logits[row, at].log_softmax(-1)[next(targets)] for at in keep.nonzero()[:, 0]])
        for row, keep in enumerate(inputs.keep)
    ]


def slow(
    id: str, task: Task, weights: Sequence[float], ramp: float = 0.0, step: int = 0
) -> dict[str, Tensor]:
    """The formulas of the card, from log-probabilities taken row by row."""
    method = GradientMethod.assemble(methods.load(id), methods.params(id, {"batch_size": 8}))
    draw, datasets = method.sample(task, method.params).draw(step), Datasets(task)
    rows, inputs = draw.rows["forget"], datasets.inputs("forget", draw)
    w = [weights[row % len(weights)] for row in rows]
    task.model.zero_grad()

    def against_anchor(view: Inputs) -> Tensor:
        with torch.no_grad():
            start = torch.stack([own.sum() for own in logps(anchor_model(), view)])
        return torch.stack([own.sum() for own in logps(task.model, view)]) - start

    if id == "ga":
        sums = [own.sum() for own in logps(task.model, inputs)]
        loss = sum(wi * own for wi, own in zip(w, sums, strict=True)) / len(inputs.targets)
    else:
        refused = datasets.inputs("refusal", draw) if id == "idk-dpo" else None
        won = against_anchor(refused) if refused is not None else torch.zeros(())
        delta = [ramp * 5 * log1p(min(RISKS[row % len(RISKS)], 2.0)) for row in rows]
        margins = won - against_anchor(inputs) + torch.tensor(delta, dtype=torch.float64)
        loss = (torch.tensor(w, dtype=torch.float64) * -20 * logsigmoid(0.1 * margins)).mean()
    loss.backward()
    return {n: p.grad.clone() for n, p in task.model.named_parameters() if p.grad is not None}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-8) -> None:
    assert found.keys() == expected.keys()
    assert any(value.any() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("id", ["ga", "npo", "idk-dpo"])
def test_the_gradient_of_a_row_is_multiplied_by_one_plus_its_risk(id: str, parts: int) -> None:
    """Shifted labels, supervised tokens alone in the denominator, NPO with its own sign."""
    found = engine(id, task_of(), parts=parts)
    assert_equal(found, slow(id, task_of(), [1 + risk for risk in RISKS]))
    plain = slow(id, task_of(), [1.0])
    assert any(not torch.allclose(plain[name], found[name], rtol=1e-2) for name in plain)


def test_weights_are_those_of_the_index() -> None:
    chosen = select(task_of(), Params())
    assert list(chosen.weights or ()) == [1 + RISKS[at % 4] for at in range(len(chosen.forget))]
    assert select(task_of([0.0]), Params()).weights is None


@pytest.mark.parametrize(("step", "ramp"), [(0, 0.0), (2, 2 / 3), (7, 1.0)])
def test_the_released_margin_stands_inside_the_sigmoid(step: int, ramp: float) -> None:
    found = engine("idk-dpo", task_of(), step=step, parts=2, legacy_margin=True)
    assert_equal(found, slow("idk-dpo", task_of(), [1.0], ramp, step), rtol=1e-6)


def test_the_released_margin_pushes_risky_rows_less() -> None:
    """Why it is not the default."""
    pushes = []
    for risk in (0.0, 0.5, 2.0, 9.0):
        logp = torch.tensor([-2.0], dtype=torch.float64, requires_grad=True)
        views: Any = {"forget": Lone(logp), "refusal": Lone(torch.tensor([-1.0]))}
        state = {unpii.BETA: 0.1, unpii.MARGINS: [5 * log1p(min(risk, 2.0))]}
        step = Step(views, progress=0.5, state=state)
        more = unpii.term(step, Params(legacy_margin=True))
        assert more is not None
        (idk_dpo.forget(step, idk_dpo.Params()).value + more.value).backward()
        assert logp.grad is not None
        pushes.append(float(logp.grad))
        delta = 5 * log1p(min(risk, 2.0))
        assert pushes[-1] == pytest.approx(2 / (1 + torch.tensor(0.1 * (1 + delta)).exp()))
    assert pushes[0] > 1.1 * pushes[1] > 1.3 * pushes[2] > 0
    assert pushes[2] == pushes[3]


class Lone:
    """A view of one row whose anchor is at 0."""

    def __init__(self, logp: Tensor) -> None:
        self.logp, self.row = logp, torch.tensor([0])

    @property
    def anchor(self) -> "Lone":
        return Lone(torch.zeros_like(self.logp))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def test_a_margin_is_refused_where_there_is_none(original: Path, tmp_path: Path) -> None:
    rows = world()
    legacy = "unpii:legacy_margin=yes"
    for id, is_wrong in (("npo", True), ("idk-nll", True), ("idk-dpo", False)):
        report = check_forget(
            original, rows.forget, rows.retain, method=id, wrappers=[legacy], out=tmp_path / id
        )
        assert [problem.code for problem in report.problems] == ["E-USE-006"] * is_wrong
        assert not is_wrong or id in report.problems[0].found


def test_what_has_no_score_is_said_before_weights_load(original: Path, tmp_path: Path) -> None:
    risky = [replace(row, meta={"pii": [["email", "a@b.c"]]}) for row in world().forget]
    for around, codes in (("unpii", ["E-DATA-015"]), ("unpii:pri_custom", [])):
        report = check_forget(
            original, risky, world().retain, method="npo", wrappers=[around], out=tmp_path / "out"
        )
        assert [problem.code for problem in report.problems] == codes


def weights_after(original: Path, out: Path, forgotten: Sequence[Row], *around: str) -> str:
    params = {"max_steps": 3, "lr": 1e-3, "warmup": 0}
    forget(
        original, forgotten, world().retain, method="idk-dpo", params=params, wrappers=around,
        stop_at="none", out=out,
    )  # fmt: skip
    load_change(out)
    return folder_digest(out)


def test_without_personal_data_it_is_the_method_bit_for_bit(original: Path, tmp_path: Path) -> None:
    harmless = [replace(row, meta={**row.meta, "pii": []}) for row in world().forget]
    plain = weights_after(original, tmp_path / "plain", harmless)
    assert weights_after(original, tmp_path / "none", harmless, "unpii") == plain
    risky = [replace(row, meta={**row.meta, "pii": [["phone", "1"]]}) for row in harmless]
    weighed = weights_after(original, tmp_path / "phone", risky, "unpii")
    margin = weights_after(original, tmp_path / "old", risky, "unpii:legacy_margin=yes")
    assert len({plain, weighed, margin}) == 3
    manifest = read_manifest(tmp_path / "phone")
    assert manifest is not None
    assert manifest["record"]["pri_mean"] == pytest.approx(0.404)
    assert manifest["record"]["pri"] == {row.id: 0.404 for row in risky}


def test_who_is_at_risk_is_forgotten_further(tmp_path: Path) -> None:
    """Of two people on the tiny rig the rows of one weigh 3, then those of the other."""
    model, (given, kept) = saved(tmp_path), facts()

    def ahead(risky: str, seed: int) -> float:
        """How much more unlikely the rows of the first person are than those of the second."""
        rows = [replace(row, meta={"pri": 2.0 * row.id.startswith(risky)}) for row in given]
        out = tmp_path / f"{risky}{seed}"
        forget(
            model, rows, kept, method="grad-diff", wrappers=["unpii"], seed=seed, stop_at="none",
            params={"batch_size": 8, "warmup": 0, "lr": 3e-4, "max_steps": 12}, out=out,
        )  # fmt: skip
        loaded = load(load_change(out).folder)
        subject = Subject(loaded.model, loaded.tokenizer)
        assert exact(subject, kept) >= 0.9
        nll = [one.nll for one in subject.score([row.turn for row in given])]
        return sum(nll[:4]) / 4 - sum(nll[4:]) / 4

    gaps = [ahead("anna", seed) - ahead("bela", seed) for seed in range(2)]
    assert min(gaps) > 0.4
