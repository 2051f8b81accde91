"""Representation, editing, reinforcement, exact, logit-level and continual systems side by side:
docs/results/representation_editing_rl.md.

What is measured, and the options of the command, stand in benches/systems.py. Beside the systems
stand plain fine-tuning, by which costs are told, and npo, which every family can be compared with.

    python benches/representation_editing_rl.py [--seeds 3] [--tofu DATA]
"""

import sys

from systems import BASE, System, Table, compare

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
        "sspu": System("sspu"),
        "sae-unknown": System("sae-unknown"),
        "cure": System("cure"),
        "concept-vectors": System("concept-vectors"),
        "needle": System("needle"),
        "rome": System("rome"),
        "memit": System("memit"),
        "alphaedit": System("alphaedit"),
        "grace": System("grace"),
        "wise": System("wise"),
        "unierase": System("unierase"),
        "info-deletion": System("info-deletion"),
        "rule": System("rule"),
        "purge": System("purge"),
        "sisa": System("sisa", params=(("base", BASE),)),
        "s3t": System("s3t", params=(("base", BASE),)),
        "s3t of one shard": System("s3t", params=(("base", BASE), ("shards", 1))),
        "uld": System("uld"),
        "delta-unlearning": System("delta-unlearning"),
        "o3": System("o3"),
        "o3 without own answers": System("o3", params=(("own_answer", False),)),
    },
)

if __name__ == "__main__":
    sys.exit(compare(TABLE))
