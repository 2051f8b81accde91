"""Lens erasure: the same arithmetic over what the lens reads."""

import pytest

from expunge.testing.metrics import measure

NEVER = {"lens_drop": [[0.5, 1.0, 0.02]]}


def test_closed_forms():
    erased = lambda now: measure("lens-erasure", {"lens_drop": [now]}, reference=NEVER)  # noqa: E731
    assert erased([0.25, 1.5, 0.4]).mean == pytest.approx(0.8333333)
    assert erased([0.5, 1.0, 0.02]).mean == 1.0
    assert erased([0.0, 0.0, 3.0]).mean == 0.0
    assert erased([0.25, 1.5, 0.4]).parts == {"layer-0": 0.5, "layer-1": 1.0}


def test_it_does_not_take_the_readings_of_the_other_depth():
    value = measure("lens-erasure", {"patch_drop": [[1.0]]}, reference={"patch_drop": [[1.0]]})
    assert value.note.startswith("not measurable: no row has lens_drop")
