"""Settings of every test: one thread, no network, no stray parallelism.

torch is not imported here: that would hide an import of torch in a room that must do without. It
reads OMP_NUM_THREADS when it is imported; if a plugin was faster, it is told afterwards.
"""

import gc
import os
import sys

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
