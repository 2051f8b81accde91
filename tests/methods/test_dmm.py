"""Datamodel matching: outputs, targets, their sign, the oracle, and what training makes of it."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import WORDS, exact, facts, knowing, saved
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.params import resolve
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.engine import estimate as prices
from expunge.engine import subsets
from expunge.engine.change import load_change, read_manifest
from expunge.engine.check import check_forget
from expunge.engine.counts import Pass, Size, Work
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import dmm
from expunge.requests.rows import Row
from expunge.testing import check_method, objective, tiny_model, tiny_tokenizer

FAST = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 60, "dim": 1024}


def task_of(**roles: Any) -> Task:
    subject, (given, kept) = knowing(), facts()
    return Task(
        model=subject.copy().model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given, "retain": kept, **roles},
    )  # fmt: skip


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learnt the retain facts alone, on disk."""
    tokenizer = knowing().tokenizer
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=2, seed=0, positions=32)
    finetune(model, tokenizer, facts()[1], steps=200, lr=3e-3, batch_size=24, seed=0)
    folder = tmp_path_factory.mktemp("retrained")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def aims(task: Task, **given: Any) -> dict[str, list[float]]:
    made = dmm.targets(task, methods.params("dmm", {"dim": 1024, **given}))
    found: dict[str, list[float]] = {"forget": [], "retain": []}
    for one in made:
        found[one["role"]].append(one["target"])
    return found


def test_t3_is_the_squared_log_odds_of_the_mean_probability(t3) -> None:
    p = sum(math.exp(-x) for x in (0.440190, 0.210998, 0.743668)) / 3
    odds = math.log(p / (1 - p))
    found = objective("dmm", t3.model, {"forget": t3.view})
    assert found.loss == pytest.approx(odds**2, abs=1e-5)
    state = {dmm.TARGETS: {"forget": {"0": odds}}}
    at_target = objective("dmm", t3.model, {"forget": t3.view}, state=state)
    assert at_target.loss == pytest.approx(0.0, abs=1e-9)


def test_outputs_stay_finite_where_an_answer_is_certain(t3) -> None:
    from conftest_methods import three

    found = objective(
        "dmm", three([[60.0, 0, 0, 0], [0, 60, 0, 0], [0, 0, 0, 60]]), {"forget": t3.view}
    )
    assert math.isfinite(found.loss)


def test_predicted_outputs_fall_on_forget_rows_and_stay_on_the_others() -> None:
    task = task_of()
    now = dmm.said(task.model, Datasets(task), [w[0] for w in Datasets(task).items("forget")])
    kept = dmm.said(task.model, Datasets(task), [w[0] for w in Datasets(task).items("retain")])
    found = aims(task)
    falls = now - torch.tensor(found["forget"])
    moves = (kept - torch.tensor(found["retain"])).abs()
    assert falls.mean() > 5 * moves.mean()
    assert falls.mean() > 2.0


def test_the_shared_direction_of_gradients_would_explain_nearly_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = task_of()
    now = dmm.said(task.model, Datasets(task), [w[0] for w in Datasets(task).items("forget")])
    own = float((now - torch.tensor(aims(task)["forget"])).mean())
    monkeypatch.setattr(dmm, "beside", lambda features, kept: features)
    whole = float((now - torch.tensor(aims(task)["forget"])).mean())
    assert whole < 0.5 * own


def test_one_step_influence_predicts_nearly_nothing_of_rows_known_by_heart() -> None:
    """Why the kernel is the default: the factor 1 - p."""
    task = task_of()
    now = dmm.said(task.model, Datasets(task), [w[0] for w in Datasets(task).items("forget")])
    falls = {
        name: float((now - torch.tensor(aims(task, datamodel=name)["forget"])).mean())
        for name in ("kernel", "trak")
    }
    assert abs(falls["trak"]) < 0.1 * falls["kernel"]


def test_the_oracle_is_what_the_retrained_model_says(retrained: Path) -> None:
    task = task_of()
    loaded = load(retrained)
    items = [w[0] for w in Datasets(task).items("forget")]
    said = dmm.said(loaded.model, Datasets(task), items)
    assert aims(task, oracle=str(retrained))["forget"] == pytest.approx(said.tolist(), abs=1e-4)


def test_hold_out_rows_say_where_an_untaught_row_lies() -> None:
    _, kept = facts()
    plain = aims(task_of())
    held = aims(task_of(holdout=kept[:4], retain=kept[4:]))
    assert sum(held["forget"]) > sum(plain["forget"])  # these are known: nothing was learnt


