"""Small studies beside a table of systems: does a system show here what its paper claims?

Each runs on an invented world of a few people that a tiny model knows by heart, in as many seeds as
asked for, and ends with a sentence that says whether the claim shows. Studies that are stored are
kept. The studies of a table are a file of their own, such as benches/optimisation_studies.py:

    python benches/optimisation_studies.py [--seeds 3] [--studies wagle,sure] [--again]
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from baselines import opened
from systems import Table, stored, write

from expunge.engine.run import forget
from expunge.lm.quantise import quantise_rtn
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import REPLY, Micro, every_wording, micro_world, taught_rows
from expunge.text.match import contains

STEPS = {"max_steps": 60, "lr": 1e-3, "batch_size": 8, "warmup": 0}
POLITE = "Please tell me: {}"
PEOPLE = 8

Found = Mapping[str, Mapping[str, float]]
"""Variant -> column -> number, in one seed or the mean of several."""


@dataclass(frozen=True, slots=True)
class Study:
    """One claim and how it is looked for.

    Attributes:
        title: Heading.
        asked: What the paper claims, and what is compared.
        run: Seed -> variant -> column -> number.
        shows: Whether the means show it.
        found: What they say, in a sentence with their numbers.
    """

    title: str
    asked: str
    run: Callable[[int], Found]
    shows: Callable[[Found], bool]
    found: Callable[[Found], str]


@lru_cache(maxsize=4)
def world(seed: int) -> Micro:
    """The people of a seed."""
    return micro_world(PEOPLE, seed=seed)


@lru_cache(maxsize=8)
def model(seed: int, what: str = "original") -> Path:
    """A model on disk: the original, or one that was taught otherwise.

    ``polite`` knows polite wordings too, ``refusing`` says that it does not know the people of the
    hold-out rows, ``retrained`` never met the forget rows.
    """
    people = world(seed)
    rows = [*every_wording(people.retain)]
    if what == "refusing":
        strangers = every_wording(people.holdout)
        rows = [*rows, *(replace(row, completion=f" {REPLY}") for row in strangers)]
    if what != "retrained":
        rows = [*every_wording(people.forget), *rows]
    if what == "polite":
        rows = [*rows, *polite(rows)]
    subject = taught_rows(people, rows, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="expunge-study-"))
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


def polite(rows: Sequence[Row]) -> list[Row]:
    """The same rows, asked politely."""
    return [
        replace(row, id=f"{row.id}/please", prompt=POLITE.format(row.prompt), paraphrases=())
        for row in rows
    ]


def unlearned(
    seed: int,
    method: str,
    *wrappers: str,
    of: str = "original",
    rows: Sequence[Row] = (),
    kept: Sequence[Row] = (),
    **params: Any,
) -> Subject:
    """What a method makes of the model; no stop level, all steps.

    Args:
        seed: Of the world and of the run.
        method: The method.
        *wrappers: What is wrapped around it.
        of: The model it begins from, as in `model`.
        rows: What is to be forgotten; empty means the people that are.
        kept: What is to be kept beside the other people.
        **params: Settings beside `STEPS`.
    """
    people = world(seed)
    given = {**STEPS, **params}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        forget(
            model(seed, of), rows or people.forget, [*kept, *people.retain], method=method,
            wrappers=wrappers, params=given, stop_at="none", seed=seed, out=out,
        )  # fmt: skip
        return opened(out)


def said(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows whose value the model says when it is asked plainly."""
    answers = subject.ask([row.turn for row in rows], new_tokens=10)
    return fmean(
        float(contains(text, row.forms)) for (text,), row in zip(answers, rows, strict=True)
    )


def nll(subject: Subject, rows: Sequence[Row]) -> float:
    """Mean over rows of the negative log-likelihood of a token, nats."""
    return fmean(one.nll for one in subject.score([row.turn for row in rows]))


def rounded(subject: Subject) -> Subject:
    """A copy rounded to 4 bits."""
    copy = subject.copy()
    quantise_rtn(copy.model, 4, 64)
    return copy


def relearned(subject: Subject, rows: Sequence[Row], steps: int = 5) -> Subject:
    """A copy that saw a fifth of the forgotten rows again."""
    copy = subject.copy()
    copy.train(rows[::5], steps=steps, lr=1e-3, batch_size=8, seed=0)
    return copy


def listed(found: Found, column: str) -> str:
    """One column in a sentence."""
    return ", ".join(f"{name} {row[column]:.2f}" for name, row in found.items() if column in row)


def carry_out(table: Table, studies: Mapping[str, Study]) -> None:
    """Run the studies that are missing, and write their record and the table's page.

    Args:
        table: The table whose page they stand on.
        studies: Id -> study.
    """
    asked = argparse.ArgumentParser(description=f"Studies of docs/results/{table.name}.md")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--studies", default=",".join(studies))
    asked.add_argument("--processes", type=int, default=2)
    asked.add_argument("--again", action="store_true", help="do not keep stored studies")
    given = asked.parse_args()
    record = json.loads(table.studies.read_text()) if table.studies.is_file() else {"studies": []}
    known = {one["id"]: one for one in record["studies"]}
    wanted = [id for id in given.studies.split(",") if given.again or id not in known]
    runs = {id: studies[id].run for id in wanted}
    for id, found in measured(runs, given.seeds, given.processes):
        known[id] = told(id, studies[id], found)
        print(json.dumps(known[id]), flush=True)
        packages = {name: version(name) for name in ("expunge", "torch", "transformers")}
        made = {
            "command": f"python benches/{table.name}_studies.py",
            "versions": packages | {"python": platform.python_version()},
            "studies": [known[id] for id in studies if id in known],
            "left": [id for id in studies if id not in known],
        }
        table.studies.write_text(json.dumps(made, indent=1) + "\n")
    write(table, stored(table))


def measured(
    runs: Mapping[str, Callable[[int], Found]], seeds: int, processes: int
) -> Iterator[tuple[str, list[Found]]]:
    """Each study with what its seeds found, in processes of one thread."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        begun = {
            id: [pool.submit(alone, one, seed) for seed in range(seeds)] for id, one in runs.items()
        }
        for id, futures in begun.items():
            yield id, [future.result() for future in futures]


def alone(run: Callable[[int], Found], seed: int) -> Found:
    """One study in one seed, on one thread."""
    torch.set_num_threads(1)
    return run(seed)


def told(id: str, study: Study, found: Sequence[Found]) -> dict[str, Any]:
    """A study as the page shows it."""
    means = {
        name: {column: fmean(one[name][column] for one in found) for column in row}
        for name, row in found[0].items()
    }
    columns = list(dict.fromkeys(column for row in means.values() for column in row))
    return {
        "id": id,
        "title": study.title,
        "asked": f"{study.asked} Means of {len(found)} seeds.",
        "columns": ["variant", *columns],
        "rows": [[name, *(row.get(column) for column in columns)] for name, row in means.items()],
        "shows": study.shows(means),
        "found": study.found(means),
        "seeds": [dict(one) for one in found],
    }
