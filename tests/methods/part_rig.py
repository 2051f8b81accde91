"""What every method promises whose run-time part forgets while the weights stay as they were."""

from pathlib import Path

from tiny_rig import exact, facts

import expunge
from expunge.engine.change import read_manifest
from expunge.engine.runtime import Served
from expunge.lm.digest import folder_digest


def check_the_facts_go(change: Path) -> None:
    """Exact match on forgotten facts at most .25, on the others at least .9, and all without it."""
    forgotten, kept = facts()
    served, bare = expunge.load(change), expunge.load(change, runtime=False)
    assert isinstance(served, Served)
    assert exact(served, forgotten) <= 0.25
    assert exact(served, kept) >= 0.9
    assert exact(bare, forgotten) == exact(bare, kept) == 1.0


def check_no_weight_moves(change: Path, original: Path) -> None:
    """The folder's weights are the original's, and something changed beside them."""
    manifest = read_manifest(change)
    assert manifest is not None
    assert folder_digest(change) == folder_digest(original) == manifest["parent"]["digest"]
    assert manifest["summary"]["weights_changed"] > 0
