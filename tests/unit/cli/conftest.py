"""Commands run in this process, with the engine replaced by stand-ins."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from expunge.cli import main


@dataclass(frozen=True)
class Ran:
    """What one command left behind."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run ``expunge`` with arguments."""

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def standing_in(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str, Mapping[str, Any]], None]:
    """Put a module made of the given names in the place of a real one."""

    def standing_in(module: str, names: Mapping[str, Any]) -> None:
        stand_in = ModuleType(module)
        vars(stand_in).update(names)
        monkeypatch.setitem(sys.modules, module, stand_in)

    return standing_in
