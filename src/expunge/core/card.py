"""What a component says of itself, read from the syntax tree of its file.

Nothing is imported, so a list of all components costs no torch and no optional package.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.families import FAMILIES
from expunge.core.params import describe, param

MATURITIES = ("paper", "beta", "stable")

_TEXTS = ("id", "kind", "summary", "paper", "access", "cost", "maturity")
_FORMULA = re.compile(r"^(?:Objective|Definition)(?: \(([^)]*)\))?:(.*)$", re.MULTILINE)
_NEXT_SECTION = re.compile(r"\n[ \t]*\n(?=[A-Z][\w' -]{0,40}:(?:\s|$))")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One component.

    Attributes:
        id: Its name, with hyphens.
        kind: What sort of component it is (``gradient``, ``edit``, ... for methods).
        summary: One line.
        paper: Title and year.
        needs: Roles or readings it asks for.
        access: What it must get at (``weights``, ``logits``, ``text`` ...).
        cost: What it costs, in words.
        maturity: ``paper``, ``beta`` or ``stable``.
        version: Raised whenever a number it gives changes.
        extra: The other keys of its card (``family``, ``level``, ``better``, ``range`` ...).
        params: Parameter -> its facts, as `expunge.core.params.describe` gives them.
        formula: The block after ``Objective:`` or ``Definition:`` in its documentation.
        doc: The documentation.
    """

    id: str
    kind: str
    summary: str
    paper: str
    needs: tuple[str, ...]
    access: str
    cost: str
    maturity: str
    version: int
    extra: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    formula: str = ""
    doc: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The JSON value of a list of components: everything but the documentation."""
        return {
            **{name: getattr(self, name) for name in (*_TEXTS, "version")},
            **self.extra,
            "needs": list(self.needs),
            "params": {name: dict(facts) for name, facts in self.params.items()},
            "formula": self.formula,
        }


def read_card(path: str | Path) -> Card:
    """The card of the component file ``path``.

    Args:
        path: A module, or the ``__init__.py`` of a package folder.

    Raises:
        ExpungeError: ``E-USE-008`` when the file has no card, or a key of it, a parameter or the
            docstring is missing or not literal; all problems of the card at once.
    """
    path = Path(path)
    tree = _parse(path)
    facts = _literal_card(tree, path)
    wrong = _wrong_keys(facts, _id_of(path))
    doc = ast.get_docstring(tree)
    if not doc:
        wrong.append("there is no docstring")
    if wrong:
        raise _broken(path, "; ".join(wrong))
    own = {name: facts.pop(name) for name in (*_TEXTS, "version")}
    return Card(
        **own,
        needs=tuple(facts.pop("needs")),
        extra=facts,
        params=_params(tree, path),
        formula=_formula(doc or ""),
        doc=doc or "",
    )


def literal_card(path: str | Path) -> dict[str, Any]:
    """The dictionary ``CARD`` of the file ``path``, as written.

    Raises:
        ExpungeError: ``E-USE-008`` when there is none, or it is not a literal.
    """
    return _literal_card(_parse(Path(path)), Path(path))


def _id_of(path: Path) -> str:
    stem = path.parent.name if path.name == "__init__.py" else path.stem
    return stem.replace("_", "-")


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise _broken(path, f"it is not Python: {error}") from error


def _literal_card(tree: ast.Module, path: Path) -> dict[str, Any]:
    for node in tree.body:
        if _assigned(node) == "CARD":
            card = _literal(getattr(node, "value", None), path, "CARD")
            if isinstance(card, dict):
                return card
            raise _broken(path, "CARD is not a dictionary")
    raise _broken(path, "there is no CARD")


def _assigned(node: ast.stmt) -> str | None:
    """The name a statement gives a value to."""
    target: ast.expr | None = None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    return target.id if isinstance(target, ast.Name) else None


def _literal(node: ast.expr | None, path: Path, what: str) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, MemoryError, RecursionError) as error:
        raise _broken(path, f"{what} is not a literal") from error


def _wrong_keys(card: Mapping[str, Any], expected_id: str) -> list[str]:
    wrong = [f"{key} is missing" for key in (*_TEXTS, "needs", "version") if key not in card]
    wrong += [f"{key} is not text" for key in _TEXTS if not isinstance(card.get(key, ""), str)]
    if card.get("id", expected_id) != expected_id:
        wrong.append(f"id is {card['id']!r}, by the name of the file it is {expected_id!r}")
    if card.get("maturity", "paper") not in MATURITIES:
        wrong.append(f"maturity is none of {', '.join(MATURITIES)}")
    needs = card.get("needs", [])
    if not isinstance(needs, list | tuple) or not all(isinstance(need, str) for need in needs):
        wrong.append("needs is not a list of texts")
    version = card.get("version", 1)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        wrong.append("version is not a whole number from 1")
    return wrong


def _formula(doc: str) -> str:
    """The formula block of a docstring, up to the next section that a blank line sets off."""
    found = _FORMULA.search(doc)
    if not found:
        return ""
    below = _NEXT_SECTION.split(doc[found.end() :])[0]
    lines = [line for line in below.splitlines() if line.strip()]
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    body = "\n".join(line[margin:].rstrip() for line in below.splitlines())
    terms, first = found[1] or "", found[2].strip()
    return "\n".join(part for part in (terms, first, body.strip()) if part)


def _params(tree: ast.Module, path: Path) -> dict[str, dict[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Params":
            return _fields(node, path)
    return {}


def _fields(node: ast.ClassDef, path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for base in map(ast.unparse, node.bases):
        family = FAMILIES.get(base.split(".")[-1])
        if family is None:
            known = " or ".join(FAMILIES)
            raise _broken(path, f"Params may inherit from {known} only, not {base}")
        found |= describe(family)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
            facts = _facts(statement.value, path, f"Params.{name}")
            found[name] = {**facts, "type": ast.unparse(statement.annotation)}
    return found


def _facts(value: ast.expr | None, path: Path, what: str) -> dict[str, Any]:
    """The facts of one field: of a call of ``param``, or of a bare default."""
    facts = dict.fromkeys(("default", "help", "paper", "type", "low", "high", "choices"))
    if not isinstance(value, ast.Call):
        return facts | {"default": _literal(value, path, what)}
    if ast.unparse(value.func).split(".")[-1] != param.__name__:
        raise _broken(path, f"{what} is made by {ast.unparse(value.func)}, not by param")
    given = dict(zip(("default",), value.args, strict=False))
    given |= {keyword.arg or "**": keyword.value for keyword in value.keywords}
    if unknown := given.keys() - facts.keys():
        raise _broken(path, f"{what} says {', '.join(sorted(unknown))}, which param does not know")
    return facts | {key: _literal(node, path, f"{what}, {key}") for key, node in given.items()}


def _broken(path: Path, reason: str) -> ExpungeError:
    return ExpungeError(
        "E-USE-008",
        f"The component file {path} is not usable: {reason}.",
        "a docstring, a literal CARD with the keys "
        + " ".join((*_TEXTS, "needs", "version"))
        + ", and a Params class of literal param(...) fields.",
        "Correct the file.",
    )
