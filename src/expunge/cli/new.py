"""``expunge new``: write a component and its test, to begin from."""

import keyword
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from expunge.cli.output import Answer, command
from expunge.core import registry
from expunge.core.errors import ExpungeError

KINDS = {
    "method": registry.methods,
    "metric": registry.metrics,
    "attack": registry.attacks,
    "benchmark": registry.benchmarks,
    "guard": registry.guards,
}
PROJECT = "expunge"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")

Name = Annotated[str, Argument(help="Its id, for instance 'my-method'.")]
Dir = Annotated[
    Path | None,
    Option(
        "--dir",
        metavar="DIR",
        help="Folder of the package it belongs to; in a checkout of expunge it is known.",
    ),
]

app = Typer(help="Write a component with its test; both pass as they are.")


def _maker(kind: str) -> Callable[..., Answer]:
    def new(name: Name, dir: Dir = None) -> Answer:
        return _write(kind, name, dir)

    new.__doc__ = f"Write a {kind} and its test; both pass as they are."
    return new


def _write(kind: str, name: str, folder: Path | None) -> Answer:
    from expunge.core.atomic import write_text

    _refuse(kind, name)
    module = name.replace("-", "_")
    component, test = _places(kind, module, folder)
    for path in (component, test):
        _refuse_existing(path)
    told = {
        "id": name.replace("_", "-"),
        "title": name.replace("-", " ").replace("_", " ").capitalize(),
        "outside": folder is not None,
    }
    for path, template in ((component, f"{kind}.py"), (test, f"test_{kind}.py")):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, _render(template, told))
    value = {"id": told["id"], "component": str(component), "test": str(test)}
    return Answer(value=value, show=lambda: _told(kind, value, folder))


def _refuse(kind: str, name: str) -> None:
    """Refuse a name that cannot be a module, or that is taken."""
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ExpungeError(
            "E-USE-003",
            f"{name!r} cannot be the id of a {kind}.",
            "small letters and digits, joined by hyphens, a letter first.",
            "Write, for instance, 'my-method'.",
        )
    if name.replace("_", "-") in KINDS[kind].ids():
        raise ExpungeError(
            "E-USE-004", f"There is a {kind} {name!r} already.", "a new id.", "Choose another one."
        )


def _places(kind: str, module: str, folder: Path | None) -> tuple[Path, Path]:
    """Where the component goes, and where its test."""
    if folder is not None:
        # not beside it: whatever lies in the package's folder is taken for a component
        return folder / f"{module}.py", folder / "tests" / f"test_{module}.py"
    checkout = _checkout(Path.cwd())
    if checkout is None:
        raise ExpungeError(
            "E-USE-007",
            f"{Path.cwd()} is not in a checkout of {PROJECT}, and there is no --dir.",
            "a place to write to.",
            "Add --dir with the folder of your package that holds such components.",
        )
    room = KINDS[kind].package.rpartition(".")[2]
    source = checkout / "src" / PROJECT / room / f"{module}.py"
    return source, checkout / "tests" / room / f"test_{module}.py"


def _checkout(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        project = folder / "pyproject.toml"
        if project.is_file() and (folder / "src" / PROJECT).is_dir():
            with project.open("rb") as file:
                if tomllib.load(file).get("project", {}).get("name") == PROJECT:
                    return folder
    return None


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ExpungeError(
            "E-USE-004",
            f"{path} exists already.",
            "a file that is not there yet.",
            "Choose another name, or move the file away.",
        )


def _render(template: str, told: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=PackageLoader("expunge.cli"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    return templates.get_template(f"{template}.jinja").render(told)


def _told(kind: str, value: dict[str, Any], folder: Path | None) -> str:
    lines = [f"Written: {value['component']}", f"         {value['test']}", ""]
    if folder is not None:
        room = KINDS[kind].package.rpartition(".")[2]
        lines += [
            "Name the folder's package in your pyproject.toml, if it is not there yet:",
            f'  [project.entry-points."{registry.GROUP}"]',
            f'  {room} = "your_package.{folder.name}"',
            "",
        ]
    return "\n".join([*lines, f"Next: python -m pytest {value['test']}"])


for _kind in KINDS:
    app.command(_kind)(command(_maker(_kind)))
