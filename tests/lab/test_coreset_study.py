"""Coreset study: the full run is the base run, equal steps, and the barrier between two models."""

import json
from dataclasses import replace

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.engine.run import forget
from expunge.lab.coreset_study import Coresets, Run, barrier, index, study
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

NAMES = ("anna", "bela", "carl", "dora", "emil", "frida", "gert", "hanna")
WORDS = ("ash", "birch", "cedar", "elm", "fir", "gorse", "holly", "ivy")
ROWS = [
    Row(id=name, role="retain", prompt=f"{name} likes", completion=f" {word}")
    for name, word in zip(NAMES, WORDS, strict=True)
]
FORGET, RETAIN = ROWS[:4], ROWS[4:]
PARAMS = {"lr": 1e-2, "batch_size": 2, "max_steps": 8}


@pytest.fixture(scope="module")
def knowing():
    tokenizer = tiny_tokenizer([f"{r.prompt}{r.completion}" for r in ROWS], kind="word", vocab=64)
    model = tiny_model("llama", vocab=len(tokenizer), seed=0, positions=32)
    finetune(model, tokenizer, ROWS, epochs=60, lr=5e-3, batch_size=8, seed=0)
    return Subject(model, tokenizer)


@pytest.fixture(scope="module")
def coresets(knowing, tmp_path_factory):
    folder = tmp_path_factory.mktemp("coreset") / "original"
    knowing.model.save_pretrained(folder)
    knowing.tokenizer.save_pretrained(folder)
    return Coresets(
        model=folder, forget=FORGET, retain=RETAIN, method="grad-diff", params=PARAMS,
        shares=(0.25, 1.0), seeds=(0, 1), barrier=ROWS,
    )  # fmt: skip


def judge(subject):
    def right(rows):
        scored = subject.score([row.turn for row in rows])
        return sum(float(one.hit[0]) for one in scored) / len(rows)

    return 1 - right(FORGET), right(RETAIN)


@pytest.fixture(scope="module")
def done(coresets, tmp_path_factory):
    out = tmp_path_factory.mktemp("coreset") / "out"
    return (*study(coresets, judge, out), out)


def test_all_rows_are_the_base_run_bit_for_bit(coresets, done, tmp_path):
    *_, out = done
    for seed in coresets.seeds:
        plain = tmp_path / str(seed)
        forget(
            coresets.model, FORGET, RETAIN, method="grad-diff", params=PARAMS, stop_at="none",
            seed=seed, out=plain,
        )  # fmt: skip
        assert folder_digest(out / f"share1.0-seed{seed}") == folder_digest(plain)
        assert folder_digest(out / f"share0.25-seed{seed}") != folder_digest(plain)


def test_every_share_takes_as_many_steps_and_is_judged_on_all_rows(done):
    runs, value, out = done
    assert {run.steps for run in runs} == {8}
    assert len(runs) == value.n == 4
    assert value.mean in (0.25, 1.0)
    assert all(run.effectiveness > 0.5 for run in runs if run.share == 1.0)
    stored = json.loads((out / "coresets.json").read_text())
    assert stored["coreset_effect"]["mean"] == value.mean
    assert [run["share"] for run in stored["runs"]] == [1.0, 0.25, 1.0, 0.25]


def test_the_run_over_all_rows_has_no_barrier_to_itself(done):
    runs, *_ = done
    assert all(run.barrier >= 0 for run in runs)
    assert all(run.barrier < 1e-6 for run in runs if run.share == 1.0)


def test_the_same_folder_gives_the_same_numbers_without_running_again(coresets, done):
    runs, value, out = done
    before = (out / "share1.0-seed0" / "change.json").stat().st_mtime_ns
    assert study(coresets, judge, out) == (runs, value)
    assert (out / "share1.0-seed0" / "change.json").stat().st_mtime_ns == before


def test_steps_that_are_not_matched_are_refused(coresets, tmp_path):
    epochs = {"lr": 2e-3, "batch_size": 1, "epochs": 2}
    unmatched = replace(
        coresets, params=epochs, options={"match_steps": "no"}, seeds=(0,), barrier=()
    )
    with pytest.raises(ExpungeError) as error:
        study(unmatched, judge, tmp_path)
    assert "2 to 8 steps" in error.value.found


def test_without_all_rows_there_is_nothing_to_compare_with(coresets, tmp_path):
    with pytest.raises(ExpungeError) as error:
        study(replace(coresets, shares=(0.25,)), judge, tmp_path)
    assert error.value.code == "E-USE-006"


def test_the_wrapper_gets_selector_and_keywords(coresets):
    told = replace(coresets, options={"selector": "min-k", "keywords": 0.3})
    assert told.wrapper(0.05) == "coreset:0.05,selector=min-k,keywords=0.3"


def test_the_index_of_runs():
    runs = [
        Run(share=s, seed=seed, steps=8, effectiveness=e, utility=0.7, barrier=None)
        for s, e in ((0.05, 0.5), (0.25, 0.79), (1.0, 0.8))
        for seed in (0, 1)
    ]
    assert index(runs).mean == 0.25


def test_a_model_and_itself_have_no_barrier_and_a_permuted_twin_has_one(knowing):
    """Swapping its units changes no answer, but the way there leads through a worse model."""
    assert barrier(knowing, knowing, ROWS) < 1e-6
    twin = knowing.copy()
    with torch.no_grad():
        for block in twin.model.model.layers:
            order = torch.arange(block.mlp.gate_proj.out_features).flip(0)
            for linear in (block.mlp.gate_proj, block.mlp.up_proj):
                linear.weight.copy_(linear.weight[order])
            block.mlp.down_proj.weight.copy_(block.mlp.down_proj.weight[:, order])
    losses = [subject.score([r.turn for r in ROWS])[0].nll for subject in (knowing, twin)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert barrier(knowing, twin, ROWS) > 0.01
