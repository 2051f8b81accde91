"""``expunge bench lm-eval:TASK,TASK``: tasks of lm-evaluation-harness, offline, on any model.

A task is looked for among the task files (``*.yaml``) of the data folder, then among those that
come with the harness, whose data must be in the local cache of the hub. Nothing is fetched. Files
that a task of the data folder names are taken from that folder; a task file that brings code
(``!function``) is refused, and its templates are filled in a sandbox.

    out/lm-eval.json    every number with n, standard error and interval, and the values of the rows

Reference: Lessons from the Trenches on Reproducible Evaluation of Language Models (2024).
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError, nearest, raise_all
from expunge.core.params import param, resolve
from expunge.core.paths import locked
from expunge.engine.check import Report
from expunge.engine.estimate import EFFICIENCY, matrix_speed
from expunge.lab.task_files import read_task, task_files
from expunge.lm.folder import Folder, inspect_folder

if TYPE_CHECKING:
    from expunge.lm.load import Loaded

NAME = "lm-eval"
FORMAT = "unlearning-harness/1"
RESULT = "lm-eval.json"

RESAMPLES = 1000
"""Resamples for the standard error of numbers that are no mean."""

ROWS, TOKENS = 1000, 512
"""Rows of a task and tokens of a row, where nothing is known of them."""

DEVIATIONS = 1.96
"""Standard errors on either side of a number in its 95% interval."""

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How tasks are put."""

    shots: int | None = param(
        None, help="examples before a question; none: as the task says", low=0
    )
    rows: int | None = param(None, help="most rows of a task; none: all", low=1)
    chat: bool = param(False, help="put questions in the model's chat template")
    batch_size: int = param(8, help="rows of one forward pass", low=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Tasks of the harness made concrete.

    Attributes:
        tasks: A name of the harness's own, or the configuration of a task file.
        model: The model or change to be measured.
        params: How tasks are put.
        out: Folder of the result.
        seed: Of the examples.
    """

    tasks: Sequence[str | dict[str, Any]]
    model: Folder
    params: Params
    out: Path
    seed: int


def run_harness(
    tasks: str | None,
    *,
    model: str | Path | None,
    data: str | Path | None = None,
    out: str | Path | None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a model on tasks of the harness.

    Args:
        tasks: Their names, with commas between them.
        model: A model, an adapter or a change.
        data: Folder with task files and the data they name.
        out: Folder of the result.
        params: Parameters, see `Params`.
        seed: Decides which examples stand before a question.

    Returns:
        The content of ``lm-eval.json``.

    Raises:
        ExpungeError: For bad input, all problems at once, before weights load; E-REQ-001 without
            the extra ``eval``.
    """
    run = prepare(tasks, model=model, data=data, out=out, params=params, seed=seed)
    _installed()
    run.out.mkdir(parents=True, exist_ok=True)
    with locked(run.out):
        result = _measured(run)
        write_json(run.out / RESULT, result)
    return {**result, "report": str(run.out / RESULT)}


def check_harness(tasks: str | None, **asked: Any) -> Report:
    """What is wrong with `run_harness`, and what it will need, before weights load."""
    report = Report(estimate={"seconds": 0.0, "memory_bytes": 0.0, "disk_bytes": 0.0})
    run = report.attempt(lambda: prepare(tasks, **asked))
    report.attempt(_installed)
    if run is not None:
        tokens = len(run.tasks) * (run.params.rows or ROWS) * TOKENS
        speed = matrix_speed() * EFFICIENCY
        report.estimate["seconds"] = round(2 * run.model.parameters * tokens / speed)
        report.estimate["memory_bytes"] = 1.2 * run.model.bytes
        report.resolved |= asdict(run.params)
    return report


def prepare(
    tasks: str | None,
    *,
    model: str | Path | None,
    data: str | Path | None = None,
    out: str | Path | None,
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Run:
    """Check everything that can be checked without the harness and without weights.

    Raises:
        ExpungeError: E-USE-001 to E-USE-007, E-DATA-001, and what is wrong with the model's folder.
    """
    names = [name.strip() for name in (tasks or "").split(",") if name.strip()]
    needed = {"a task, as in lm-eval:TASK": names, "--model": model, "--out": out}
    raise_all([_not_given(what) for what, value in needed.items() if not value])
    folder = inspect_folder(str(model))
    raise_all(folder.problems)
    known = {} if data is None else task_files(Path(data))
    return Run(
        tasks=[
            read_task(known[name], Path(str(data))) if name in known else name for name in names
        ],
        model=folder,
        params=resolve(Params, params or {}, NAME),
        out=Path(str(out)),
        seed=seed,
    )


def _not_given(what: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"{what} was not given.",
        "expunge bench lm-eval:TASK,TASK --model DIR --out DIR [--data DIR].",
        "Add it.",
    )


def _installed() -> None:
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise ExpungeError(
            "E-REQ-001",
            "lm-evaluation-harness is not installed.",
            "the extra 'eval'.",
            "Install expunge[eval]; 'expunge bench general' works without it.",
        )


def _measured(run: Run) -> dict[str, Any]:
    with _offline(), TemporaryDirectory() as cache:
        from expunge.engine.part_files import parts_of
        from expunge.engine.runtime import attach
        from expunge.lm.load import load, quiet

        loaded = load(run.model.path)
        for part in parts_of(run.model):
            attach(loaded.model, part)
        with quiet(), _sandboxed():
            found = _evaluated(run, loaded, cache)
    runtime = (loaded.manifest or {}).get("runtime") or {}
    return {
        "format": FORMAT,
        "harness": f"lm-eval {found['lm_eval_version']}",
        "model": str(run.model.path),
        "digest": loaded.digest,
        "seed": run.seed,
        "params": asdict(run.params),
        "note": "the guard in front of the model was passed by" if "guard" in runtime else "",
        "tasks": {name: _task(found, name) for name in sorted(found["samples"])},
    }


def _evaluated(run: Run, loaded: "Loaded", cache: str) -> dict[str, Any]:
    """What the harness returns.

    Raises:
        ExpungeError: E-USE-001 for an unknown task, E-DATA-001 for data that is not here,
            E-DATA-003 for a template that does not fit its rows, E-MODEL-004 for one that reaches
            beyond them.
    """
    from jinja2.exceptions import SecurityError, TemplateError
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = [task for task in run.tasks if isinstance(task, str)]
    manager = TaskManager(include_defaults=bool(own))
    raise_all([_unknown(name, run, manager) for name in own if not manager.match_tasks([name])])
    try:
        found: dict[str, Any] | None = simple_evaluate(
            HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=run.params.batch_size),
            tasks=[task if isinstance(task, str) else _cached(task, cache) for task in run.tasks],
            task_manager=manager,
            num_fewshot=run.params.shots,
            limit=run.params.rows,
            apply_chat_template=run.params.chat,
            bootstrap_iters=RESAMPLES,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
            fewshot_random_seed=run.seed,
        )
    except OSError as error:
        raise ExpungeError(
            "E-DATA-001",
            f"The data of {', '.join(own) or 'a task'} is not on this machine: {error}.",
            "data in the local cache of the hub, or a task file with data_files beside it.",
            "Write a task file into a folder with its data and give --data.",
        ) from error
    except TemplateError as error:
        raise ExpungeError(
            "E-MODEL-004" if isinstance(error, SecurityError) else "E-DATA-003",
            f"A template of a task: {error}.",
            "templates that use the columns of the rows and nothing else.",
            "Correct the task file.",
        ) from error
    return found or {}


def _unknown(name: str, run: Run, manager: Any) -> ExpungeError:
    given = [str(task["task"]) for task in run.tasks if not isinstance(task, str)]
    return ExpungeError(
        "E-USE-001",
        f"There is no task {name}.",
        "a task of the harness, or the 'task' of a .yaml file in the folder of --data.",
        nearest(name, [*given, *get_close_matches(name, manager.all_tasks, 5)]),
    )


def _cached(task: Mapping[str, Any], cache: str) -> dict[str, Any]:
    """A task whose data are prepared in a folder that goes away again."""
    return {**task, "dataset_kwargs": {**(task.get("dataset_kwargs") or {}), "cache_dir": cache}}


def _task(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The numbers of one task, each with its error and its rows."""
    results, samples = found["results"][name], found["samples"][name]
    values = {}
    for key, value in results.items():
        metric, _, how = key.partition(",")
        if not how or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = results.get(f"{metric}_stderr,{how}")
        error = float(error) if isinstance(error, int | float) else None
        per_row = {
            str(sample["doc_id"]): float(sample[metric])
            for sample in samples
            if sample.get("filter", how) == how and _is_number(sample.get(metric))
        }
        values[key] = {
            "value": float(value),
            "stderr": error,
            "interval": None if error is None else _interval(float(value), error),
            "per_row": per_row,
        }
    return {
        "version": found["versions"].get(name),
        "shots": found["n-shot"].get(name),
        "n": found["n-samples"][name]["effective"],
        "values": values,
    }


def _is_number(value: object) -> bool:
    import numpy as np

    return isinstance(value, int | float | np.number)


def _interval(value: float, error: float) -> list[float]:
    return [value - DEVIATIONS * error, value + DEVIATIONS * error]


@contextmanager
def _offline() -> Iterator[None]:
    """No library asks the hub, whether it was imported before or is imported now."""
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    import datasets
    from huggingface_hub import constants

    settings = [(constants, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE")]
    settings = [(module, name) for module, name in settings if hasattr(module, name)]
    kept = [getattr(module, name) for module, name in settings]
    try:
        for module, name in settings:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(settings, kept, strict=True):
            setattr(module, name, value)
        for name, said in before.items():
            os.environ.pop(name) if said is None else os.environ.update({name: said})


@contextmanager
def _sandboxed() -> Iterator[None]:
    """Templates of tasks are filled without access to anything but the row; advice is not told."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    before: Any = utils.env
    safe = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    safe.filters.update(before.filters)
    logger = logging.getLogger("lm_eval")
    level = logger.level
    utils.env = safe
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        utils.env = before
        logger.setLevel(level)
