"""Forget now, with a small model on this machine: guard it, ask it, audit what the guard is worth.

    python examples/forget_now_local.py

Needs nothing from the network and some two minutes of one processor. The verdict is expected to be
*guarded* or worse: the guard holds the answers back, the weights still have them.
"""

import argparse

import expunge
from expunge.lab import testbed


def main() -> None:
    """Guard, ask, audit."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--rows", type=int, default=24, help="rows to be held back")
    given.add_argument("--attacks", default="direct,role,evasion", help="what the audit tries")
    options = given.parse_args()

    model = testbed.folder("original")
    forget, retain = testbed.rows("forget")[: options.rows], testbed.rows("retain")
    guarded = expunge.guard(model, targets=forget, retain=retain, guard="lexical")
    for row in (forget[0], retain[0]):
        asked = row.turn.prompt
        print(f"{asked}\n  plain:   {expunge.load(model).ask([row.turn])[0][0].strip()}")
        print(f"  guarded: {guarded.generate([asked])[0].strip()}")

    audit = expunge.audit(
        guarded.subject,
        forget=forget,
        retain=retain,
        holdout=testbed.rows("holdout"),
        original=model,
        profile="fast",
        only=options.attacks.split(","),
    )
    print(f"verdict: {audit.verdict}")
    for reason in audit.reasons:
        print(f"  {reason}")
    for name, value in audit.data["attacks"]["evasion"]["parts"]["model"].items():
        if name.startswith("stopped "):
            print(f"  {name}: {value:.2f}")


if __name__ == "__main__":
    main()
