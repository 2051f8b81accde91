"""Cards are read from the syntax tree, and what is wrong with one is said with its file."""

import importlib
import json
from pathlib import Path

import pytest

from expunge.core.card import Card, read_card
from expunge.core.errors import ExpungeError
from expunge.core.params import describe

SOURCE = '''"""Push forget answers down.

Objective:
    L = -gamma * mean( nll )
        + alpha * RETAIN

    With w = 1: plain ascent.

Reference: A Paper, 2024.

Departs from the paper:
    Nothing.
"""

from dataclasses import dataclass
from typing import Literal

{imports}
from expunge.core.families import GradientParams
from expunge.core.params import param

CARD = {{
    "id": "down-push",
    "kind": "gradient",
    "summary": "Ascent " "on answers.",
    "paper": "A Paper (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "one step",
    "maturity": "paper",
    "version": 1,
    "family": "prompt",
    "threshold": 0.1,
}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """Own."""

    beta: float = param(0.1, help="sharp" "ness", paper=(0.1, -1), low=1e-6)
    how: int | Literal["auto"] = param("auto", help="how", choices=("auto", 1))
    retain_term: str = param("none", help="no retain", choices=("none", "nll", "kl", "mse"))
'''


def component(folder: Path, source: str = SOURCE, name: str = "down_push.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source.format(imports=""))
    return path


def test_the_card_holds_what_the_file_says(tmp_path: Path) -> None:
    card = read_card(component(tmp_path))
    assert isinstance(card, Card)
    assert (card.id, card.kind, card.maturity, card.version) == (
        "down-push",
        "gradient",
        "paper",
        1,
    )
    assert card.summary == "Ascent on answers."
    assert card.needs == ("forget", "retain")
    assert card.extra == {"family": "prompt", "threshold": 0.1}
    assert card.doc.startswith("Push forget answers down.")


def test_the_formula_ends_at_the_next_section(tmp_path: Path) -> None:
    expected = "L = -gamma * mean( nll )\n    + alpha * RETAIN\n\nWith w = 1: plain ascent."
    assert read_card(component(tmp_path)).formula == expected
    one_line = SOURCE.replace("Objective:\n    L", "Definition: L", 1)
    assert read_card(component(tmp_path, one_line)).formula.startswith("L = -gamma * mean( nll )\n")
    assert read_card(component(tmp_path, SOURCE.replace("Objective:", "Idea -"))).formula == ""


def test_nothing_is_imported(tmp_path: Path) -> None:
    path = tmp_path / "down_push.py"
    path.write_text(SOURCE.format(imports="raise SystemExit('imported')\nimport no_such_package"))
    assert read_card(path).id == "down-push"


def test_the_parameters_read_are_those_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = component(tmp_path, name="down_push.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("down_push")
    card = read_card(path)
    assert card.params == describe(module.Params)
    assert list(card.params) == list(describe(module.Params))
    assert card.params["retain_term"]["default"] == "none"


def test_a_package_folder_has_the_name_of_the_folder(tmp_path: Path) -> None:
    assert read_card(component(tmp_path, name="down_push/__init__.py")).id == "down-push"


def test_a_component_without_parameters_has_none(tmp_path: Path) -> None:
    source = SOURCE.split("@dataclass", maxsplit=1)[0]
    assert read_card(component(tmp_path, source)).params == {}


def test_the_card_as_json_has_what_lists_promise(tmp_path: Path) -> None:
    listed = json.loads(json.dumps(read_card(component(tmp_path)).as_dict()))
    assert {"id", "kind", "summary", "paper", "maturity", "needs", "params"} <= listed.keys()
    assert listed["family"] == "prompt"
    assert listed["params"]["beta"]["paper"] == [0.1, -1]


@pytest.mark.parametrize("key", ["id", "kind", "summary", "paper", "needs", "access", "cost"])
def test_a_missing_key_is_named_with_the_file(tmp_path: Path, key: str) -> None:
    path = component(tmp_path, SOURCE.replace(f'"{key}":', f'"not_{key}":'))
    with pytest.raises(ExpungeError, match=f"{key} is missing") as caught:
        read_card(path)
    assert caught.value.code == "E-USE-008"
    assert str(path) in caught.value.found


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"id": "down-push"', '"id": "down_push"', "by the name of the file"),
        ('"maturity": "paper"', '"maturity": "gold"', "maturity is none of"),
        ('"version": 1', '"version": "1"', "version is not"),
        ('"version": 1', '"version": True', "version is not"),
        ('"needs": ["forget", "retain"]', '"needs": "forget"', "needs is not a list"),
        ('"cost": "one step"', '"cost": 3', "cost is not text"),
        ('"cost": "one step"', '"cost": str(3)', "CARD is not a literal"),
        ("CARD = {{", "OTHER = {{", "there is no CARD"),
        ("CARD = {{", "CARD = 3\nOTHER = {{", "not a dictionary"),
        ("low=1e-6", "low=min(1, 2)", "Params.beta, low is not a literal"),
        ("low=1e-6", "lowest=1e-6", "Params.beta says lowest"),
        ("Params(GradientParams)", "Params(Mine)", "not Mine"),
        ("float = param(", "float = field(", "made by field"),
        ("class Params", "class Params Params", "not Python"),
        ('"""Push forget', 'NAME = """Push forget', "no docstring"),
    ],
)
def test_a_broken_file_says_why(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in SOURCE
    with pytest.raises(ExpungeError, match="E-USE-008") as caught:
        read_card(component(tmp_path, SOURCE.replace(old, new, 1)))
    assert reason in caught.value.found
