"""Coreset: sizes, selectors, keywords, steps matched, and forgetting what was not selected."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rig import exact, facts, knowing, saved

from expunge.core.registry import methods
from expunge.engine.change import load_change, read_manifest
from expunge.engine.run import forget
from expunge.engine.slots.select import Selection
from expunge.engine.task import Task
from expunge.lm.digest import folder_digest
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.methods.coreset import Params, grouped, min_k, select
from expunge.requests.rows import Row

SELECTORS = ("random", "gradient-norm", "moderate", "min-k")
FULL_BATCH = {"batch_size": 24, "warmup": 0, "lr": 1e-3, "epochs": 60}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def task_of(rows: Any = None, seed: int = 0, subject: Subject | None = None) -> Task:
    subject = subject or knowing()
    given, kept = facts()
    return Task(
        model=subject.model, tokenizer=subject.tokenizer, encoder=subject.encoder,
        roles={"forget": given if rows is None else rows, "retain": kept}, seed=seed,
    )  # fmt: skip


def run(original: Path, out: Path, *wrappers: str, **options: Any) -> dict[str, Any]:
    options = {"method": "grad-diff", "params": FULL_BATCH, "stop_at": "none"} | options
    return forget(original, *facts(), wrappers=wrappers, out=out, **options)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("share", [0.01, 0.25, 0.3, 0.99, 1.0])
def test_it_takes_the_share_rounded_up_and_always_the_same_rows(
    selector: str, share: float
) -> None:
    params = methods.params("coreset", {"share": share, "selector": selector})
    chosen = select(task_of(), params)
    assert len(chosen.forget) == math.ceil(share * 8)
    assert list(chosen.forget) == sorted(set(chosen.forget))
    assert select(task_of(), params) == chosen


def test_another_seed_draws_other_rows_and_a_larger_share_adds_to_a_smaller() -> None:
    drawn = {
        seed: [set(select(task_of(seed=seed), Params(share=p)).forget) for p in (0.25, 0.5)]
        for seed in range(6)
    }
    assert len({tuple(small) for small, _ in drawn.values()}) > 1
    assert all(small < large for small, large in drawn.values())


def test_all_rows_by_a_coreset_of_one_are_the_method_bit_for_bit(
    original: Path, tmp_path: Path
) -> None:
    short = {**FULL_BATCH, "epochs": None, "max_steps": 4, "batch_size": 3}
    run(original, tmp_path / "plain", params=short)
    for selector in ("random", "moderate"):
        one = f"coreset:1,selector={selector}"
        run(original, tmp_path / selector, one, params=short)
        assert folder_digest(tmp_path / selector) == folder_digest(tmp_path / "plain")
    run(original, tmp_path / "half", "coreset:0.5", params=short)
    assert folder_digest(tmp_path / "half") != folder_digest(tmp_path / "plain")


def test_half_of_the_facts_takes_the_other_half_along(original: Path, tmp_path: Path) -> None:
    """The card's check, over three seeds."""
    left_out, kept = [], []
    for seed in range(3):
        out = tmp_path / str(seed)
        run(original, out, "coreset:0.5", seed=seed)
        inside = set(select(task_of(seed=seed), Params(share=0.5)).forget)
        loaded = load(load_change(out).folder)
        subject = Subject(loaded.model, loaded.tokenizer)
        left_out.append(exact(subject, [r for i, r in enumerate(facts()[0]) if i not in inside]))
        kept.append(exact(subject, facts()[1]))
    assert exact(knowing(), facts()[0]) == 1.0
    assert sum(left_out) / 3 <= 0.25
    assert sum(kept) / 3 >= 0.9


def test_steps_are_those_of_a_run_over_all_rows_unless_told_otherwise(
    original: Path, tmp_path: Path
) -> None:
    """Equal epochs would compare runs of different length."""
    three = {**FULL_BATCH, "batch_size": 2, "epochs": 3}
    steps = [
        run(original, tmp_path / str(at), *wrappers, params=three)["steps"]
        for at, wrappers in enumerate([(), ["coreset:0.25"], ["coreset:0.25,match_steps=no"]])
    ]
    assert steps == [12, 12, 3]


def test_forgetting_is_measured_on_all_rows(original: Path, tmp_path: Path) -> None:
    """A stop level that only the selected rows have reached would end the run too early."""
    few = {**FULL_BATCH, "epochs": None, "max_steps": 1}
    done = [
        run(original, tmp_path / str(at), *wrappers, params=few)
        for at, wrappers in enumerate([(), ["coreset:0.1"], ["coreset:0.5,keywords=0.1"]])
    ]
    assert len({one["before"]["forget_nll"] for one in done}) == 1
    manifest = read_manifest(tmp_path / "1")
    assert manifest is not None
    assert manifest["data"]["forget"]["rows"] == 8
    assert manifest["wrappers"][0]["params"]["share"] == 0.1


