"""Fixtures of the method tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest_methods import random_table, random_view, t3

__all__ = ["random_table", "random_view", "t3"]
