"""Task files of lm-evaluation-harness: read without trust, their data found beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.limits import MIB
from expunge.core.paths import inside

TASK_BYTES = MIB
"""Largest task file."""

DEPTH = 8
"""Most task files that include one another."""


def task_files(data: Path) -> dict[str, Path]:
    """Task -> its file, for all task files of a folder.

    Raises:
        ExpungeError: E-DATA-001 when there is no such folder, E-DATA-002 for a file that is broken,
            E-MODEL-004 for one that brings code.
    """
    if not data.is_dir():
        raise ExpungeError(
            "E-DATA-001", f"{data} is not there.", "a folder with task files.", "Check --data."
        )
    files = sorted(path for suffix in ("yaml", "yml") for path in data.glob(f"*.{suffix}"))
    contents = ((path, _content(path)) for path in files)
    return {str(of["task"]): path for path, of in contents if isinstance(of.get("task"), str)}


def _content(path: Path) -> dict[str, Any]:
    """A task file as it stands.

    Raises:
        ExpungeError: E-MODEL-004 for one that brings code, E-DATA-002 for one that is broken.
    """
    import yaml

    if not path.is_file() or path.stat().st_size > TASK_BYTES:
        raise ExpungeError(
            "E-DATA-001", f"{path} is not there, or too large.", "a task file.", "Check --data."
        )
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.constructor.ConstructorError as error:
        raise ExpungeError(
            "E-MODEL-004",
            f"{path.name}: {error.problem}.",
            "a task file without code of its own.",
            "Write the task with templates only.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExpungeError(
            "E-DATA-002", f"{path.name}: {error}.", "YAML.", "Correct the task file."
        ) from error
    return dict(found) if isinstance(found, Mapping) else {}


def read_task(path: Path, data: Path, depth: int = 0) -> dict[str, Any]:
    """A task file with what it includes, the files it names looked for in the data folder.

    Args:
        path: The task file.
        data: The folder; no file outside it is named.
        depth: How many files include this one.

    Raises:
        ExpungeError: As `task_files`; E-PATH-001 for names that leave the folder.
    """
    own = _content(path)
    if (wider := own.pop("include", None)) is not None and depth < DEPTH:
        own = {**read_task(inside(data, str(wider)), data, depth + 1), **own}
    options = dict(own.get("dataset_kwargs") or {})
    if depth == 0 and "data_files" in options:
        options["data_files"] = _within(data, options["data_files"])
        own["dataset_kwargs"] = options
    return own


def _within(data: Path, files: Any) -> Any:
    if isinstance(files, Mapping):
        return {split: _within(data, of) for split, of in files.items()}
    if isinstance(files, list):
        return [_within(data, each) for each in files]
    path = inside(data, str(files))
    if not path.is_file():
        raise ExpungeError(
            "E-DATA-001", f"{path} is not there.", "the data of the task.", "Check --data."
        )
    return str(path)