def run(folder: Path, out: str, **params: Any) -> tuple[dict[str, Any], Subject]:
    done = forget(
        saved(folder), *facts(), method="dmm", params={**FAST, **params}, stop_at="none",
        out=folder / out,
    )  # fmt: skip
    loaded = load(load_change(folder / out).folder)
    return done, Subject(loaded.model, loaded.tokenizer)


def test_training_reaches_the_targets_and_not_beyond(tmp_path: Path, retrained: Path) -> None:
    """Matched, not pushed: the outputs end near the retrained model's, the rest stays."""
    _, subject = run(tmp_path, "out", oracle=str(retrained))
    task = task_of()
    items = [w[0] for w in Datasets(task).items("forget")]
    aim = dmm.said(load(retrained).model, Datasets(task), items)
    end = dmm.said(subject.model, Datasets(task), items)
    start = dmm.said(task.model, Datasets(task), items)
    assert (end - aim).abs().mean() < 0.25 * (start - aim).abs().mean()
    assert exact(subject, facts()[0]) <= 0.25
    assert exact(subject, facts()[1]) >= 0.9


def test_attribution_forgets_without_a_retrained_model(tmp_path: Path) -> None:
    _, subject = run(tmp_path, "out")
    assert exact(subject, facts()[0]) <= 0.25
    assert exact(subject, facts()[1]) >= 0.9
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest["record"]["predicted_fall"] > 2.0
    assert (tmp_path / "out" / "made" / "outputs.jsonl").is_file()


def test_without_attribution_nothing_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ablation: with targets that are the original's own outputs the rows stay known."""
    monkeypatch.setattr(dmm, "_predicted", lambda task, datasets, items, now, params: now + 0.01)
    _, subject = run(tmp_path, "none")
    monkeypatch.undo()
    run(tmp_path, "whole")
    assert exact(subject, facts()[0]) >= 0.9
    assert folder_digest(tmp_path / "none") != folder_digest(tmp_path / "whole")


