"""Settings of every test: one thread, no network, no stray parallelism.

torch is not imported here: that would hide an import of torch in a room that must do without. It
reads OMP_NUM_THREADS when it is imported; if a plugin was faster, it is told afterwards.
"""

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
