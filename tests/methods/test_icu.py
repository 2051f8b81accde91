"""ICU: closed forms, a slow second loss, the active set and its end, neighbours, the effect."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_methods import Z0, slow_nll, three
from micro_task import prepared
from tiny_rig import exact, facts, saved

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.jsonl import write_rows
from expunge.engine.change import load_change
from expunge.engine.gradient import StepGradient
from expunge.engine.run import forget
from expunge.engine.slots.stop import Measured
from expunge.engine.sources import Frozen
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods import icu
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.text.embedding import embed, embedder

KL = 0.082892
SAME = {"kl_scope": "answer"}


def entropy_of_the_anchor() -> float:
    logp = torch.tensor(Z0, dtype=torch.float64).log_softmax(-1)
    return float(-(logp.exp() * logp).sum(-1).mean())


# --------------------------------------------------------------------------------------- the loss


def test_t3_has_the_value_of_the_formula(t3) -> None:
    views = {"forget": t3.view, "nearest": t3.view}
    found = objective("icu", t3.model, views, t3.anchor, **SAME)
    crossed = KL + entropy_of_the_anchor()
    assert found.terms["forget"] == pytest.approx(-0.464952, abs=1e-5)
    assert found.terms["learn"] == pytest.approx(0.5 * 0.464952, abs=1e-5)
    assert found.terms["keep"] == pytest.approx(crossed, abs=1e-5)
    assert found.loss == pytest.approx(-0.5 * 0.464952 + crossed, abs=1e-5)
    weighted = objective(
        "icu", t3.model, views, t3.anchor, forget_weight=3.0, learn_weight=2.0, keep_weight=0.1,
        **SAME,
    )  # fmt: skip
    assert weighted.loss == pytest.approx(-0.464952 + 0.1 * crossed, abs=1e-5)


def test_keeping_has_the_gradient_of_kl_with_the_anchor_in_front(t3) -> None:
    """At the anchor nothing moves; with the model in front it would sharpen towards its arg-max."""
    views = {"forget": t3.view, "nearest": t3.view}
    only = {"forget_weight": 0.0, "learn_weight": 0.0, **SAME}
    at_anchor = three(Z0)
    objective("icu", at_anchor, views, t3.anchor, **only)
    assert at_anchor.gradient.abs().max() < 1e-12
    wrong = torch.tensor(Z0, dtype=torch.float64, requires_grad=True)
    logp = wrong.log_softmax(-1)
    (-(logp.exp() * logp.detach()).sum(-1).mean()).backward()
    assert wrong.grad.abs().max() > 0.01
    objective("icu", t3.model, views, t3.anchor, **only)
    kept = three([[2.0, 1, 0, -1], [0, 3, 1, 0], [1, 1, 1, 2]])
    objective(
        "kl-min", kept, {"forget": t3.view, "retain": t3.view}, t3.anchor, forget_weight=0.0, **SAME
    )
    torch.testing.assert_close(t3.model.gradient, kept.gradient)


@pytest.mark.parametrize("scope", ["all_nonpad", "answer", "legacy_all"])
def test_it_equals_a_slow_sum_over_active_pairs(random_table, random_view, scope: str) -> None:
    chosen = [1.0, 0.0, 1.0, 1.0, 0.0]
    model, anchor = random_table(1), random_table(2)
    views = {"forget": random_view(3), "nearest": random_view(4)}
    found = objective(
        "icu", model, views, anchor, state={icu.ACTIVE: chosen}, kl_scope=scope, keep_weight=0.7
    )
    twin, frozen = random_table(1), random_table(2)
    pushed, learnt, kept = [], [], []
    for row, is_active in enumerate(chosen):
        if not is_active:
            continue
        pushed += slow_nll(twin, views["forget"])[row]
        learnt += slow_nll(twin, views["nearest"])[row]
        near = {name: tensor[row] for name, tensor in views["nearest"].items()}
        for at, token in enumerate(near["input_ids"]):
            answered = at + 1 < len(near["labels"]) and near["labels"][at + 1] != -100
            counts = {"answer": answered, "all_nonpad": bool(near["attention_mask"][at]),
                      "legacy_all": True}  # fmt: skip
            if counts[scope]:
                p0 = frozen.table[token].detach().softmax(-1)
                kept.append(-(p0 * twin.table[token].log_softmax(-1)).sum())
    mean = lambda values: torch.stack(values).mean()  # noqa: E731
    slow = -mean(pushed) + 0.5 * mean(learnt) + 0.7 * mean(kept)
    slow.backward()
    assert found.loss == pytest.approx(float(slow.detach()), rel=1e-5)
    torch.testing.assert_close(model.table.grad, twin.table.grad, rtol=1e-5, atol=1e-6)


def test_without_an_active_pair_there_is_no_loss_and_no_gradient(random_table, random_view) -> None:
    """A mean over nothing is no number in the original code."""
    model = random_table(1)
    views = {"forget": random_view(3), "nearest": random_view(4)}
    state = {icu.ACTIVE: [0.0] * 5}
    found = objective("icu", model, views, random_table(2), state=state)
    assert found.loss == 0.0
    assert torch.equal(model.table.grad, torch.zeros_like(model.table))


def test_a_part_of_a_step_without_an_active_pair_adds_nothing() -> None:
    """One active row of twelve: of six parts five have none, and the step is that row's."""
    found = []
    for size, parts in ((12, 1), (2, 6)):
        task, method = prepared("icu", batch_size=size, accumulation=parts)
        task.state[icu.ACTIVE] = [0.0] * 8 + [1.0, 1.0] + [0.0] * 14  # two wordings a row
        told = step_gradient(task, method)(task.model, 0, lambda loss: loss.backward())
        assert all(math.isfinite(value) for value in told.values())
        assert told["forget"] < 0.0
        found.append([p.grad.clone() for p in task.model.parameters()])
        task.model.zero_grad()
    for whole, cut in zip(*found, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-6)