def linear_world(models: int = 40, *, of_one_size: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Which of 12 units each model had, what each adds to 5 outputs, and the outputs."""
    draw = torch.Generator().manual_seed(4)
    weights = torch.randn(12, 5, generator=draw, dtype=torch.float64) + 1.0
    included = subsets.drawn(12, models, 0.5, seed=4)
    if of_one_size:
        orders = torch.rand(models, 12, generator=draw).argsort(1)
        included = orders < 6
    return included, weights, 0.7 + included.double() @ weights


def test_betas_of_a_linear_world_are_recovered() -> None:
    included, weights, outputs = linear_world()
    found = subsets.regressed(included, outputs, 1e-12)
    torch.testing.assert_close(found.weights, weights, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        found.intercept, torch.full((5,), 0.7, dtype=torch.float64), rtol=0, atol=1e-8
    )
    assert found.explained.min() > 1 - 1e-9


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_the_regression_is_ridge_with_a_free_intercept_in_closed_form(ridge: float) -> None:
    """The same by least squares over rows that stand for the penalty, without any centring."""
    included, _, outputs = linear_world()
    outputs = outputs + torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    x = included.double()
    off = x - x.mean(0)
    penalty = ridge * (off**2).sum(0).mean()
    ones, none = torch.ones(len(x), 1).double(), torch.zeros(12, 1).double()
    rows = torch.cat(
        [
            torch.cat([ones, x], 1),
            torch.cat([none, penalty.sqrt() * torch.eye(12, dtype=torch.float64)], 1),
        ]
    )
    wanted = torch.linalg.lstsq(
        rows, torch.cat([outputs, torch.zeros(12, 5, dtype=torch.float64)])
    ).solution
    found = subsets.regressed(included, outputs, ridge)
    torch.testing.assert_close(found.weights, wanted[1:], rtol=0, atol=1e-9)
    torch.testing.assert_close(found.intercept, wanted[0], rtol=0, atol=1e-9)
    kept = [at for at in range(len(x)) if at != 3]
    part = torch.linalg.lstsq(
        torch.cat([rows[kept], rows[len(x) :]]),
        torch.cat([outputs[kept], torch.zeros(12, 5, dtype=torch.float64)]),
    ).solution
    missed = outputs[3] - part[0] - x[3] @ part[1:]
    torch.testing.assert_close(found.missed[3], missed, rtol=0, atol=1e-9)
    alone = outputs[3] - outputs[kept].mean(0)
    torch.testing.assert_close(found.alone[3], alone, rtol=0, atol=1e-9)


def test_subsets_of_one_size_would_hide_what_all_rows_share() -> None:
    """Why each row is in with a chance of its own: the betas' mean would come out as 0."""
    included, weights, outputs = linear_world(of_one_size=True)
    found = subsets.regressed(included, outputs, 1e-6)
    torch.testing.assert_close(found.weights, weights - weights.mean(0), rtol=0, atol=1e-3)
    assert weights.mean() > 0.8


def test_draws_hang_on_the_seed_and_are_of_the_share_asked_for() -> None:
    first, second = (subsets.drawn(50, 200, 0.7, seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, subsets.drawn(50, 200, 0.7, 0))
    assert torch.equal(first[:20], subsets.drawn(50, 20, 0.7, 0))  # more models keep the first
    assert first.double().mean() == pytest.approx(0.7, abs=0.02)


def test_rows_of_a_subject_are_in_together() -> None:
    def rows(role: str, subjects: list[str | None]) -> list[Row]:
        return [
            Row(id=f"{role}{at}", text=f"{role} {at}", subject=subject)
            for at, subject in enumerate(subjects)
        ]

    task = task_of(forget=rows("f", ["a", "a", None]), retain=rows("r", ["a", None, "b", "b"]))
    apart = subsets.units_of(task, by_subject=False)
    assert [(unit.role, len(unit.rows)) for unit in apart] == [("forget", 1)] * 3 + [
        ("retain", 1)
    ] * 4
    together = subsets.units_of(task, by_subject=True)
    assert [(unit.role, [row.id for row in unit.rows]) for unit in together] == [
        ("forget", ["f0", "f1"]), ("forget", ["f2"]),
        ("retain", ["r0"]), ("retain", ["r1"]), ("retain", ["r2", "r3"]),
    ]  # fmt: skip


MODELS = 24
RECIPE = {"epochs": 20, "lr": 1e-2, "batch_size": 16}


@dataclass(frozen=True)
class Few:
    """Twelve rows of four people, what was trained on them, and what models of subsets say.

    Attributes:
        base: The model before.
        original: It after all rows.
        retrained: It after the rows that stay.
        made: Where the outputs of models trained on subsets are kept.
        rows: All rows; the first three are to be forgotten.
        falls: [12], by how much the retrained model says each row less.
        told: What the regression tells of each row.
    """

    base: Path
    original: Path
    retrained: Path
    made: Path
    rows: tuple[Row, ...]
    falls: Tensor
    told: list[dict[str, Any]]

    @property
    def params(self) -> dict[str, Any]:
        return {
            "datamodel": "regression", "base": str(self.base), "models": MODELS, "subset": 0.7,
            "train_epochs": RECIPE["epochs"], "train_lr": RECIPE["lr"],
        }  # fmt: skip

    @property
    def roles(self) -> dict[str, tuple[Row, ...]]:
        return {"forget": self.rows[:3], "retain": self.rows[3:]}

    def task(self, folder: Path | None = None) -> Task:
        loaded = load(self.original)
        subject = Subject(loaded.model, loaded.tokenizer)
        return Task(
            model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
            roles=self.roles, folder=folder,
        )  # fmt: skip

    def predicted(self, folder: Path | None = None, **given: Any) -> list[dict[str, Any]]:
        return dmm.targets(self.task(folder), methods.params("dmm", {"dim": 1024, **given}))


def fallen(told: list[dict[str, Any]]) -> Tensor:
    return torch.tensor([one["original"] - one["target"] for one in told])


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Few:
    folder = tmp_path_factory.mktemp("few")
    draw = generator(0, "few")
    rows = tuple(
        Row(
            id=f"{person}/{relation}", prompt=f"{person} {relation}", subject=person,
            completion=" " + " ".join(str(word) for word in draw.choice(WORDS[:40], 2)),
        )
        for person in ("anna", "bela", "carl", "dora")
        for relation in ("born", "works", "likes")
    )  # fmt: skip
    other = Row(id="other", prompt="dora drives", completion=" w1 w2")
    texts = [f"{row.prompt}{row.completion}" for row in (*rows, other)]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=128)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=64, layers=1, seed=0, positions=16)
    for part in (model, tokenizer):
        part.save_pretrained(folder / "base")
    retrain = {
        "method": "retrain", "params": {**RECIPE, "base": str(folder / "base")}, "stop_at": "none",
    }  # fmt: skip
    forget(folder / "base", [other], rows, out=folder / "original", **retrain)
    forget(folder / "original", rows[:3], rows[3:], out=folder / "retrained", **retrain)
    few = Few(
        folder / "base", folder / "original", folder / "retrained", folder / "made", rows,
        torch.zeros(12), [],
    )  # fmt: skip
    truth = fallen(few.predicted(oracle=str(few.retrained)))
    told = few.predicted(few.made, **few.params)
    return replace(few, falls=truth, told=told)


