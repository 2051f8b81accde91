"""The optimisation systems side by side: docs/results/optimisation.md.

A wrapper stands around npo, or around what its card names. What is measured, and the options of the
command, stand in benches/systems.py.

    python benches/optimisation.py [--seeds 3] [--tofu DATA]
"""

import sys

from systems import System, Table, compare

TABLE = Table(
    "optimisation",
    "Optimisation systems",
    {
        "ft-retain": System("ft-retain"),
        "grad-diff": System("grad-diff"),
        "npo": System("npo"),
        "ga-opt": System("ga-opt"),
        "fega": System("fega"),
        "icu": System("icu"),
        "meow": System("meow"),
        "egup": System("egup"),
        "npo + wagle": System("npo", ("wagle",)),
        "ofmu": System("ofmu"),
        "blur": System("blur"),
        "dto": System("dto"),
        "alter": System("alter"),
        "npo + unpii": System("npo", ("unpii",)),
        "npo + unpii:pri_custom": System("npo", ("unpii:pri_custom",)),
        "npo + melu": System("npo", ("melu",)),
        "harmonise": System("harmonise"),
        "fit": System("fit"),
        "dmm": System("dmm"),
        "sani": System("sani"),
        "npo + su": System("npo", ("su",)),
        "klue": System("klue"),
        "attn-shift": System("attn-shift"),
        "npo + uwc": System("npo", ("uwc",)),
        "sure": System("sure"),
        "npo + coreset": System("npo", ("coreset:0.05",)),
        "npo-sam": System("npo-sam"),
        "npo-irm": System("npo-irm"),
        "idk-ap": System("idk-ap"),
        "rmu-lat": System("rmu-lat"),
        "tar": System("tar"),
    },
)

if __name__ == "__main__":
    sys.exit(compare(TABLE))