def step_gradient(task: Any, method: Any) -> StepGradient:
    from expunge.engine.datasets import Datasets

    anchor = Frozen(task.model)
    sampler = method.sample(task, method.params)
    return StepGradient(method, task, Datasets(task), sampler, lambda _: anchor, steps=4)


# ------------------------------------------------------------------------------- the active set


class Scorer:
    """Stands in for the scores of the continuations: F1 and BLEU of each forget row."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
        self.found = [(1.0, 1.0)] * rows
        self.extracted: list[float | None] = [0.0]
        monkeypatch.setattr(icu, "closeness", lambda *_, **__: self.found)
        monkeypatch.setattr(icu, "extraction_likelihood", lambda *_, **__: self.extracted)


def test_a_pair_rests_below_either_bound_and_comes_back_above_both(monkeypatch) -> None:
    task, method = prepared("icu")
    scorer = Scorer(monkeypatch, 12)
    assert task.state[icu.ACTIVE] == [1.0] * 24
    scorer.found = [(0.31, 0.5), (0.29, 0.5), (0.31, 0.009), (0.3, 0.01), *[(1.0, 1.0)] * 8]
    icu.refresh(task, method.params)
    by_row = task.state[icu.ACTIVE][::2]
    assert by_row == [1.0, 0.0, 0.0, 1.0, *[1.0] * 8]
    assert task.state[icu.ACTIVE][1::2] == by_row  # all wordings of a row
    assert gradient_by_row(task, method)[1] == 0.0
    assert gradient_by_row(task, method)[0] > 0.0
    scorer.found[1] = (0.8, 0.5)
    icu.refresh(task, method.params)
    assert task.state[icu.ACTIVE][2:4] == [1.0, 1.0]
    assert gradient_by_row(task, method)[1] > 0.0


def gradient_by_row(task: Any, method: Any) -> list[float]:
    """How much the loss pulls at what is predicted in each forget row and its neighbour."""
    from expunge.engine.datasets import Datasets
    from expunge.engine.sources import Live
    from expunge.engine.step import Step
    from expunge.engine.view import View

    datasets, found = Datasets(task), []
    for at, row in enumerate(task.forget):
        turn = task.paired["nearest"].make(row, 0, 0)
        items = {
            "forget": datasets.items("forget")[at][0],
            "nearest": task.encoder.encode(turn, row=2 * at),
        }
        frozen = Frozen(task.model)
        views = {
            name: View(datasets.batch([item]), Live(task.model), lambda f=frozen: f)
            for name, item in items.items()
        }
        step = Step(views, state=task.state)
        loss = sum(term(step, method.params).value for term in (icu.forget, icu.learn, icu.keep))
        loss.backward()
        grads = [p.grad for p in task.model.parameters() if p.grad is not None]
        found.append(float(sum(grad.abs().sum() for grad in grads)))
        task.model.zero_grad()
    return found


def ended(**terms: float) -> bool:
    history = [Measured(3, 1.0, False, {"forget": -1.0, **terms}, 5.0)]
    return icu.stop(history, methods.params("icu", {}))


def test_the_run_ends_when_nothing_is_active_or_both_numbers_are_low() -> None:
    assert not ended()
    assert ended(**{icu.ACTIVE: 0.0})
    assert not ended(**{icu.ACTIVE: 0.01})
    assert ended(**{icu.ACTIVE: 1.0, icu.ACCURACY: 0.59, icu.LIKELIHOOD: 0.04})
    assert not ended(**{icu.ACTIVE: 1.0, icu.ACCURACY: 0.60, icu.LIKELIHOOD: 0.04})
    assert not ended(**{icu.ACTIVE: 1.0, icu.ACCURACY: 0.59, icu.LIKELIHOOD: 0.05})


def test_likelihood_is_asked_for_below_the_bound_of_accuracy_only(monkeypatch) -> None:
    task, method = prepared("icu", accuracy=0.01)
    scorer = Scorer(monkeypatch, 12)
    scorer.extracted = [0.2, None, 0.4]
    icu.refresh(task, method.params)
    assert task.state[icu.LIKELIHOOD] == 1.0
    params = methods.params("icu", {"accuracy": 0.99})
    icu.refresh(task, params)
    assert task.state[icu.LIKELIHOOD] == pytest.approx(0.3)
    scorer.extracted = [None, None]  # texts too short for an n-gram say nothing
    icu.refresh(task, params)
    assert task.state[icu.LIKELIHOOD] == 1.0


def test_accuracy_is_that_of_the_first_choices() -> None:
    task, method = prepared("icu", accuracy=0.0)
    icu.refresh(task, method.params)
    shares = []
    for row in task.forget:
        item = task.encoder.encode(row.training)
        with torch.no_grad():
            chosen = task.model(input_ids=torch.tensor([item.ids])).logits[0].argmax(-1)
        told = [at for at, label in enumerate(item.labels) if label != -100][:-1]
        shares.append(sum(int(chosen[at - 1]) == item.ids[at] for at in told) / len(told))
    assert task.state[icu.ACCURACY] == pytest.approx(sum(shares) / len(shares))


# -------------------------------------------------------------------------------- the neighbours


def test_the_neighbour_is_the_row_that_resembles_most() -> None:
    forgotten, kept = facts()
    found = icu.nearest(forgotten, kept, embedder())
    for row, neighbour in zip(forgotten, found, strict=True):
        own = embed(f"{row.prompt} {row.completion}")
        cosine = [float(own @ embed(f"{one.prompt} {one.completion}")) for one in kept]
        apart = [float(np.linalg.norm(own - embed(f"{o.prompt} {o.completion}"))) for o in kept]
        assert neighbour is kept[int(np.argmax(cosine))] is kept[int(np.argmin(apart))]


def test_of_running_text_the_second_half_is_compared() -> None:
    row = Row(id="x", text="The moon is high tonight. Wolves sing near the frozen lake.")
    pool = [
        Row(id="head", text="The moon is high tonight. Bakers open their shops at five."),
        Row(id="tail", text="Every winter is long. Wolves howl near the frozen lake."),
    ]
    assert icu.nearest([row], pool, embedder())[0].id == "tail"


def test_what_says_the_same_is_nobodys_neighbour() -> None:
    row = Row(id="x", prompt="Where was Mira Voss born?", completion=" In Turin.", answer="Turin")
    same = replace(row, id="same", prompt="In which town was Mira Voss born?")
    other = replace(row, id="other", prompt="Where was Tom Ardel born?")  # also in Turin: kept
    assert icu.nearest([row], [same, other], embedder())[0].id == "other"
    with pytest.raises(ExpungeError) as refused:
        icu.nearest([row], [same], embedder())
    assert refused.value.code == "E-USE-007"


def test_neighbours_are_found_in_parts_as_in_one(monkeypatch) -> None:
    whole = icu.nearest(*facts(), embedder())
    monkeypatch.setattr(icu, "CHUNK", 5)
    assert icu.nearest(*facts(), embedder()) == whole


def test_the_pool_may_be_a_file(tmp_path: Path) -> None:
    pool = [Row(id="p", prompt="Where was Ada Kern born?", completion=" Ada Kern sings.")]
    write_rows(tmp_path / "pool.jsonl", pool)
    task, _ = prepared("icu", pool=str(tmp_path / "pool.jsonl"))
    made = task.paired["nearest"].make
    assert {made(row, wording, 0) for row in task.forget for wording in (0, 1)} == {pool[0].turn}


def test_a_pool_that_is_not_there_is_refused_before_anything_loads() -> None:
    with pytest.raises(ExpungeError) as refused:
        methods.params("icu", {"pool": "nowhere.jsonl"})
    assert refused.value.code == "E-DATA-001"


# ----------------------------------------------------------------------------------- its effect

OPTIONS = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "max_steps": 60}
ROOM = {"max_steps": 120}
"""More steps than a run that ends by itself needs, on whatever processor."""
NEVER_AT_REST = {"f1": -1e9, "bleu": 0.0, "accuracy": 0.0}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, **params: Any) -> dict[str, Any]:
    chosen = {**OPTIONS, **params}
    return forget(original, *facts(), method="icu", params=chosen, stop_at="none", out=out)


@pytest.fixture(scope="module")
def done(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("icu") / "out"
    run(original, out, **ROOM)
    return out


def loaded(folder: Path) -> Subject:
    found = load(folder)
    return Subject(found.model, found.tokenizer)


def test_the_run_ends_when_the_model_says_none_of_the_texts(done: Path) -> None:
    change = load_change(done)
    assert change.summary["stopped_by"] == "method"
    assert exact(loaded(done), facts()[0]) == 0.0
    told = [measured["terms"][icu.ACTIVE] for measured in change.manifest["history"]]
    assert told[0] == 1.0
    assert told[-1] == 0.0
    assert any(0 < share < 1 for share in told)
    lines = (done / "made" / "neighbours.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row.id for row in facts()[0]]


def test_neighbours_keep_the_rest_in_place(original: Path, tmp_path: Path) -> None:
    """The ablation: the same ascent without the two terms of the neighbours takes all along."""
    same = {**NEVER_AT_REST, "max_steps": 20, "lr": 1.5e-3}
    run(original, tmp_path / "pairs", **same)
    run(original, tmp_path / "alone", learn_weight=0.0, keep_weight=0.0, **same)
    pairs, alone = (load_change(tmp_path / name).summary for name in ("pairs", "alone"))
    assert min(pairs["forget_nll"], alone["forget_nll"]) > 2.5
    assert pairs["retain_nll"] < 0.4 * alone["retain_nll"]
    assert folder_digest(tmp_path / "alone") != folder_digest(tmp_path / "pairs")


def test_pairs_that_never_rest_are_pushed_too_far(
    original: Path, done: Path, tmp_path: Path
) -> None:
    """The ablation of the active set: all facts stay in it, and the run goes on to its end."""
    run(original, tmp_path / "never", **NEVER_AT_REST)
    change = load_change(tmp_path / "never")
    assert change.summary["stopped_by"] == "steps"
    assert {measured["terms"][icu.ACTIVE] for measured in change.manifest["history"]} == {1.0}
    assert change.summary["forget_nll"] > load_change(done).summary["forget_nll"] + 2


def test_the_active_set_survives_a_resume(original: Path, done: Path, tmp_path: Path) -> None:
    steps = load_change(done).summary["steps"]

    def interrupt(event: Event) -> None:
        if event.kind == "advance" and event.task == "icu" and event.done >= steps - 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        run(original, tmp_path / "cut", **ROOM)
    resumed = run(original, tmp_path / "cut", **ROOM)
    assert resumed["resumed_from"] > 0
    assert resumed["steps"] == steps
    assert folder_digest(tmp_path / "cut") == folder_digest(done)
