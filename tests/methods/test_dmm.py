"""Datamodel matching: outputs, targets, their sign, the oracle, and what training makes of it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import exact, facts, knowing, saved

from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import dmm
from expunge.testing import check_method, objective, tiny_model

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


def test_it_conforms() -> None:
    check_method("dmm")
