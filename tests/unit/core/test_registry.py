"""The registry: found by looking, loaded by asking, never broken by a stranger."""

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from expunge.core import registry
from expunge.core.errors import ExpungeError, Problems
from expunge.core.registry import Registry

SOURCE = '''"""{name}.

Definition:
    x

"""
from dataclasses import dataclass

from expunge.core.params import param

CARD = {{"id": "{name}", "kind": "metric", "summary": "s", "paper": "p", "needs": ["nll"],
        "access": "logits", "cost": "c", "maturity": "beta", "version": 2, "better": "low"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Own."""

    k: float = param(0.2, help="share", low=0.0, high=1.0)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package with two components, one of them a folder, and things that are none."""
    top = "made_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    folder = tmp_path / top / "metrics"
    (folder / "_tables").mkdir(parents=True)
    (folder / "big_one").mkdir()
    (folder / "data").mkdir()
    for empty in (tmp_path / top, folder, folder / "_tables"):
        (empty / "__init__.py").write_text("")
    (folder / "min_k.py").write_text(SOURCE.format(name="min-k"))
    (folder / "big_one" / "__init__.py").write_text(SOURCE.format(name="big-one"))
    (folder / "_shared.py").write_text("raise SystemExit")
    (folder / "notes.txt").write_text("no component")
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{top}.metrics"


def folder_of(package: str) -> Path:
    return Path(sys.path[0], *package.split("."))


def test_components_are_found_by_looking_and_not_imported(package: str) -> None:
    found = Registry("metric", package)
    assert found.ids() == ("big-one", "min-k")
    assert [card.id for card in found.cards()] == ["big-one", "min-k"]
    assert not any(name.startswith(f"{package}") for name in sys.modules)


def test_both_spellings_of_a_name_are_accepted(package: str) -> None:
    found = Registry("metric", package)
    assert found.card("min_k") is found.card("min-k")
    assert found.load("big_one") is found.load("big-one")
    assert found.load("min_k").__name__ == f"{package}.min_k"


def test_an_unknown_name_gets_the_nearest(package: str) -> None:
    with pytest.raises(ExpungeError, match=r"E-USE-001.*no metric 'mink'.*'min-k'"):
        Registry("metric", package).card("mink")
    with pytest.raises(ExpungeError, match="E-USE-001"):
        Registry("metric", package).load("_shared")


def test_parameters_are_resolved_under_the_id(package: str) -> None:
    found = Registry("metric", package)
    assert found.params("min_k").k == 0.2
    assert found.params("min-k", {"k": "0.5"}).k == 0.5
    with pytest.raises(ExpungeError, match=r"E-USE-003.*min-k: k = 7"):
        found.params("min_k", {"k": 7})


def test_a_card_that_changes_on_import_is_refused(package: str) -> None:
    path = folder_of(package) / "min_k.py"
    path.write_text(path.read_text() + '\nCARD["version"] = 3\n')
    found = Registry("metric", package)
    assert found.card("min-k").version == 2
    with pytest.raises(ExpungeError, match=r"E-USE-008.*changes"):
        found.load("min-k")


def test_all_broken_files_of_ours_are_named_at_once(package: str) -> None:
    for name in ("bad_one", "bad_two"):
        (folder_of(package) / f"{name}.py").write_text("x = 1")
    found = Registry("metric", package)
    with pytest.raises(Problems) as caught:
        found.cards()
    assert [name in str(caught.value) for name in ("bad_one", "bad_two")] == [True, True]
    assert found.card("min-k").id == "min-k"


def plug_in(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def entries(**asked: Any) -> list[EntryPoint]:
        assert asked["group"] == "expunge.components"
        return [EntryPoint(asked["name"], package, asked["group"]) for package in packages]

    monkeypatch.setattr(registry, "entry_points", entries)


def test_a_plug_in_adds_components_and_cannot_replace_ours(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = folder_of(package).parent / "theirs"
    theirs.mkdir()
    (theirs / "__init__.py").write_text("")
    (theirs / "min_k.py").write_text(SOURCE.format(name="min-k"))
    (theirs / "surprise.py").write_text(SOURCE.format(name="surprise"))
    plug_in(monkeypatch, f"{package.partition('.')[0]}.theirs")
    found = Registry("metric", package)
    assert found.ids() == ("big-one", "min-k", "surprise")
    assert found.load("min-k").__name__.startswith(package)
    assert found.load("surprise").__name__.endswith("theirs.surprise")


def test_a_failing_plug_in_is_a_warning(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    top = package.partition(".")[0]
    broken = folder_of(package).parent / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise SystemError('at import')")
    (broken / "inner").mkdir()
    (broken / "inner" / "__init__.py").write_text("")
    bad_card = folder_of(package).parent / "bad_card"
    bad_card.mkdir()
    (bad_card / "__init__.py").write_text("")
    (bad_card / "x.py").write_text("CARD = 3")
    plug_in(
        monkeypatch, "no_such_package", f"{top}.broken.inner", f"{top}.bad_card", "json.decoder"
    )
    with caplog.at_level(logging.WARNING):
        assert Registry("metric", package).ids() == ("big-one", "min-k")
    assert len(caplog.records) == 4


def test_our_own_registries_list_their_folders_without_torch() -> None:
    script = (
        "import sys\n"
        "from expunge.core import registry as r\n"
        "for one in (r.methods, r.metrics, r.attacks, r.guards, r.benchmarks): one.ids()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
