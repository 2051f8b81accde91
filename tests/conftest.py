"""Settings of every test: one thread, no network, no stray parallelism.

torch is not imported here: that would hide an import of torch in a room that must do without. It
reads OMP_NUM_THREADS when it is imported; if a plugin was faster, it is told afterwards.
"""

import gc
import os
import sys

import pytest

os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)
if "torch" in sys.modules:
    sys.modules["torch"].set_num_threads(1)


def pytest_configure() -> None:
    """What is imported and collected stays: no use in looking for garbage meanwhile."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Set libraries and collected tests aside, then look for garbage as usual.

    The trainer does so at the start of every run, among all objects there are.
    """
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Whatever ran before, a test draws the same: torch has one generator for all of them."""
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between two files: what is alive then is kept for tests to come, and set aside as well."""
    if nextitem is not None and item.path != nextitem.path:
        gc.collect()
        gc.freeze()
