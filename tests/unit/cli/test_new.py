"""``expunge new``: where it writes, what it refuses, and that what it writes holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.cli import new
from expunge.core import registry
from expunge.core.card import read_card
from expunge.core.errors import Exit

KINDS = ("method", "metric", "attack", "benchmark", "guard")
PROJECT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Something that looks like a checkout, with the working directory deep inside it."""
    (tmp_path / "src" / "expunge" / "methods").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "expunge"\n')
    (tmp_path / "docs" / "design").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "design")
    return tmp_path


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    """A distribution of somebody else, as installed, with one new component of each kind."""
    site = tmp_path_factory.mktemp("site")
    info = site / "acme-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    rooms = [f"{kind}s" for kind in KINDS]
    entries = "".join(f"{room} = acme.{room}\n" for room in rooms)
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entries}")
    for kind, room in zip(KINDS, rooms, strict=True):
        folder = site / "acme" / room
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
        new._write(kind, f"acme-{kind}", folder)
    (site / "acme" / "__init__.py").touch()
    return site


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_checkout_it_writes_into_the_rooms_of_the_project(run, checkout, kind):
    ran = run("new", kind, "my-thing", "--json")
    assert ran.code == 0
    assert ran.value == {
        "id": "my-thing",
        "component": str(checkout / f"src/expunge/{kind}s/my_thing.py"),
        "test": str(checkout / f"tests/{kind}s/test_my_thing.py"),
    }
    written = Path(ran.value["component"]).read_text() + Path(ran.value["test"]).read_text()
    assert '"id": "my-thing"' in written
    assert "My thing" in written
    assert "{" + "{" not in written
    assert "{%" not in written


def test_the_common_suite_is_called_only_outside_where_nobody_else_calls_it(
    run, checkout, tmp_path
):
    inside = run("new", "metric", "one", "--json").value["test"]
    outside = run("new", "metric", "two", "--dir", str(tmp_path / "x"), "--json").value["test"]
    assert "check_metric" not in Path(inside).read_text()
    assert 'check_metric("two")' in Path(outside).read_text()


def test_nothing_is_overwritten(run, checkout):
    path = checkout / "src/expunge/methods/my_thing.py"
    path.write_text("mine")
    ran = run("new", "method", "my-thing", "--json")
    assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, "E-USE-004")
    assert path.read_text() == "mine"
    assert not (checkout / "tests").exists()


def test_the_test_of_somebody_is_not_overwritten_either(run, checkout):
    path = checkout / "tests/methods/test_my_thing.py"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert run("new", "method", "my-thing").code == Exit.BAD_INPUT
    assert path.read_text() == "mine"
    assert not (checkout / "src/expunge/methods/my_thing.py").exists()


def test_an_id_that_is_taken_is_refused_in_both_spellings(run, checkout):
    for name in ("truth-ratio", "truth_ratio"):
        ran = run("new", "metric", name, "--json")
        assert ran.value["error"]["code"] == "E-USE-004"


@pytest.mark.parametrize("name", ["My-Thing", "1st", "a b", "../x", "a.b", "class", "a--b", ""])
def test_a_name_that_cannot_be_a_module_is_refused(run, checkout, name):
    ran = run("new", "method", "--json", "--", name)
    assert (ran.code, ran.value["error"]["code"]) == (Exit.BAD_INPUT, "E-USE-003")
    assert list((checkout / "src/expunge/methods").iterdir()) == []


def test_elsewhere_a_folder_must_be_named(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = run("new", "method", "my-thing", "--json")
    assert ran.value["error"]["code"] == "E-USE-007"
    assert "--dir" in ran.value["error"]["next"]


def test_the_page_says_how_to_declare_the_folder(run, tmp_path):
    ran = run("new", "guard", "my-thing", "--dir", str(tmp_path / "guards"))
    assert '[project.entry-points."expunge.components"]' in ran.out
    assert 'guards = "your_package.guards"' in ran.out


def test_what_is_written_is_listed_with_its_formula_and_parameters(acme):
    for kind in KINDS:
        read = read_card(acme / f"acme/{kind}s/acme_{kind}.py")
        assert read.id == f"acme-{kind}"
        assert read.formula
        assert all(facts["help"] for facts in read.params.values())


def test_what_is_written_keeps_the_projects_style(acme):
    config = ["--config", str(PROJECT / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "S101,D1"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *config, str(acme)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout


def test_what_is_written_passes_its_tests_and_the_common_suite_as_it_is(acme):
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "acme"],
        cwd=acme,
        env={**os.environ, "PYTHONPATH": str(acme)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout
