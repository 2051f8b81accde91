"""The driver of kind `reinforcement`: its reference, its draws, going on, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from trl.trainer import base_trainer

from expunge.core.errors import ExpungeError
from expunge.core.events import Event, listening
from expunge.core.registry import methods
from expunge.data.encode import Encoder
from expunge.engine.change import load_change, revert
from expunge.engine.check import check_forget
from expunge.engine.reinforcement import school
from expunge.engine.reinforcement.lessons import answer_length, lessons_of, prompt_ids
from expunge.engine.reinforcement.trainer import RolloutTrainer, config_of, data_of, untouched
from expunge.engine.run import forget
from expunge.lm.digest import folder_digest
from expunge.lm.load import quiet
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer
from expunge.testing.methods import stage, world

SMALL = {"batch_size": 4, "accumulation": 1, "num_generations": 4, "new_tokens": 8, "warmup": 0}
QUICK = {"max_steps": 4, "lr": 1e-3, "steer": "never", **SMALL}
STEERED = {"steer": "always", "steer_lr": 4e-3, "steer_until": 1.0}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage(tmp_path_factory.mktemp("models"))


def run(original: Path, out: Path, method: str = "rule", **options: Any) -> dict[str, Any]:
    rows = world()
    params = {**QUICK, **options.pop("params", {})}
    given = {"stop_at": "none", "method": method, "params": params, "out": out, **options}
    return forget(original, given.pop("rows", rows.forget), rows.retain, **given)


def rollouts(out: Path) -> list[dict[str, float]]:
    manifest = json.loads((out / "change.json").read_text())
    return list(manifest["record"]["rollouts"])


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[RolloutTrainer]:
    """Every trainer that a run makes."""
    made: list[RolloutTrainer] = []

    class Watched(RolloutTrainer):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            weights = {n: p.detach().clone() for n, p in self.model.named_parameters()}
            self.start: dict[str, Tensor] = weights
            made.append(self)

    monkeypatch.setattr(school, "RolloutTrainer", Watched)
    return made


# --------------------------------------------------------------------------------- reference


def test_the_reference_is_the_model_after_its_warm_start(
    original: Path, tmp_path: Path, seen: list[RolloutTrainer]
) -> None:
    run(original, tmp_path / "a", params=STEERED)
    before = load_file(original / "model.safetensors")
    reference = dict(seen[0].ref_model.named_parameters())
    assert all(torch.equal(seen[0].start[name], reference[name]) for name in reference)
    assert not all(torch.equal(before[name], reference[name]) for name in reference)
    assert rollouts(tmp_path / "a")[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rollouts(tmp_path / "a")[-1]["kl"] > 1e-5


def test_left_alone_the_reference_would_be_the_original(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: the trainer loads it from where the configuration says the model came from."""
    monkeypatch.setattr(school, "untouched", lambda model, _: untouched(model, str(original)))
    run(original, tmp_path / "a", params=STEERED)
    assert rollouts(tmp_path / "a")[0]["kl"] > 1e-3


def test_with_an_adapter_the_reference_is_a_copy_of_it_that_stays(
    original: Path, tmp_path: Path, seen: list[RolloutTrainer]
) -> None:
    digest = folder_digest(original)
    run(original, tmp_path / "a", adapter="lora", params={**STEERED, "lr": 1e-2})
    assert seen[0].ref_model is None
    start = seen[0].start
    copies = {name: start[name] for name in start if ".ref." in name}
    assert copies
    assert all(torch.equal(copies[n], start[n.replace(".ref.", ".default.")]) for n in copies)
    assert any(bool(t.any()) for n, t in copies.items() if "lora_B" in n)  # it was steered
    assert rollouts(tmp_path / "a")[0]["kl"] == pytest.approx(0, abs=1e-6)
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert not any("ref" in name for name in saved)
    moved = [n for n in saved if "lora_B" in n]
    named = {n.replace(".ref.weight", ".weight"): t for n, t in copies.items()}
    assert any(not torch.equal(saved[n], named[n]) for n in moved)
    load_change(tmp_path / "a")
    revert(tmp_path / "a")
    assert folder_digest(original) == digest


