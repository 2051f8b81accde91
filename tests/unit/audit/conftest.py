"""Scripted attacks in place of the real ones, for every test of this room."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scripted_audit import FakeAttacks

from expunge.audit import evidence, mounting, plan


@pytest.fixture(autouse=True)
def attacks(monkeypatch: pytest.MonkeyPatch) -> FakeAttacks:
    """Scripted attacks in place of the real ones."""
    fake = FakeAttacks()
    monkeypatch.setattr(mounting, "attacks", fake)
    monkeypatch.setattr(plan, "attacks", fake)
    monkeypatch.setattr(evidence, "attacks", fake)
    return fake
