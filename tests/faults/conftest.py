"""What every fault is played on."""

from pathlib import Path

import pytest

from expunge.data.jsonl import write_rows
from expunge.testing.methods import stage, world


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and its rows on disk."""
    folder = tmp_path_factory.mktemp("scene")
    stage(folder)
    write_rows(folder / "forget.jsonl", world().forget)
    write_rows(folder / "retain.jsonl", world().retain)
    return folder