# ------------------------------------------------------------------------------------- draws


def test_advantages_are_those_of_the_group(
    original: Path, tmp_path: Path, seen: list[RolloutTrainer]
) -> None:
    run(original, tmp_path / "a", params={"max_steps": 1, "temperature": 2.0})
    logs = seen[0]._logs
    groups = torch.tensor(list(logs["rewards"]["refusal"])).nan_to_num(0).view(4, 4)
    groups += torch.tensor(list(logs["rewards"]["answer"])).nan_to_num(0).view(4, 4)
    spread = groups.std(1, keepdim=True)
    wanted = (groups - groups.mean(1, keepdim=True)) / (spread + 1e-4)
    assert torch.tensor(list(logs["advantages"])).view(4, 4) == pytest.approx(wanted, abs=1e-5)
    assert rollouts(tmp_path / "a")[0]["zero_variance"] == float((spread == 0).float().mean())


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3", "gpt2", "gpt_neox"])
def test_padded_rows_are_scored_as_they_are_alone(family: str, tmp_path: Path) -> None:
    trainer, ids = scoring(family, tmp_path)
    alone = [logp(trainer, [row]) for row in ids]
    together = logp(trainer, ids)
    for one, row in zip(alone, together, strict=True):
        assert row == pytest.approx(one[0], abs=2e-5)


def test_without_positions_a_family_that_learnt_them_is_scored_elsewhere(tmp_path: Path) -> None:
    trainer, ids = scoring("gpt2", tmp_path)
    right = logp(trainer, ids)
    trainer.model._forward_pre_hooks.clear()
    wrong = logp(trainer, ids)
    assert wrong[0] == pytest.approx(right[0], abs=2e-5)  # the longest row has no padding
    assert (wrong[1] - right[1]).abs().max() > 1e-3


def scoring(family: str, folder: Path) -> tuple[RolloutTrainer, list[list[int]]]:
    tokenizer = tiny_tokenizer(["a b c d"], vocab=300)
    model = tiny_model(family, vocab=len(tokenizer))
    params = methods.params("rule", {**SMALL, "beta": 0.0})
    with quiet():
        args = config_of(
            folder, params, steps=1, lr=0.0, warmup=0, new_tokens=3, seed=0, use_cpu=True
        )
        trainer = RolloutTrainer(
            prompts=[[1, 5]], precision="float32", model=model, args=args,
            processing_class=tokenizer, reward_funcs=[lambda **_: []],
            train_dataset=data_of([0] * 4),
        )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, 200, (n,), generator=draw).tolist() for n in (12, 7, 9)]
    return trainer, rows


@torch.no_grad()
def logp(trainer: RolloutTrainer, rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    trainer.model.eval()
    found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 3)
    return found


def test_parts_of_a_step_change_nothing(original: Path, tmp_path: Path) -> None:
    run(original, tmp_path / "a", params={"max_steps": 2, "batch_size": 4, "accumulation": 1})
    run(original, tmp_path / "b", params={"max_steps": 2, "batch_size": 1, "accumulation": 4})
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-4, atol=1e-5)


