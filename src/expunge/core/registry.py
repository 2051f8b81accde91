"""All components, found by looking into their folders.

A component is a module or a package folder whose name does not begin with ``_``. Adding one
touches its file and nothing else. Other distributions offer theirs through the entry-point group
``expunge.components``: the entry's name is the folder's (``methods``, ``metrics``, ...), its value
a package that is scanned in the same way.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from expunge.core.card import Card, literal_card, read_card
from expunge.core.errors import ExpungeError, nearest, raise_all
from expunge.core.params import resolve

GROUP = "expunge.components"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where one component lives."""

    module: str
    path: Path


class Registry:
    """The components of one kind.

    Attributes:
        kind: What one of them is called, for messages (``method``).
        package: The package that holds them (``expunge.methods``).
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._cards: dict[str, Card] = {}

    def ids(self) -> tuple[str, ...]:
        """All ids, sorted, spelled with hyphens."""
        return tuple(sorted(self._sources))

    def card(self, name: str) -> Card:
        """The card of one component, without importing it.

        Raises:
            ExpungeError: ``E-USE-001`` for an unknown name, ``E-USE-008`` for a broken file.
        """
        id = self._id(name)
        if id not in self._cards:
            self._cards[id] = read_card(self._sources[id].path)
        return self._cards[id]

    def cards(self) -> tuple[Card, ...]:
        """The cards of all components, in the order of `ids`.

        Raises:
            ExpungeError: ``E-USE-008``, all broken files at once.
        """
        cards, problems = [], []
        for id in self.ids():
            try:
                cards.append(self.card(id))
            except ExpungeError as problem:
                problems.append(problem)
        raise_all(problems)
        return tuple(cards)

    def load(self, name: str) -> ModuleType:
        """The module of one component, imported.

        Raises:
            ExpungeError: ``E-USE-001`` for an unknown name, ``E-USE-008`` when the imported card
                is not the literal one of the file.
        """
        source = self._sources[self._id(name)]
        module = import_module(source.module)
        if literal_card(source.path) != module.CARD:
            raise ExpungeError(
                "E-USE-008",
                f"CARD of {source.module} changes while the module is imported.",
                "the literal that stands in the file.",
                "Write the whole card as one literal and leave it alone.",
            )
        return module

    def params(self, name: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """The parameters of one component, with ``overrides`` in place of defaults.

        Raises:
            ExpungeError: As `load` and `expunge.core.params.resolve` say.
        """
        return resolve(self.load(name).Params, overrides or {}, where=self._id(name))

    def _id(self, name: str) -> str:
        id = name.replace("_", "-")
        if id in self._sources:
            return id
        raise ExpungeError(
            "E-USE-001",
            f"There is no {self.kind} {name!r}.",
            f"the id of a {self.kind}.",
            nearest(id, self._sources),
        )

    @cached_property
    def _sources(self) -> dict[str, _Source]:
        own = {_id_of(source): source for source in _scan(self.package)}
        foreign = {id: source for id, source in self._foreign() if id not in own}
        return own | foreign

    def _foreign(self) -> Iterator[tuple[str, _Source]]:
        """Components of other distributions; what is wrong with one of them never stops us."""
        for entry in entry_points(group=GROUP, name=self.package.rpartition(".")[2]):
            try:
                for source in _scan(entry.value):
                    yield read_card(source.path).id, source
            except Exception as error:  # a plug-in may fail in any way
                _log.warning("plug-in %s is left out: %s", entry.value, error)


def _scan(package: str) -> Iterator[_Source]:
    """The components in the folders of ``package``; only packages around it are imported."""
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"{package} is not a package")
    for folder in map(Path, spec.submodule_search_locations):
        for entry in sorted(folder.iterdir()):
            path = entry / "__init__.py" if entry.is_dir() else entry
            if path.suffix == ".py" and not entry.name.startswith("_") and path.is_file():
                yield _Source(f"{package}.{entry.stem}", path)


def _id_of(source: _Source) -> str:
    return source.module.rpartition(".")[2].replace("_", "-")


methods = Registry("method", "expunge.methods")
metrics = Registry("metric", "expunge.metrics")
attacks = Registry("attack", "expunge.attacks")
guards = Registry("guard", "expunge.guards")
benchmarks = Registry("benchmark", "expunge.benchmarks")