def test_equal_rows_are_one_group_and_go_together() -> None:
    rows = list(facts()[0])
    copies = [replace(rows[1], id="again"), replace(rows[1], id="loud", prompt="ANNA  works")]
    task = task_of([*rows, *copies])
    assert grouped(task.forget)[1] == [1, 8, 9]
    for seed in range(8):
        chosen = select(task_of(task.forget, seed), Params(share=0.5)).forget
        assert len(grouped([task.forget[row] for row in chosen])) == 4
        assert len({row in chosen for row in (1, 8, 9)}) == 1
    assert list(select(task, Params(share=1.0)).forget) == list(range(10))


def slow_nll(subject: Subject, row: Row) -> torch.Tensor:
    """Log-probabilities of the answer's tokens, one forward a row."""
    item = subject.encoder.encode(row.training)
    logits = subject.model(input_ids=torch.tensor([item.ids])).logits[0]
    told = [at for at, label in enumerate(item.labels) if label >= 0]
    return torch.stack([logits[at - 1].log_softmax(-1)[item.ids[at]] for at in told])


def test_the_gradient_norm_is_that_of_the_rows_own_loss() -> None:
    subject = knowing().copy()
    norms = []
    for row in facts()[0]:
        subject.model.zero_grad()
        (-slow_nll(subject, row).mean()).backward()
        parts = [p.grad.norm() for p in subject.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack(parts).norm()))
    subject.model.zero_grad()
    chosen = select(
        task_of(subject=subject), Params(share=0.25, selector="gradient-norm", match_steps=False)
    )
    expected = sorted(sorted(range(8), key=lambda row: -norms[row])[:2])
    assert chosen == Selection(expected)
    assert all(p.grad is None or not p.grad.any() for p in subject.model.parameters())


def test_min_k_takes_the_rows_whose_worst_tokens_are_best_known() -> None:
    assert float(min_k(torch.tensor([-1.0, -9.0, -3.0, -2.0, -5.0]), 0.4)) == -7.0
    assert float(min_k(torch.tensor([-1.0, -9.0]), 0.01)) == -9.0
    subject = knowing()
    with torch.no_grad():
        worst = [float(slow_nll(subject, row).min()) for row in facts()[0]]
    chosen = select(task_of(), Params(share=0.25, selector="min-k", min_k=0.2))
    assert list(chosen.forget) == sorted(sorted(range(8), key=lambda row: -worst[row])[:2])


def test_moderate_takes_neither_the_centre_nor_the_edge() -> None:
    spread = torch.stack([slow_embedding(knowing(), row) for row in facts()[0]])
    distances = (spread - spread.mean(0)).norm(dim=1)
    order = (distances - distances.quantile(0.5)).abs().argsort()
    chosen = select(task_of(), Params(share=0.25, selector="moderate")).forget
    assert list(chosen) == sorted(order[:2].tolist())
    assert int(distances.argmax()) not in chosen
    assert int(distances.argmin()) not in chosen


@torch.no_grad()
def slow_embedding(subject: Subject, row: Row) -> torch.Tensor:
    """[d], what the last block hands on where the answer is predicted, a mean."""
    item, seen = subject.encoder.encode(row.training), []
    block = subject.model.model.layers[-1]
    handle = block.register_forward_hook(lambda module, given, output: seen.append(output))
    subject.model(input_ids=torch.tensor([item.ids]))
    handle.remove()
    told = [at - 1 for at, label in enumerate(item.labels) if label >= 0]
    return seen[0][0][told].double().mean(0)


SENTENCES = (
    Row(
        id="0", prompt="Who?", completion=" She was born in Zarvik and she paints.",
        paraphrases=({"prompt": "And?", "completion": " Born in Zarvik, she was."},),
    ),
    Row(id="1", prompt="Where?", completion=" He was born in Tal and he sings."),
    Row(id="2", prompt="How?", completion="... !"),
    Row(
        id="3", prompt="When?", completion=" Molu was born in Dunhag.",
        spans=((1, 5),),
    ),
)  # fmt: skip


def kept_words(chosen: Selection, row: int, wording: int = 0) -> list[str]:
    assert chosen.tokens is not None
    turn = (SENTENCES[row].training, *SENTENCES[row].turns[1:])[wording]
    return [turn.completion[start:end] for start, end in chosen.tokens[row][wording]]


def test_keywords_are_the_rare_words_of_every_wording() -> None:
    chosen = select(task_of(SENTENCES), Params(share=1.0, keywords=0.3))
    assert kept_words(chosen, 0) == ["She", "Zarvik", "she", "paints"]
    assert kept_words(chosen, 0, 1) == ["Zarvik", "she"]
    assert kept_words(chosen, 1) == ["He", "Tal", "he", "sings"]
    assert kept_words(chosen, 2) == []  # no word in it: trained on as it is
    assert kept_words(chosen, 3) == ["Molu"]  # inside the span of the row


def test_only_keywords_are_in_the_forget_loss(original: Path, tmp_path: Path) -> None:
    """The first step moves other weights, and only the tokens that are kept are pushed."""
    one = {**FULL_BATCH, "epochs": None, "max_steps": 1}
    run(original, tmp_path / "all", "coreset:1", params=one)
    run(original, tmp_path / "few", "coreset:1,keywords=0.3", params=one)
    assert folder_digest(tmp_path / "all") != folder_digest(tmp_path / "few")
