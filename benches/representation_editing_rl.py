"""Representation, editing, reinforcement, exact, logit-level and continual systems side by side:
docs/results/representation_editing_rl.md.

What is measured, and the options of the command, stand in benches/systems.py. Beside the systems
stand plain fine-tuning, by which costs are told, and npo, which every family can be compared with.

    python benches/representation_editing_rl.py [--seeds 3] [--tofu DATA]
"""

import sys

from systems import System, Table, compare

TABLE = Table(
    "representation_editing_rl",
    "Representation, editing, reinforcement, exact, logit-level and continual systems",
    {
        "ft-retain": System("ft-retain"),
        "npo": System("npo"),
        "rmu": System("rmu"),
        "arm": System("arm"),
        "rr": System("rr"),
        "elm": System("elm"),
        "r2mu": System("r2mu"),
        "reva": System("reva"),
        "concept-vectors": System("concept-vectors"),
        "needle": System("needle"),
        "rome": System("rome"),
        "memit": System("memit"),
        "alphaedit": System("alphaedit"),
        "grace": System("grace"),
        "info-deletion": System("info-deletion"),
    },
)

if __name__ == "__main__":
    sys.exit(compare(TABLE))
