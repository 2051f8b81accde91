"""What a run says of itself, and when it refuses to call itself done."""

from pathlib import Path

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.core.events import listening
from expunge.engine.change import read_manifest
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.headers import weight_files
from expunge.testing.methods import stage, world


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, **options):
    rows = world()
    params = {"max_steps": 4, "lr": 1e-3, **options.pop("params", {})}
    options = {"stop_at": "none", **options}
    return forget(original, rows.forget, rows.retain, params=params, out=out, **options)


def code(original: Path, out: Path, **options) -> ExpungeError:
    with pytest.raises(ExpungeError) as caught:
        run(original, out, **options)
    assert not (out / "change.json").exists()
    return caught.value


def test_a_rate_of_zero_is_an_error_that_names_it(original: Path, tmp_path: Path) -> None:
    error = code(original, tmp_path / "out", params={"lr": 0.0})
    assert (error.code, error.exit_code) == ("E-RUN-001", 6)
    assert "learning rate is 0" in error.found


def test_a_rate_below_the_precision_of_the_weights_is_an_error(
    original: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(original, dtype=torch.bfloat16)
    model.save_pretrained(half)
    AutoTokenizer.from_pretrained(original).save_pretrained(half)
    error = code(half, tmp_path / "out", params={"lr": 1e-9})
    assert error.code == "E-RUN-001"
    assert "precision" in error.found


def test_a_run_that_diverges_says_at_which_step(original: Path, tmp_path: Path) -> None:
    error = code(original, tmp_path / "out", method="ga", params={"lr": 1e30, "warmup": 0})
    assert (error.code, error.exit_code) == ("E-RUN-002", 6)


def test_a_broken_budget_is_an_error_and_the_result_is_not_published(
    original: Path, tmp_path: Path
) -> None:
    hard = {"max_steps": 20, "lr": 1e-2}
    error = code(original, tmp_path / "out", method="ga", params=hard, utility_budget=0.01)
    assert (error.code, error.exit_code) == ("E-RUN-003", 6)
    assert (tmp_path / "out" / ".run").is_dir()
    assert run(original, tmp_path / "free", method="ga", params=hard)["utility_drop"] > 0.01


def test_the_summary_and_the_manifest_tell_what_was_done(original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path / "out", seed=3)
    assert set(done) >= {
        "out", "method", "steps", "resumed_from", "seconds", "weights_changed", "forget_nll",
        "retain_nll", "utility_drop", "stopped_by",
    }  # fmt: skip
    assert (done["method"], done["steps"], done["resumed_from"]) == ("npo", 4, 0)
    assert done["stopped_by"] == "steps"
    assert done["forget_nll"] > done["before"]["forget_nll"]
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest["seed"] == 3
    assert manifest["params"]["beta"] == 0.1
    assert manifest["resolved"] == {"lr": 1e-3, "steps": 4}
    assert manifest["data"]["forget"]["rows"] == len(world().forget)
    assert manifest["result"]["digest"] == folder_digest(tmp_path / "out")
    assert {"torch", "transformers", "expunge"} <= set(manifest["versions"])


def test_it_stops_at_the_level_of_rows_it_never_saw(original: Path, tmp_path: Path) -> None:
    rows = world()
    done = forget(
        original, rows.forget, rows.retain, holdout=rows.holdout, out=tmp_path / "out",
        params={"max_steps": 200, "lr": 3e-3},
    )  # fmt: skip
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    level = manifest["stop"]["level"]
    assert level["origin"] == "hold-out rows"
    assert done["stopped_by"] == "level"
    assert done["steps"] < 200
    assert done["forget_nll"] == pytest.approx(level["nll"], rel=0.25)
    assert done["forget_nll"] >= level["nll"] * 0.98


def test_a_level_given_by_hand_ends_the_run(original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path / "out", stop_at="nll=0.5", params={"max_steps": 200})
    assert done["stopped_by"] == "level"
    assert done["steps"] < 200
    assert done["forget_nll"] >= 0.49


def test_the_time_allowed_ends_it_in_good_order(original: Path, tmp_path: Path) -> None:
    done = run(original, tmp_path / "out", max_minutes=0.0, params={"warmup": 0})
    assert done["stopped_by"] == "max-minutes"
    assert done["steps"] == 1


def test_two_seeds_give_two_results(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "a", seed=0)
    run(original, tmp_path / "b", seed=1)
    assert folder_digest(tmp_path / "a") != folder_digest(tmp_path / "b")


def test_global_random_states_are_left_as_they_were(original: Path, tmp_path: Path) -> None:
    import random

    import numpy as np

    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    run(original, tmp_path / "out")
    assert (torch.rand(1), random.random(), np.random.rand()) == expected


def test_only_the_blocks_asked_for_move_bit_for_bit(original: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    decay = {"layers": (-1,), "weight_decay": 0.1, "max_steps": 6}
    run(original, tmp_path / "out", params=decay)
    before = load_file(weight_files(original)[0])
    after = load_file(weight_files(tmp_path / "out")[0])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith("model.layers.1.") for name in moved)


def test_no_retain_rows_means_the_holdout_and_then_bundled_text(
    original: Path, tmp_path: Path
) -> None:
    rows = world()
    options = {"params": {"max_steps": 2, "lr": 1e-3}, "stop_at": "none"}
    held = forget(original, rows.forget, holdout=rows.holdout, out=tmp_path / "a", **options)
    assert held["retain_rows"] == "holdout"
    none = forget(original, rows.forget, out=tmp_path / "b", **options)
    assert none["retain_rows"] == "bundled"


def test_progress_names_the_method_and_nothing_is_printed(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = []
    with listening(heard.append):
        run(original, tmp_path / "out")
    assert capsys.readouterr().out == ""
    steps = [event for event in heard if event.task == "npo" and event.kind == "advance"]
    assert [event.done for event in steps if event.done > 0] == [1, 2, 3, 4]
    assert all(event.total == 4 for event in steps)
    assert "nats" in steps[-1].text


def test_a_change_stacks_on_a_change(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "one")
    run(tmp_path / "one", tmp_path / "two", seed=7)
    manifest = read_manifest(tmp_path / "two")
    assert manifest is not None
    assert manifest["parent"]["digest"] == folder_digest(tmp_path / "one")


def test_a_method_without_a_term_of_its_own_to_keep_ends_at_the_level(
    original: Path, tmp_path: Path
) -> None:
    union = {"legacy_union": True, "max_steps": 30, "warmup": 0}
    done = run(original, tmp_path / "out", method="idk-nll", params=union, stop_at="nll=0.1")
    assert done["stopped_by"] == "level"
    assert done["steps"] < 30
