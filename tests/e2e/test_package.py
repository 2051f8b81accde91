"""What is shipped: the wheel and the source archive, built without a network."""

import email
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SHIPPED = ("src", "tests", "docs", "pyproject.toml", "README.md", "LICENSE", "constraints.txt")
NOT_CODE = {".py", ".pyc"}


def ran(*command: str | Path, **how: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        **how,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A copy of the checkout, built; the checkout itself stays as it is."""
    root = tmp_path_factory.mktemp("package")
    copy, out = root / "expunge", root / "dist"
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis", ".venv", ".git")
    shutil.copytree(PROJECT, copy, ignore=ignored)
    ran("build", "--no-isolation", "--outdir", out, copy, env={**os.environ, "PIP_NO_INDEX": "1"})
    return out


@pytest.fixture(scope="module")
def wheel(built):
    [wheel] = built.glob("expunge-*-py3-none-any.whl")
    return wheel


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, end: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(end))
        return archive.read(name).decode()


def test_the_wheel_holds_every_file_of_the_package(names):
    source = PROJECT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "expunge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= names
    assert {name for name in names if name.startswith("expunge/")} == expected


def test_the_wheel_holds_what_is_not_code(names):
    assert "expunge/py.typed" in names
    for kind in ("method", "metric", "attack", "benchmark", "guard"):
        assert f"expunge/cli/templates/{kind}.py.jinja" in names
        assert f"expunge/cli/templates/test_{kind}.py.jinja" in names
    assets = {name for name in names if name.startswith("expunge/lab/testbed/")}
    assert any(Path(name).suffix not in NOT_CODE for name in assets)


def test_the_wheel_holds_nothing_else(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"expunge"}


def test_the_wheel_installs_the_command(wheel):
    assert "expunge = expunge.cli:main" in read(wheel, "entry_points.txt")


def test_the_metadata_say_licence_python_and_typing(wheel):
    metadata = email.message_from_string(read(wheel, ".dist-info/METADATA"))
    assert metadata["Name"] == "expunge"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert "Apache License" in read(wheel, "licenses/LICENSE")


def test_the_source_archive_holds_what_is_needed_to_build_and_test(built):
    [archive] = built.glob("expunge-*.tar.gz")
    with tarfile.open(archive) as source:
        members = [Path(*Path(name).parts[1:]).as_posix() for name in source.getnames()]
    for part in SHIPPED:
        assert any(name == part or name.startswith(f"{part}/") for name in members), part
    assert not any(name.startswith((".venv", ".git/", "demo/", "out/")) for name in members)


def test_the_constraints_pin_everything_that_the_package_requires(wheel):
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (PROJECT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    metadata = email.message_from_string(read(wheel, ".dist-info/METADATA"))
    for requirement in metadata.get_all("Requires-Dist", []):
        from packaging.requirements import Requirement

        assert Requirement(requirement).name.lower() in pinned, requirement


@pytest.mark.slow
def test_the_installed_wheel_works_outside_the_checkout(wheel, tmp_path):
    target = tmp_path / "site"
    ran("pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target, wheel)
    program = (
        "import sys, expunge; assert expunge.__file__.startswith(sys.argv[1]), expunge.__file__;"
        "from expunge.cli import main; sys.exit(main(sys.argv[2:]))"
    )

    def expunge(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, str(target), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(target)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "npo" in {card["id"] for card in json.loads(expunge("methods", "--json"))}
    written = json.loads(expunge("new", "metric", "mine", "--dir", "package", "--json"))
    assert Path(tmp_path, written["component"]).is_file()
