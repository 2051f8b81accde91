"""TOFU for one machine: 20 of its authors, and two models of a million parameters that know them.

The last two authors are forgotten, as ``forget10`` does with 20 of 200. The files written have the
upstream format, so the benchmark reads them like the whole data set:

    expunge bench tofu:forget10 --data OUT/data --model OUT/original --reference OUT/reference

Both models learn their rows by heart from nothing. They generalise to no other wording and know
nothing of the real world, so of model utility only the part on retain rows can be measured.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from expunge.benchmarks import tofu
from expunge.benchmarks.tofu.files import ROWS_PER_AUTHOR, key, read_records
from expunge.core.atomic import new_folder, write_text
from expunge.core.events import progress
from expunge.core.rng import derive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from expunge.requests.rows import Row

SPLIT = "forget10"
KEPT_AUTHORS = 18
EPOCHS, BATCH, LR = 45, 16, 3e-3
VOCABULARY = 2048
POSITIONS = 512
"""Room for the longest question and an answer of 200 tokens."""

REPORTED = 5
"""Steps between two reports of a training process."""

LESSONS = {"original": ("retain", "forget"), "reference": ("retain",)}
"""Model -> the rows it learns."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train, as it is handed to a process of its own."""

    data: Path
    folder: Path
    name: str
    seed: int
    epochs: int

    def rows(self) -> list["Row"]:
        """The rows it learns."""
        roles = tofu.splits(self.data, SPLIT, tofu.Params())
        return [row for role in LESSONS[self.name] for row in roles[role]]

    def steps(self) -> int:
        """Optimiser steps it takes."""
        return self.epochs * ceil(len(self.rows()) / BATCH)


def build_tofu(data: Path, out: Path, seed: int = 0, *, epochs: int = EPOCHS) -> dict[str, Any]:
    """Cut TOFU to 20 authors and train the original and the reference.

    About 160 CPU-seconds a model; the two are trained side by side.

    Args:
        data: Folder with the upstream files.
        out: New or empty folder; gets ``data/``, ``original/`` and ``reference/``.
        seed: Decides the weights and the order of the rows.
        epochs: Passes over the rows; fewer than the default learn less than by heart.

    Returns:
        The three paths, the number of ``rows`` of each role, and ``cpu_seconds`` of each model.

    Raises:
        ExpungeError: For files that are missing or do not fit, E-USE-004 when ``out`` is in use.
    """
    with new_folder(out) as folder:
        rows = write_cut(Path(data), folder / "data")
        spent = _train_all(
            [Job(folder / "data", folder / name, name, seed, epochs) for name in LESSONS]
        )
    paths = {name: str(Path(out) / name) for name in ("data", *LESSONS)}
    return {**paths, "rows": rows, "cpu_seconds": spent}


def write_cut(data: Path, folder: Path) -> dict[str, int]:
    """Write the files of 20 authors: the first 18 are kept, the last two forgotten.

    Returns:
        Role -> number of rows.

    Raises:
        ExpungeError: When the upstream files do not fit together.
    """
    kept = KEPT_AUTHORS * ROWS_PER_AUTHOR
    retain = read_records(data / "retain99.json")[:kept]
    chosen = {key(record) for record in retain}
    cut = {
        "forget10": read_records(data / "forget01.json"),
        "forget10_perturbed": read_records(data / "forget01_perturbed.json"),
        "retain90": retain,
        "retain_perturbed": [
            record
            for record in read_records(data / "retain_perturbed.json")
            if key(record) in chosen
        ],
        "real_authors_perturbed": read_records(data / "real_authors_perturbed.json"),
        "world_facts_perturbed": read_records(data / "world_facts_perturbed.json"),
    }
    for name, records in cut.items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(folder / f"{name}.json", "".join(lines))
    roles = tofu.splits(folder, SPLIT, tofu.Params())
    return {role: len(rows) for role, rows in roles.items()}


def make_tokenizer(rows: Sequence["Row"]) -> "PreTrainedTokenizerFast":
    """Learn a byte-level BPE tokenizer from all rows, forgotten ones included.

    Both models need the same one: what was never in it could not be forgotten by the weights.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<bos>", "<eos>"]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator((f"{row.prompt}{row.completion}" for row in rows), trainer)
    learned.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", specials.index("<bos>"))]
    )
    pad, bos, eos = specials
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=learned, pad_token=pad, bos_token=bos, eos_token=eos
    )
    return tokenizer


def _train_all(jobs: Sequence[Job]) -> dict[str, float]:
    """Train all models side by side, one process and one thread each."""
    context = get_context("spawn")
    total = sum(job.steps() for job in jobs)
    with (
        progress("tofu", total) as running,
        context.Manager() as manager,
        ProcessPoolExecutor(len(jobs), context) as pool,
    ):
        steps: Queue[int] = manager.Queue()
        futures = {job.name: pool.submit(_train, job, steps) for job in jobs}
        while wait(futures.values(), timeout=0).not_done or not steps.empty():
            with suppress(Empty):
                running.advance(steps.get(timeout=0.2))
        return {name: future.result() for name, future in futures.items()}


def _train(job: Job, steps: "Queue[int]") -> float:
    """Train and write one model.

    Returns:
        CPU-seconds.
    """
    import torch

    from expunge.lab.testbed.training import make_model, save
    from expunge.lm.finetune import finetune

    torch.set_num_threads(1)
    began = time.process_time()
    tokenizer = make_tokenizer(Job(job.data, job.folder, "original", 0, 0).rows())
    model = make_model(tokenizer, job.seed)
    model.config.max_position_embeddings = POSITIONS  # rotary: no weights depend on it
    finetune(
        model,
        tokenizer,
        job.rows(),
        epochs=job.epochs,
        lr=LR,
        batch_size=BATCH,
        seed=derive(job.seed, "tofu", job.name),
        on_step=_reporter(steps, job.steps()),
    )
    save(model, tokenizer, job.folder)
    return round(time.process_time() - began, 1)


def _reporter(steps: "Queue[int]", last: int) -> Callable[[int], None]:
    def report(step: int) -> None:
        if step % REPORTED == 0 or step == last:
            steps.put((step - 1) % REPORTED + 1)

    return report
