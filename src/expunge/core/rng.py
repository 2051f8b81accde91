"""Random numbers without a global seed: every draw has a name.

A seed is derived from the run's seed and the names of who draws and for what, so adding a
component or a step never shifts the draws of another one.
"""

import json
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A seed of 63 bits for the draw called ``names`` in the run ``seed``.

    Args:
        seed: The run's seed.
        names: Who draws and for what, for instance ``"npo", "sampler", step``; ``1`` and ``"1"``
            are different names.

    Returns:
        An integer in [0, 2**63), the same on every machine.
    """
    key = json.dumps([seed, *names]).encode()
    return int.from_bytes(sha256(key).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> "np.random.Generator":
    """A generator of its own for the draw called ``names`` in the run ``seed``."""
    import numpy as np

    return np.random.Generator(np.random.Philox(derive(seed, *names)))
