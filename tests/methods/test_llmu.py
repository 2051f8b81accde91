"""LLMU: its three terms, the random answers token by token, and the rule that ends the ascent."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll
from micro_task import prepared

from expunge.core.errors import ExpungeError
from expunge.engine.datasets import Datasets
from expunge.engine.gradient import StepGradient
from expunge.engine.run import forget
from expunge.engine.slots.combine import weighted_sum
from expunge.engine.slots.stop import Measured
from expunge.engine.sources import Frozen
from expunge.engine.task import Task
from expunge.engine.three_terms import answers_that_fit
from expunge.methods import llmu
from expunge.requests.rows import Row
from expunge.testing import objective
from expunge.testing.methods import stage, taught_subject, world

a_task = partial(prepared, "llmu")


def test_t3_is_ascent_on_one_half_and_descent_on_the_random_answer(t3) -> None:
    other = {**t3.view, "labels": torch.tensor([[-100, 1, 2, 0]])}
    found = objective("llmu", t3.model, {"forget": t3.view, "random": other}, t3.anchor)
    assert found.terms["forget"] == pytest.approx(-0.464952, abs=1e-5)
    assert found.terms["random"] == pytest.approx(5.394856 / 3, abs=1e-5)
    assert found.loss == pytest.approx(-0.5 * 0.464952 + 5.394856 / 3, abs=1e-5)


def test_it_equals_three_slow_means(random_table, random_view) -> None:
    model, anchor, twin = random_table(1), random_table(2), random_table(1)
    views = {"forget": random_view(3), "random": random_view(4), "retain": random_view(5)}
    weights = {"forget_weight": 0.7, "random_weight": 1.3, "retain_weight": 0.4}
    found = objective("llmu", model, views, anchor, kl_scope="answer", **weights)
    kept = []
    for ids, labels in zip(views["retain"]["input_ids"], views["retain"]["labels"], strict=True):
        for at in range(1, len(ids)):
            if labels[at] != -100:
                now, before = (t.table[ids[at - 1]].log_softmax(0) for t in (twin, anchor))
                kept.append(_kl(before, now))
    slow = (
        -0.7 * flat(slow_nll(twin, views["forget"])).mean()
        + 1.3 * flat(slow_nll(twin, views["random"])).mean()
        + 0.4 * torch.stack(kept).mean()
    )
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def _kl(before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    return (before.detach().exp() * (before.detach() - now)).sum()


def test_without_ascent_and_retain_it_is_fine_tuning_on_random_answers(
    random_table, random_view
) -> None:
    model, anchor, twin = random_table(1), random_table(2), random_table(1)
    views = {"forget": random_view(3), "random": random_view(4), "retain": random_view(5)}
    found = objective("llmu", model, views, anchor, forget_weight=0.0, retain_weight=0.0)
    slow = flat(slow_nll(twin, views["random"])).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def test_the_same_holds_of_the_engines_own_step() -> None:
    """Against the model's own loss on the rows, in the weights' gradient."""
    task, method = a_task(forget_weight=0.0, retain_weight=0.0, batch_size=4)
    model = taught_subject().copy().model.double()
    task = replace(task, model=model)
    datasets, sampler = Datasets(task), method.sample(task, method.params)
    frozen = Frozen(model)
    step = StepGradient(method, task, datasets, sampler, lambda _: frozen, steps=1)
    step(model, 0, lambda loss: loss.backward())
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    batch = datasets.tensors(datasets.drawn("random", sampler.draw(0)))
    model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_every_forget_row_gets_k_different_answers_of_retain_rows() -> None:
    task, method = a_task(batch_size=4)
    draw = method.sample(task, method.params).draw(0)
    items = Datasets(task).drawn("random", draw)
    replies = {row.reply.strip() for row in task.retain}
    assert len(items) == 5 * 4
    for start in range(0, 20, 5):
        said = [_said(task, item) for item in items[start : start + 5]]
        assert len(set(said)) == 5
        assert set(said) <= replies


def _said(task: Task, item) -> str:
    return task.encoder.decode([label for label in item.labels if label != -100]).strip()


def test_random_answers_are_drawn_anew_each_epoch() -> None:
    task, method = a_task(batch_size=len(world().forget))
    sampler, datasets = method.sample(task, method.params), Datasets(task)
    one, other = ({item.row for item in datasets.drawn("random", sampler.draw(s))} for s in (0, 1))
    assert one != other


def test_of_a_random_answer_all_is_supervised_and_nothing_of_the_prompt() -> None:
    """The first code supervises the prompt from its third token and skips the answer's first."""
    task, method = a_task(batch_size=4)
    draw = method.sample(task, method.params).draw(0)
    for item, place in zip(Datasets(task).drawn("random", draw), range(20), strict=True):
        row = task.forget[draw.rows["forget"][place // 5]]
        turn = row.turns[draw.wording["forget"][place // 5] % len(row.turns)]
        prompt = task.encoder.prompt(turn.prompt)
        assert item.ids[: len(prompt)] == prompt
        assert item.labels[: len(prompt)] == [-100] * len(prompt)
        assert item.labels[len(prompt) :] == item.ids[len(prompt) :]
        assert item.ids[-1] == task.tokenizer.eos_token_id


def test_padding_comes_from_lengths_not_from_an_id() -> None:
    """With a padding id that is also the end of every answer, the ends stay supervised."""
    task, method = a_task(batch_size=4)
    task.tokenizer.pad_token_id, before = task.tokenizer.eos_token_id, task.tokenizer.pad_token_id
    try:
        datasets, draw = Datasets(task), method.sample(task, method.params).draw(0)
        items = datasets.drawn("random", draw)
        inputs = datasets.batch(items)
    finally:
        task.tokenizer.pad_token_id = before
    assert inputs.attention_mask.sum(1).tolist() == [len(item.ids) for item in items]
    assert int((inputs.targets == task.tokenizer.eos_token_id).sum()) == len(items)


@pytest.mark.parametrize(("nll", "ends"), [(99.0, False), (101.0, True)])
def test_the_ascent_ends_above_its_bound(nll, ends) -> None:
    """The first code compares the negated loss with the bound, which never fires."""
    history = [Measured(step, level, False, {}, 5.0) for step, level in ((1, 2.0), (2, nll))]
    assert llmu.stop(history, llmu.Params()) is ends


def test_a_run_ends_at_the_bound(tmp_path) -> None:
    rows = world()
    params = {"lr": 3e-3, "max_steps": 120, "warmup": 0, "retain_weight": 0.0, "random_weight": 0.0}
    found = forget(
        stage(tmp_path), rows.forget, rows.retain, method="llmu", stop_at="none",
        params={**params, "max_forget_nll": 12.0}, out=tmp_path / "out",
    )  # fmt: skip
    assert found["stopped_by"] == "method"
    assert found["steps"] < 120
    assert found["forget_nll"] > 12.0


def test_random_answers_too_long_for_the_model_are_left_out() -> None:
    task, _ = a_task()
    long = Row(id="long", prompt="Tell.", completion=" was" * 200)
    more = replace(task, roles={**task.roles, "retain": [*task.retain, long]})
    assert answers_that_fit(more) == answers_that_fit(task)
    only = replace(task, roles={**task.roles, "retain": [long]})
    with pytest.raises(ExpungeError, match="E-USE-007"):
        llmu.prepare(only, llmu.Params())


def test_a_resting_ascent_takes_the_random_answers_along() -> None:
    task, method = a_task(batch_size=4)
    frozen = Frozen(task.model)
    step = StepGradient(
        method, task, Datasets(task), method.sample(task, method.params), lambda _: frozen, steps=1
    )
    step.paused = True
    values = step(task.model, 0, lambda loss: loss.backward())
    task.model.zero_grad()
    assert values["forget"] == values["random"] == 0.0
    assert values["retain"] == pytest.approx(0.0, abs=1e-6)


def test_few_rows_in_many_micro_batches_give_the_same_gradient() -> None:
    """A micro-batch may be left without a forget row; its retain rows still count."""
    found = []
    for cut in ({"batch_size": 4, "accumulation": 1}, {"batch_size": 1, "accumulation": 4}):
        task, method = a_task(**cut, retain_term="nll")
        model = taught_subject().copy().model.double()
        own = replace(task, model=model, roles={**task.roles, "forget": task.forget[:2]})
        sampler = method.sample(own, method.params)
        step = StepGradient(method, own, Datasets(own), sampler, None, steps=1)
        step(model, 0, lambda loss: loss.backward())
        found.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


def test_terms_beside_the_two_pass_a_combiner_by() -> None:
    """With the combiner that adds, the gradient is that of the weighted sum."""
    options = {"batch_size": 4, "forget_weight": 0.3, "retain_weight": 2.0, "retain_term": "nll"}
    task, method = a_task(**options)
    found = []
    for combine in (None, weighted_sum):
        model = taught_subject().copy().model.double()
        own = replace(task, model=model)
        step = StepGradient(
            replace(method, combine=combine), own, Datasets(own),
            method.sample(own, method.params), None, steps=1,
        )  # fmt: skip
        step(model, 0, lambda loss: loss.backward())
        found.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)
