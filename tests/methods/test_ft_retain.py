"""Fine-tuning on retain rows: its one term, its passes, and that it says what it is not."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest_methods import assert_same, flat, slow_nll

from expunge.core.registry import methods
from expunge.engine.run import forget
from expunge.engine.slots.sample import content_key, over_retain
from expunge.testing import objective
from expunge.testing.methods import stage, world


def test_t3_is_the_mean_of_the_retain_tokens_alone(t3) -> None:
    found = objective("ft-retain", t3.model, {"forget": t3.view, "retain": t3.view})
    assert found.terms == {"retain": pytest.approx(0.464952, abs=1e-5)}
    assert found.loss == found.terms["retain"]


def test_it_equals_a_slow_mean_and_forget_rows_have_no_part(random_table, random_view) -> None:
    model = random_table(1)
    views = {"forget": random_view(3), "retain": random_view(4)}
    found = objective("ft-retain", model, views)
    twin = random_table(1)
    slow = flat(slow_nll(twin, views["retain"])).mean()
    slow.backward()
    assert_same((found.loss, model.table.grad), (slow, twin.table.grad))


def _sampler(rows, *, batch_size: int = 5, seed: int = 0):
    task = SimpleNamespace(retain=rows, forget=world().forget, seed=seed)
    return over_retain(task, methods.params("ft-retain", {"batch_size": batch_size}))


def test_an_epoch_is_one_pass_over_the_retain_rows_in_a_new_order() -> None:
    rows = world().retain
    sampler = _sampler(rows)
    assert sampler.steps_per_epoch == 3
    passes = [
        [row for step in range(3 * n, 3 * n + 3) for row in sampler.draw(step).rows["retain"]]
        for n in range(3)
    ]
    for drawn in passes:
        assert Counter(drawn) == Counter(range(len(rows)))
    assert passes[0] != passes[1]
    assert all(set(sampler.draw(step).rows) == {"retain"} for step in range(4))


def test_where_a_row_stands_does_not_matter() -> None:
    rows = world().retain
    one, other = _sampler(rows), _sampler(rows[::-1])
    for step in range(6):
        first, second = one.draw(step), other.draw(step)
        assert [rows[i] for i in first.rows["retain"]] == [
            rows[::-1][i] for i in second.rows["retain"]
        ]
        assert first.wording == second.wording


def test_a_row_less_shifts_no_other_row_past_another() -> None:
    rows, gone = world().retain, 4
    fewer = [row for place, row in enumerate(rows) if place != gone]
    with_all = [content_key(rows[i]) for i in _sampler(rows, batch_size=99).draw(0).rows["retain"]]
    without = [content_key(fewer[i]) for i in _sampler(fewer, batch_size=99).draw(0).rows["retain"]]
    assert [key for key in with_all if key != content_key(rows[gone])] == without


def test_the_summary_says_that_it_is_not_unlearning(tmp_path: Path) -> None:
    rows = world()
    done = forget(
        stage(tmp_path), rows.forget, rows.retain, method="ft-retain", stop_at="none",
        params={"max_steps": 20, "lr": 1e-3}, out=tmp_path / "out",
    )  # fmt: skip
    assert "not unlearning" in done["caution"]
    assert done["retain_nll"] < done["before"]["retain_nll"]
    assert "not unlearning" in methods.card("ft-retain").summary


def test_no_gradient_reaches_what_only_forget_rows_use() -> None:
    from expunge.testing import tiny_model

    model = tiny_model("llama", vocab=16, seed=0)
    ids = torch.tensor([[1, 2, 3]])
    other = torch.tensor([[9, 10, 11]])
    views = {
        name: {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": i}
        for name, i in (("retain", ids), ("forget", other))
    }
    objective("ft-retain", model, views)
    embedded = model.get_input_embeddings().weight.grad
    assert embedded[1].any()
    assert not embedded[9].any()