def test_the_regression_predicts_retrained_models_better_than_attribution(few: Few) -> None:
    """On outputs that retraining truly changes: the forget rows'."""
    assert few.falls[:3].mean() > 5 * few.falls[3:].abs().mean()

    def missed(told: list[dict[str, Any]]) -> float:
        return float((fallen(told) - few.falls)[:3].abs().mean())

    found = missed(few.told)
    assert found < 0.5 * missed(few.predicted(datamodel="trak"))
    both = torch.stack([fallen(few.told), few.falls])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_what_the_regression_explains_of_models_left_out_is_told(few: Few) -> None:
    explained = [one["explained"] for one in few.told[:3]]
    assert all(0.5 < one < 1 for one in explained)


def spoken(few: Few, folder: Path, out: str, **params: Any) -> dict[str, Any]:
    """A run; what models say stands in its folder already, as if it had been cut off after them."""
    shutil.copytree(few.made, folder / out / ".run" / "made")
    return forget(
        few.original, few.rows[:3], few.rows[3:], method="dmm", stop_at="none", out=folder / out,
        params={"batch_size": 16, "warmup": 0, "lr": 5e-3, "max_steps": 24, "dim": 1024, **params},
    )  # fmt: skip


def test_the_datamodel_decides_the_targets_and_the_weights(
    few: Few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ablation: trak instead of the regression."""
    monkeypatch.setattr(subsets, "fit", lambda *_, **__: pytest.fail("a model was trained again"))
    details = spoken(few, tmp_path, "regression", **few.params)["details"]
    spoken(few, tmp_path, "trak", datamodel="trak")
    shares = torch.tensor([one["explained"] for one in few.told[:3]], dtype=torch.float64)
    assert details["predicted_fall"] == pytest.approx(float(fallen(few.told)[:3].mean()), abs=1e-4)
    assert details["explained"] == pytest.approx(float(shares.mean()), abs=1e-4)
    assert folder_digest(tmp_path / "regression") != folder_digest(tmp_path / "trak")

    def away(out: str) -> float:
        """Mean distance of forget outputs from those of the retrained model."""
        datasets = Datasets(few.task())
        items = [wordings[0] for wordings in datasets.items("forget")]
        models = [load(load_change(tmp_path / out).folder).model, load(few.retrained).model]
        one, other = (dmm.said(model, datasets, items) for model in models)
        return float((one - other).abs().mean())

    assert away("regression") < 0.6 * away("trak")
    assert (tmp_path / "regression" / "made" / "subsets" / "00023.json").is_file()


def test_a_preparation_that_was_cut_off_trains_only_what_is_missing(
    few: Few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**few.params, "models": 5, "train_epochs": 2}
    trained: list[int] = []
    fit = subsets.fit

    def counted(model: Any, task: Task, *rest: Any, **named: Any) -> None:
        trained.append(task.seed)
        fit(model, task, *rest, **named)

    monkeypatch.setattr(subsets, "fit", counted)
    whole = few.predicted(tmp_path / "whole", **given)
    assert fallen(whole).abs().min() > 0
    seeds = list(trained)
    assert len(set(seeds)) == 5

    def cut_off(event: Event) -> None:
        if event.task == "datamodel" and event.kind == "advance" and event.done == 5:
            raise KeyboardInterrupt  # in the third model

    with pytest.raises(KeyboardInterrupt), listening(cut_off):
        few.predicted(tmp_path / "cut", **given)
    kept = sorted(file.name for file in (tmp_path / "cut" / "subsets").iterdir())
    assert kept == ["00000.json", "00001.json"]
    trained.clear()
    heard: list[Event] = []
    with listening(heard.append):
        resumed = few.predicted(tmp_path / "cut", **given)
    assert trained == seeds[2:]
    assert resumed == whole
    bar = [event for event in heard if event.task == "datamodel"]
    assert [event.text for event in bar].count("resuming") == 2
    assert bar[-1].done == bar[-1].total == 10


def test_outputs_of_another_base_are_not_taken(few: Few, tmp_path: Path) -> None:
    given = {**few.params, "models": 2, "train_epochs": 2}
    kept = few.predicted(tmp_path / "made", **given)
    other = few.predicted(tmp_path / "made", **{**given, "base": str(few.retrained)})
    assert fallen(kept).tolist() != fallen(other).tolist()


def test_fewer_models_than_rows_are_told_of(few: Few, tmp_path: Path) -> None:
    shutil.copytree(few.made, tmp_path / "made")
    heard: list[Event] = []
    with listening(heard.append):
        few.predicted(tmp_path / "made", **few.params)
        assert not [event for event in heard if event.kind == "note"]
        few.predicted(tmp_path / "made", **{**few.params, "models": 12})
        quick = {**few.params, "train_epochs": 2, "models": 5, "group": "subject"}
        few.predicted(tmp_path / "made", **quick)
    told = [event.text for event in heard if event.kind == "note"]
    assert len(told) == 1  # five models tell four people apart
    assert told[0].startswith("12 models for 12 rows")


def asked(few: Few, tmp_path: Path, retain: Any = None, **params: Any) -> list[ExpungeError]:
    report = check_forget(
        few.original, few.rows[:3], few.rows[3:] if retain is None else retain, method="dmm",
        params={"datamodel": "regression", **params}, out=tmp_path / "out",
    )  # fmt: skip
    return report.problems


def test_a_regression_without_its_base_is_refused_before_weights_load(
    few: Few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.lm.load.load", lambda *_, **__: pytest.fail("weights loaded"))
    [without] = asked(few, tmp_path)
    assert without.code == "E-USE-007"
    assert "datamodel=regression" in without.found
    assert "base=" in without.next
    [missing] = asked(few, tmp_path, base=str(tmp_path / "nowhere"))
    assert missing.code == "E-MODEL-001"
    [bare] = asked(few, tmp_path, retain=(), base=str(few.base))
    assert bare.code == "E-USE-007"
    model = tiny_model("llama", vocab=64, hidden=16, layers=1, seed=0, positions=16)
    shutil.copytree(few.base, tmp_path / "small")
    model.save_pretrained(tmp_path / "small")
    [other] = asked(few, tmp_path, base=str(tmp_path / "small"))
    assert other.code == "E-USE-006"
    assert not asked(few, tmp_path, base=str(few.base))
    assert not asked(few, tmp_path, oracle=str(few.retrained))
    monkeypatch.setenv("WORLD_SIZE", "2")
    [several] = asked(few, tmp_path, base=str(few.base))
    assert several.code == "E-USE-006"


def test_the_models_count_in_the_estimate(few: Few, tmp_path: Path) -> None:
    def needs(**params: Any) -> dict[str, float]:
        report = check_forget(
            few.original, few.rows[:3], few.rows[3:], method="dmm", out=tmp_path / "out",
            params={**few.params, "max_steps": 10, **params},
        )  # fmt: skip
        return report.estimate

    plain, some = needs(datamodel="trak"), needs(models=1000)
    assert needs(models=3000)["seconds"] - some["seconds"] == pytest.approx(
        2 * (some["seconds"] - plain["seconds"]), rel=0.5
    )
    assert some["seconds"] > plain["seconds"]
    told = dmm.ahead(resolve(dmm.Params, few.params), 12)
    assert told is not None
    assert (told.steps, told.rows, told.models) == (MODELS * RECIPE["epochs"], 9, MODELS)
    assert dmm.ahead(dmm.Params(), 12) is None


def test_what_another_model_takes_before_the_first_step_in_closed_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten steps of 800 tokens, 200 of them supervised: three passes each, and all weights move."""
    size = Size(30_000_000, 10, 512, 16_000)
    work = Work(size, trained=0, steps=Pass(), ahead=Pass(10, 800, 200))
    values = 5 * 30_000_000 + 24 * 10 * 512 * 800 + 4 * 16_000 * 200
    assert prices.memory(work) == prices.BASE_BYTES + 4 * (30_000_000 + values)
    for name in ("CALL_SECONDS", "TOUCH_SECONDS"):
        monkeypatch.setattr(prices, name, 0.0)
    machine = prices.Machine(speed=1e10, slowness=1.0)
    products = 10 * 3 * size.products(800, 200) / (prices.EFFICIENCY * 1e10)
    moved = 10 * prices.UPDATE_BYTES * 30_000_000 * prices.MOVE_SECONDS
    without = prices.estimate(replace(work, ahead=Pass()), machine)["seconds"]
    found = prices.estimate(work, machine)["seconds"] - without
    assert found == pytest.approx(products + moved, abs=0.11)


def test_it_conforms() -> None:
    check_method("dmm")
