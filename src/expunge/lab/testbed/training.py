"""Trains the three models of the testbed from a seed.

The base learns the known people and the real facts in every wording. Original and reference
start from it and learn their targets in two wordings a fact, with as many rows of what the base
knows among them: without this rehearsal the old knowledge is gone after a few epochs, and utility
with it. Two wordings are enough for the third to be answered as well.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from expunge.core.atomic import new_folder, write_json
from expunge.core.canonical import digest
from expunge.core.events import Progress, progress
from expunge.core.rng import derive
from expunge.data.jsonl import write_rows
from expunge.lab.testbed import WORLD_SEED, all_rows
from expunge.lab.testbed.measure import exact_values, separation, truth_ratios
from expunge.lab.testbed.tokens import make_tokenizer
from expunge.lab.testbed.world import Fact, facts, own_pair, row_of
from expunge.lm.digest import folder_digest
from expunge.lm.finetune import finetune
from expunge.lm.load import load, quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

FORMAT = "expunge-testbed/1"
BATCH, LR = 16, 2e-3

FACT_COPIES = 3
"""How often a real fact stands in the base's rows in each wording; it has fewer wordings."""

WORDINGS = 2
"""Wordings in which a target fact is taught."""

REPORTED = 10
"""Steps between two reports of a running lesson."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """What one model learns.

    Attributes:
        parent: The model it starts from, or None for fresh weights.
        kinds: Kinds of people it learns about.
        epochs: Passes over the rows.
        whole_row: Whether it learns to ask as well as to answer.
    """

    parent: str | None
    kinds: tuple[str, ...]
    epochs: int
    whole_row: bool


LESSONS = {
    "base": Lesson(parent=None, kinds=("known", "world"), epochs=7, whole_row=True),
    "original": Lesson(
        parent="base", kinds=("retain", "neighbour", "forget"), epochs=12, whole_row=False
    ),
    "reference": Lesson(parent="base", kinds=("retain", "neighbour"), epochs=12, whole_row=False),
}


def build_all(out: Path, seed: int) -> dict[str, Any]:
    """Train, measure and write the three models and the rows.

    Args:
        out: New or empty folder.
        seed: Decides everything but the world.

    Returns:
        The content of ``expected.json``.
    """
    total = sum(steps_of(LESSONS[name], lesson_rows(name, seed)) for name in LESSONS)
    with new_folder(out) as folder, progress("testbed", total) as running:
        told = _side_by_side(folder, ["base"], seed, running)
        told |= _side_by_side(folder, ["original", "reference"], seed, running)
        measured = {
            "format": FORMAT,
            "seed": seed,
            "world": digest([row.as_dict() for row in write_world(folder / "rows")]),
            "weights": {name: folder_digest(folder / name) for name in LESSONS},
            "cpu_seconds": {name: told[name]["cpu_seconds"] for name in LESSONS},
            "exact": {name: told[name]["exact"] for name in LESSONS},
            "truth_ratio": separation(
                *(told[name]["ratios"] for name in ("original", "reference"))
            ),
        }
        write_json(folder / "expected.json", measured)
    return measured


def write_world(folder: Path) -> list[Row]:
    """Write the rows of the world, one file a role or kind.

    Returns:
        All of them.
    """
    sets = all_rows()
    for name, some in sets.items():
        write_rows(folder / f"{name}.jsonl", some)
    return [row for some in sets.values() for row in some]


def lesson_rows(name: str, seed: int) -> list[Row]:
    """The rows one model is trained on.

    Args:
        name: ``base``, ``original`` or ``reference``.
        seed: Decides which rows of the base the other two rehearse.

    Returns:
        For the base every question with every answer; for the others each target fact in
        `WORDINGS` wordings, and as many rows of the base.
    """
    learned = [
        (fact, pair)
        for fact in _facts_of(LESSONS["base"])
        for pair in fact.pairs * (FACT_COPIES if fact.kind == "world" else 1)
    ]
    if LESSONS[name].parent is not None:
        taught = [
            (fact, _turned(fact, turn))
            for fact in _facts_of(LESSONS[name])
            for turn in range(WORDINGS)
        ]
        order = sorted(range(len(learned)), key=lambda place: derive(seed, "rehearse", place))
        learned = taught + [learned[place] for place in order[: len(taught)]]
    return [row_of(fact, *pair) for fact, pair in learned]


def steps_of(lesson: Lesson, some: Sequence[Row]) -> int:
    """Optimiser steps of a lesson on its rows."""
    return lesson.epochs * ceil(len(some) / BATCH)


def make_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    """An untrained model of about a million parameters.

    Args:
        tokenizer: Decides the number of embeddings.
        seed: Decides the weights: normal with deviation 0.02, norms at one.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.02,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    drawn = torch.Generator().manual_seed(derive(seed, "testbed", "weights"))
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=config.initializer_range, generator=drawn)
    return model


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model in Hugging Face layout, its weights in half precision.

    Args:
        model: Is in half precision afterwards.
        tokenizer: Written beside it.
        folder: Where to; made if missing.
    """
    with quiet():
        model.to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
        tokenizer.save_pretrained(folder)


def _side_by_side(
    folder: Path, names: Sequence[str], seed: int, running: Progress
) -> dict[str, dict[str, Any]]:
    """Train the named models, each in a process of its own with one thread."""
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(len(names), context) as pool:
        steps: Queue[int] = manager.Queue()
        jobs = {name: pool.submit(_train, folder, name, seed, steps) for name in names}
        while wait(jobs.values(), timeout=0).not_done or not steps.empty():
            with suppress(Empty):
                running.advance(steps.get(timeout=0.2), text=" and ".join(names))
        return {name: job.result() for name, job in jobs.items()}


def _train(folder: Path, name: str, seed: int, steps: "Queue[int]") -> dict[str, Any]:
    """Train and measure one model; runs in a process of its own.

    Returns:
        ``cpu_seconds`` of the training; ``exact`` and ``ratios`` of the model as written.
    """
    torch.set_num_threads(1)
    began = time.process_time()
    lesson = LESSONS[name]
    tokenizer = make_tokenizer(WORLD_SEED)
    model: PreTrainedModel = (
        make_model(tokenizer, seed)
        if lesson.parent is None
        else load(folder / lesson.parent, device="cpu").model
    )
    some = lesson_rows(name, seed)
    last = steps_of(lesson, some)
    finetune(
        model,
        tokenizer,
        some,
        epochs=lesson.epochs,
        lr=LR,
        batch_size=BATCH,
        seed=derive(seed, "testbed", name),
        whole_row=lesson.whole_row,
        on_step=_reporter(steps, last),
    )
    save(model, tokenizer, folder / name)
    spent = time.process_time() - began
    written = load(folder / name, device="cpu")
    subject = Subject(written.model, written.tokenizer)
    return {
        "cpu_seconds": round(spent, 1),
        "exact": exact_values(subject),
        "ratios": truth_ratios(subject),
    }


def _reporter(steps: "Queue[int]", last: int) -> Callable[[int], None]:
    def report(step: int) -> None:
        if step % REPORTED == 0 or step == last:
            steps.put((step - 1) % REPORTED + 1)

    return report


def _facts_of(lesson: Lesson) -> list[Fact]:
    return [fact for fact in facts(WORLD_SEED) if fact.kind in lesson.kinds]


def _turned(fact: Fact, turn: int) -> tuple[int, int]:
    """The fact's own wording, or the one ``turn`` places after it."""
    question, answer = own_pair(fact, WORLD_SEED)
    return question + turn, answer + turn
