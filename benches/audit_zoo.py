"""Is the verdict right? Audits of some two hundred models whose state is known.

    python benches/audit_zoo.py --work DIR [--worlds 5] [--profile fast]

The same folder resumes. `expunge.lab.zoo` says how the models are made; the page is
docs/results/audit.md, the counts are in benches/results/audit_zoo.json.
"""

import argparse
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from audit_zoo_page import page

from expunge.cli.progress import shown
from expunge.core.atomic import write_json, write_text
from expunge.lab.zoo import count, study

RESULTS = Path(__file__).parent / "results" / "audit_zoo.json"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "audit.md"
COMMAND = "benches/audit_zoo.py"
PACKAGES = ("expunge", "torch", "transformers", "numpy", "scipy")


def main() -> None:
    """Audit what is missing, then count everything that is there."""
    options = _options()
    with tempfile.TemporaryDirectory() as temporary, shown(quiet=False):
        work = Path(options.work or temporary)
        chosen = list(study.jobs(range(options.worlds)))
        if options.states:
            chosen = [job for job in chosen if job.state in options.states.split(",")]
        if not options.count:
            study.run(work, chosen, profile=options.profile, processes=options.processes)
        records = study.records(work)
    found = {
        "command": f"python {COMMAND} --worlds {options.worlds} --profile {options.profile}",
        "profile": options.profile,
        "planned": len(list(study.jobs(range(options.worlds)))),
        "versions": {"python": platform.python_version()} | {n: version(n) for n in PACKAGES},
        "audits": len(records),
        "confusion": count.confusion(records),
        "bars": count.bars(records),
        "kinds": count.kinds(records),
        "instruments": count.instruments(records),
        "rows": count.by_rows(records),
        "costs": count.costs(records),
        "missed": count.missed(records),
    }
    write_json(RESULTS, found)
    write_text(PAGE, page(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", help="folder of the records; a temporary one by default")
    parser.add_argument("--worlds", type=int, default=5)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--states", help="only models of these states, with commas")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--count", action="store_true", help="count only what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
