"""AltPO: closed forms, a slow second loss, every pair once an epoch, what becomes of answers."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest_methods import assert_same, slow_nll
from micro_task import prepared

from expunge.engine.alternates import said_instead, tells_truth
from expunge.engine.change import load_change, revert
from expunge.engine.datasets import Datasets
from expunge.engine.run import forget
from expunge.engine.slots.sample import Pairs, one_to_one, pairs
from expunge.engine.task import Paired, Task
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.testing import objective
from expunge.testing.micro import micro_world, taught

a_task = partial(prepared, "altpo", source="permute", batch_size=7)


def winning(view: dict) -> dict:
    """T3's winning targets on the same logits."""
    return {**view, "labels": torch.tensor([[-100, 1, 2, 0]])}


def test_t3_has_the_values_of_the_card(t3) -> None:
    views = {"forget": t3.view, "alternate": winning(t3.view)}
    found = objective("altpo", t3.model, views, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(11.087105, abs=1e-5)
    swapped = {"forget": winning(t3.view), "alternate": t3.view}
    assert objective("altpo", t3.model, swapped, t3.anchor).loss > found.loss + 1


def test_an_alternate_equal_to_the_answer_gives_no_gradient(t3) -> None:
    views = {"forget": t3.view, "alternate": t3.view}
    found = objective("altpo", t3.model, views, t3.anchor, beta=0.1)
    assert found.loss == pytest.approx(2 / 0.1 * math.log(2))
    assert t3.model.gradient.abs().max() < 1e-12


def test_towards_beta_zero_it_is_the_difference_of_the_log_probabilities(t3) -> None:
    """The limit of the loss less its constant is the margin, whose gradient is that of sums."""
    views = {"forget": t3.view, "alternate": winning(t3.view)}
    found = objective("altpo", t3.model, views, t3.anchor, beta=1e-6)
    margin = (5.394856 - 7.608822) - (1.394856 - 0.608822)  # nll of the alternate, then the answer
    assert found.loss - 2 / 1e-6 * math.log(2) == pytest.approx(margin, abs=1e-4)


def test_it_equals_a_slow_sum_over_pairs(random_table, random_view) -> None:
    model, anchor = random_table(1), random_table(2)
    views = {"forget": random_view(3), "alternate": random_view(4), "retain": random_view(5)}
    found = objective("altpo", model, views, anchor, beta=0.5, retain_weight=2.0)
    twin, frozen = random_table(1), random_table(2)
    terms = []
    for row in range(5):
        won, lost = (
            sum(slow_nll(frozen, views[name])[row]).detach() - sum(slow_nll(twin, views[name])[row])
            for name in ("alternate", "forget")
        )
        terms.append(-2 / 0.5 * torch.log(torch.sigmoid(0.5 * (won - lost))))
    kept = [token for row in slow_nll(twin, views["retain"]) for token in row]
    slow = torch.stack(terms).mean() + 2.0 * torch.stack(kept).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_an_epoch_passes_every_pair_once() -> None:
    task, method = a_task()
    sampler = method.sample(task, method.params)
    rows = len(task.forget)
    assert isinstance(sampler, Pairs)
    assert sampler.steps_per_epoch == math.ceil(5 * rows / 7)
    draws = [sampler.draw(step) for step in range(5 * rows)]  # 7 pairs a step: 7 whole epochs
    drawn = [
        pair
        for draw in draws
        for pair in zip(draw.rows["forget"], draw.rows["alternate"], strict=True)
    ]
    everything = {(row, candidate) for row in range(rows) for candidate in range(5)}
    epochs = [drawn[start : start + 5 * rows] for start in range(0, len(drawn), 5 * rows)]
    assert len(epochs) == 7
    assert all(set(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_epochs_count_k_times_more_steps() -> None:
    task, method = a_task(alternates=3)
    plain = one_to_one(task, method.params).steps_per_epoch
    assert pairs(task, method.params).steps_per_epoch == pytest.approx(3 * plain, abs=2)
    assert pairs(task, method.params).passes.forget == 3 * len(task.forget)


def test_the_batch_has_the_alternate_that_the_draw_names() -> None:
    task, method = a_task()
    datasets, draw = Datasets(task), method.sample(task, method.params).draw(3)
    beside = task.paired["alternate"]
    for place, item in enumerate(datasets.drawn("alternate", draw.share(1, 2).chunk(1, 2))):
        mine = draw.share(1, 2).chunk(1, 2)
        row = task.forget[mine.rows["forget"][place]]
        wording = mine.wording["forget"][place] % len(row.turns)
        turn = beside.make(row, wording, mine.rows["alternate"][place])
        assert item.ids == task.encoder.encode(turn).ids


def test_without_a_naming_sampler_alternates_change_from_epoch_to_epoch() -> None:
    task, method = a_task()
    datasets, sampler = Datasets(task), one_to_one(task, method.params)
    chosen = {
        tuple(item.ids)
        for step in range(20)
        for item in datasets.drawn("alternate", sampler.draw(step))
    }
    assert len(chosen) > 2 * len(task.forget)


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Subject, Subject]:
    """A finished change of a model that knew its world: its folder, the original, the result."""
    folder = tmp_path_factory.mktemp("altpo")
    rows = micro_world(people=4)
    original = taught(rows, [*rows.forget, *rows.retain], epochs=40, hidden=48, layers=2)
    original.model.save_pretrained(folder / "original")
    original.tokenizer.save_pretrained(folder / "original")
    forget(
        folder / "original", rows.forget, rows.retain, method="altpo", stop_at="none",
        params={"lr": 1e-3, "max_steps": 80, "warmup": 0}, out=folder / "out",
    )  # fmt: skip
    loaded = load(folder / "out")
    return folder / "out", original, Subject(loaded.model, loaded.tokenizer)


def kept(out: Path) -> dict[str, list[str]]:
    """The alternates that lie in a change."""
    lines = (out / "made" / "alternates.jsonl").read_text(encoding="utf-8").splitlines()
    found = {record["id"]: record["alternates"] for record in map(json.loads, lines)}
    return {id: [one["reply"] for one in alternates] for id, alternates in found.items()}


def test_no_alternate_repeats_the_truth(unlearned) -> None:
    alternates = kept(unlearned[0])
    for row in micro_world(people=4).forget:
        assert len(set(alternates[row.id])) == 5
        assert not any(tells_truth(row, reply) for reply in alternates[row.id])


def preferred(subject: Subject, alternates: dict[str, list[str]]) -> float:
    """Share of the forget rows whose alternates are, in the mean, likelier than the answer."""
    rows = micro_world(people=4).forget
    count = 0
    for row in rows:
        truth, *others = (
            float(scored.logp.sum())
            for scored in subject.score(
                [row.turn, *(said_instead(row, 0, reply) for reply in alternates[row.id])]
            )
        )
        count += sum(others) / len(others) > truth
    return count / len(rows)


def test_after_training_the_alternates_are_likelier_than_the_answer(unlearned) -> None:
    out, original, result = unlearned
    assert preferred(original, kept(out)) == 0.0
    assert preferred(result, kept(out)) == 1.0


def test_the_change_records_what_it_trained_on(unlearned) -> None:
    record = load_change(unlearned[0]).manifest["record"]
    assert record["alternates_invented"] + record["alternates_permuted"] == 60
    assert len(record["alternates_digest"]) == 64


def test_the_alternates_leave_the_folder_with_the_change(unlearned, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(unlearned[0], copy)
    revert(copy)
    assert not (copy / "made").exists()
    assert (copy / "reverted" / "made" / "alternates.jsonl").is_file()


def test_a_resumed_run_reads_the_alternates_it_had(tmp_path, monkeypatch) -> None:
    task, method = a_task(source="model")
    task = Task(**{**vars(task), "folder": tmp_path, "paired": {}, "record": {}})
    method.prepare(task, method.params)
    first = [task.paired["alternate"].make(task.forget[0], 0, k).completion for k in range(5)]
    record = dict(task.record)

    def unasked(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(Subject, "ask", unasked)
    again = Task(**{**vars(task), "paired": {}, "record": {}})
    method.prepare(again, method.params)
    beside: Paired = again.paired["alternate"]
    assert [beside.make(task.forget[0], 0, k).completion for k in range(5)] == first
    assert again.record == record