def test_conversations_are_judged_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards get strings, without special tokens, whatever shape the prompt has."""
    rows = [
        Row(
            id=f"{n}",
            messages=({"role": "user", "content": f"Where is {n}?"},
                      {"role": "assistant", "content": f"It is {n}."}),
        )
        for n in range(8)
    ]  # fmt: skip
    tokenizer = tiny_tokenizer([row.reply for row in rows], chat=True, vocab=300)
    path = tmp_path / "model"
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    heard: list[Any] = []
    monkeypatch.setattr(methods.load("rule"), "is_refusal", lambda said: heard.append(said) or 0.0)
    forget(
        path, rows[:4], rows[4:], method="rule", params={**QUICK, "max_steps": 1},
        stop_at="none", out=tmp_path / "out",
    )  # fmt: skip
    assert len(heard) >= 12  # an answer without a word is not looked at
    assert all(isinstance(said, str) and "<eos>" not in said for said in heard)


def test_long_prompts_lose_their_beginning_but_not_what_opens_every_row() -> None:
    tokenizer = tiny_tokenizer(["one two three four five six"], kind="word")
    row = Row(id="a", prompt="one two three four five six", completion=" one")
    lesson, encoder = lessons_of([row], "forget")[0], Encoder(tokenizer, 64)
    whole = prompt_ids(encoder, lesson, 64)
    assert prompt_ids(encoder, lesson, 4) == [whole[0], *whole[-3:]]
    assert whole[0] == tokenizer.bos_token_id


def test_the_length_of_an_answer() -> None:
    auto = methods.params("rule", {})
    assert [answer_length(n, 1000, auto) for n in (3, 40)] == [24, 80]
    assert answer_length(40, 100, auto) == 50
    assert answer_length(40, 100, methods.params("rule", {"new_tokens": 300})) == 98


# ---------------------------------------------------------------------------- ends and restarts


class Cut(Exception):
    """Stands for a run that was killed."""


def cutting(at: int, task: str) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if event.kind == "advance" and event.task == task and event.done == at:
            raise Cut

    return listen


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_run_that_was_cut_goes_on_bit_for_bit(
    original: Path, tmp_path: Path, adapter: str | None
) -> None:
    options: dict[str, Any] = {"adapter": adapter, "params": {**STEERED, "lr": 1e-3}}
    whole = run(original, tmp_path / "whole", **options)
    with listening(cutting(3, "rule")), pytest.raises(Cut):
        run(original, tmp_path / "cut", **options)
    with listening(cutting(1, "steering")):  # the warm start is not made again
        resumed = run(original, tmp_path / "cut", **options)
    assert resumed["resumed_from"] == 2
    assert resumed["steps"] == whole["steps"] == 4
    assert folder_digest(tmp_path / "cut") == folder_digest(tmp_path / "whole")
    assert rollouts(tmp_path / "cut") == rollouts(tmp_path / "whole")


def test_what_the_trainer_leaves_in_a_model_is_taken_away(
    original: Path, tmp_path: Path, seen: list[RolloutTrainer]
) -> None:
    run(original, tmp_path / "a", params={"max_steps": 1})
    texts = [(folder / "config.json").read_text() for folder in (original, tmp_path / "a")]
    assert json.loads(texts[0]) == json.loads(texts[1])
    assert "forward" not in vars(seen[0].model)
    assert not seen[0].model._forward_pre_hooks
    assert not list((tmp_path / "a").glob("checkpoint*"))


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        ({"stop_at": "nll=0.01"}, "level"),
        ({"max_minutes": 1e-6}, "max-minutes"),
        ({}, "steps"),
    ],
)
def test_what_ends_a_run(
    original: Path, tmp_path: Path, options: dict[str, Any], ended: str
) -> None:
    summary = run(original, tmp_path / "a", params={"lr": 1e-5}, **options)
    assert summary["stopped_by"] == ended
    assert {"out", "method", "steps", "resumed_from", "seconds", "weights_changed", "forget_nll",
            "retain_nll", "utility_drop", "stopped_by"} <= summary.keys()  # fmt: skip
    assert {"reward", "kl", "zero_variance", "reward_before"} <= summary["details"].keys()


def test_a_spent_budget_ends_a_run(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "a", params={"lr": 0.05, "max_steps": 9}, utility_budget=0.01)
    assert caught.value.code == "E-RUN-003"
    assert "after 9 steps" not in caught.value.found


def test_a_run_that_diverges_says_so(original: Path, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError) as caught:
        run(original, tmp_path / "a", params={"lr": 1e9, "max_steps": 9})
    assert caught.value.code == "E-RUN-002"


def test_bf16_computes_otherwise_over_float32_weights(original: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bf16"):
        run(original, tmp_path / precision, params={"max_steps": 2, "precision": precision})
    full, half = (load_file(tmp_path / p / "model.safetensors") for p in ("float32", "bf16"))
    assert all(weight.dtype == torch.float32 for weight in half.values())
    assert any(not torch.equal(full[name], half[name]) for name in full)


@pytest.mark.parametrize(
    "more",
    [
        {"adapter": "lora", "params": {"base_bits": 4, **STEERED, "lr": 1e-2}},
        {"params": {"checkpointing": True}},
        {"params": {"layers": (0,)}},
        {"params": {"loss": "bnpo", "beta": 0.0, "schedule": "constant"}},
    ],
)
def test_other_settings_run(original: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    params = {"max_steps": 2, **more.pop("params")}
    assert run(original, tmp_path / "a", params=params, **more)["weights_changed"] > 0
    if "layers" in params:
        before, after = (load_file(f / "model.safetensors") for f in (original, tmp_path / "a"))
        assert all(".layers.0." in n for n in before if not torch.equal(before[n], after[n]))


def test_a_folder_called_like_a_package_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "requests").mkdir()
    code = "import expunge.engine.reinforcement.trainer, sys; assert 'requests' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_nothing_is_sent_anywhere(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("the library wanted to tell somebody")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", fail)
    run(original, tmp_path / "a", params={"max_steps": 1})


# ---------------------------------------------------------------------- before weights load


def check(original: Path, out: Path, **options: Any) -> Any:
    rows = world()
    given = {"method": "rule", "out": out, **options}
    return check_forget(original, given.pop("forget", rows.forget), rows.retain, **given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"params": {"packing": True}}, "packing"),
        ({"params": {"precision": "bf16-masters"}}, "masters"),
        ({"params": {"base_bits": 4}}, "base_bits"),
        ({"wrappers": ["coreset"]}, "coreset"),
    ],
)
def test_what_cannot_work_is_refused_by_name(
    original: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    problems = check(original, tmp_path / "a", **options).problems
    assert {problem.code for problem in problems} == {"E-USE-006"}
    assert words in problems[0].found


def test_several_processes_are_refused(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = [problem.found for problem in check(original, tmp_path / "a").problems]
    assert any("Several processes" in text for text in found)


@pytest.mark.parametrize("method", ["rule", "purge"])
def test_running_text_is_refused(original: Path, tmp_path: Path, method: str) -> None:
    text = Row(id="text", text="Some words that ask for nothing at all.")
    report = check(original, tmp_path / "a", method=method, forget=[text])
    assert [problem.code for problem in report.problems] == ["E-USE-007"]


def test_estimates_know_the_draws(original: Path, tmp_path: Path) -> None:
    def needs(**params: Any) -> dict[str, float]:
        given = {"max_steps": 50, "new_tokens": 16, **params}
        report = check(original, tmp_path / "a", params=given)
        assert report.plan is not None, report.problems
        return dict(report.estimate)

    plain = needs()
    assert needs(num_generations=32)["seconds"] > plain["seconds"]
    assert needs(new_tokens=60)["seconds"] > plain["seconds"]
    assert needs(steer="never")["seconds"] < plain["seconds"]
    assert needs(beta=0.0)["memory_bytes"] < plain["memory_bytes"]


@pytest.mark.parametrize("method", ["rule", "purge"])
def test_the_steps_that_check_tells_are_those_of_the_run(
    original: Path, tmp_path: Path, method: str
) -> None:
    params = {**QUICK, "max_steps": None, "epochs": 1, "batch_size": 8}
    report = check(original, tmp_path / "a", method=method, params=params)
    summary = run(original, tmp_path / "a", method, params=params)
    assert summary["steps"] == report.resolved["steps"] > 1
