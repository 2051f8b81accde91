"""The results page of `benches/baselines.py`, written from its record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

Line = Mapping[str, Any]

COLUMNS: Mapping[str, str] = {
    "steps": "steps", "cpu_seconds": "CPU-s", "forget-quality": "FQ p", "d": "D",
    "utility": "utility", "retain-probability": "retain P", "probability": "P",
    "extraction-strength": "ES", "exact-memorisation": "EM", "direct": "asked", "auc": "MIA AUC",
    "relearn-5": "P +5", "relearn-10": "P +10", "relearn-40": "P +40", "benign": "P benign",
    "int4": "P int4",
}  # fmt: skip

LEGEND = """
FQ p and D: p and distance of the Kolmogorov-Smirnov test of the truth ratios against the retrained
reference (high p = alike; **never read it without the columns beside it**: a collapsed model can
have a high p). Utility: what the model still answers of retain, neighbour and general rows,
relative to the original (on TOFU the models answer nothing but their own rows, so only the
probability of retain answers is shown). P: mean probability of the forget answers; ES: extraction
strength; EM: exact memorisation; asked: share of forget rows whose value is given when asked
plainly, in all wordings; MIA AUC: forget against hold-out rows by the least probable 40% of their
tokens (compare with the reference's; near 0 the forget rows stand out by being *too* improbable).
P +n: forget probability after n steps of training on the forget rows; P benign: after 40 steps on
retain rows only; P int4: after rounding to 4 bits.
""".strip()


@dataclass(frozen=True)
class Claim:
    """Something the field says, and which lines show it."""

    words: str
    method: str
    way: str
    holds: Callable[[Line, "Beside"], bool]


Beside = Mapping[str, Line]
"""``original`` and ``reference`` of the same site."""


def _known(line: Line, key: str) -> float:
    value = line.get(key)
    return float("nan") if value is None else float(value)


CLAIMS = (
    Claim(
        "ga without a retain term collapses (utility below .1)",
        "ga", "papers", lambda x, b: _known(x, "utility") < 0.1,
    ),
    Claim(
        "a collapsed ga can have a perfect forget quality (p above .5 at a utility below .1; here "
        "at 4e-4 over 80 steps)",
        "ga, 80 steps", "papers",
        lambda x, b: _known(x, "forget-quality") > 0.5 and _known(x, "utility") < 0.1,
    ),
    Claim(
        "npo with a retain term is not told from the reference by truth ratios (p above .05) at a "
        "utility of at least .9",
        "npo", "papers",
        lambda x, b: _known(x, "forget-quality") > 0.05 and _known(x, "utility") >= 0.9,
    ),
    Claim(
        "npo over-forgets: by membership inference the forget rows stand out as too improbable "
        "(AUC below .2; the reference has .37)",
        "npo", "papers", lambda x, b: _known(x, "auc") < 0.2,
    ),
    Claim(
        "stopping at the level of rows never seen avoids that (AUC above .2)",
        "npo", "ours", lambda x, b: _known(x, "auc") > 0.2,
    ),
    Claim(
        "refusal training comes back within 5 relearning steps (half of the original's "
        "probability)",
        "idk-nll", "papers",
        lambda x, b: _known(x, "relearn-5") > 0.5 * _known(b["original"], "probability"),
    ),
    Claim(
        "preferring a refusal comes back within 5 relearning steps",
        "idk-dpo", "papers",
        lambda x, b: _known(x, "relearn-5") > 0.5 * _known(b["original"], "probability"),
    ),
    Claim(
        "rmu comes back within 5 relearning steps",
        "rmu, block 2", "papers",
        lambda x, b: _known(x, "relearn-5") > 0.5 * _known(b["original"], "probability"),
    ),
    Claim(
        "a small-rate ga (5e-5 over 300 steps, P below .1) comes back by fine-tuning on retain "
        "rows alone (P benign above .3)",
        "ga, small rate", "papers",
        lambda x, b: _known(x, "probability") < 0.1 and _known(x, "benign") > 0.3,
    ),
    Claim(
        "rounding to 4 bits brings nothing back at this scale (within .05 of before)",
        "npo", "papers", lambda x, b: abs(_known(x, "int4") - _known(x, "probability")) < 0.05,
    ),
    Claim(
        "fine-tuning on retain rows is not unlearning (P above .3)",
        "ft-retain", "papers", lambda x, b: _known(x, "probability") > 0.3,
    ),
    Claim(
        "retraining from the base gives the reference (p above .05, P below .1)",
        "retrain", "papers",
        lambda x, b: _known(x, "forget-quality") > 0.05 and _known(x, "probability") < 0.1,
    ),
    Claim(
        "every method relearns faster than the reference does (P +10 above its)",
        "*", "papers", lambda x, b: _known(x, "relearn-10") > _known(b["reference"], "relearn-10"),
    ),
)  # fmt: skip

GOES_AND_KEEPS = "the answers go (asked below .1) at a utility of at least .9"
HIDES = "the reply changes (asked below .1) and the knowledge stays (P +5 above .3)"


def _goes_and_keeps(line: Line) -> bool:
    return _known(line, "direct") < 0.1 and _known(line, "utility") >= 0.9


def _goes(line: Line) -> bool:
    return _known(line, "direct") < 0.1


PROMISES: Mapping[str, tuple[str, Callable[[Line], bool]]] = {
    **dict.fromkeys(
        ("npo", "simnpo", "wga", "satimp", "altpo", "pdu", "llmu", "rmu", "arm", "rr", "elm"),
        (GOES_AND_KEEPS, _goes_and_keeps),
    ),
    **dict.fromkeys(
        ("grad-diff", "kl-min"),
        (
            "the retain term keeps utility (at least .8) while the answers go (asked below .1)",
            lambda x: _goes(x) and _known(x, "utility") >= 0.8,
        ),
    ),
    **dict.fromkeys(
        ("idk-nll", "idk-dpo"), (HIDES, lambda x: _goes(x) and _known(x, "relearn-5") > 0.3)
    ),
    "ga": (
        "without a retain term the rest of the model goes too (utility below .8)",
        lambda x: _goes(x) and _known(x, "utility") < 0.8,
    ),
    "undial": (
        "without a retain term the answers go (asked below .5) and nothing collapses (utility "
        "above .5)",
        lambda x: _known(x, "direct") < 0.5 and _known(x, "utility") > 0.5,
    ),
    "ceu": ("the answers go (asked below .1) without a retain set", _goes),
    "task-vector": (
        "weak forgetting at a utility near the original's (P below the original's, utility at "
        "least .9)",
        lambda x: _known(x, "probability") < 0.9 and _known(x, "utility") >= 0.9,
    ),
    "ft-retain": (
        "fine-tuning on retain rows forgets little (P above .3)",
        lambda x: _known(x, "probability") > 0.3,
    ),
    "retrain": (
        "it is as the reference (asked 0, MIA AUC within .15 of the reference's .37)",
        lambda x: _known(x, "direct") == 0 and abs(_known(x, "auc") - 0.37) < 0.15,
    ),
}
"""Method -> what its paper leads one to expect, and whether a line shows it."""


def page(record: Mapping[str, Any]) -> str:
    """The page."""
    lines: Sequence[Line] = record["lines"]
    versions = ", ".join(f"{name} {found}" for name, found in record["versions"].items())
    here = [line for line in lines if line["site"] == "testbed"]
    tofu = [line for line in lines if line["site"] == "tofu"]
    blocks = [
        "# Baselines",
        f"Written by `{record['command']}` ({versions}). {LEGEND}",
        "## Testbed: papers' way (fixed number of steps, no stop level)",
        table([x for x in here if x["way"] in ("given", "papers")]),
        "## Testbed: the defaults of `expunge forget` (stop at the level of hold-out rows, settle)",
        table([x for x in here if x["way"] in ("given", "ours")]),
    ]
    if tofu:
        blocks += [
            "## TOFU cut to 20 authors, papers' way, one seed",
            table(tofu),
        ]
    failed = [f"- {x['name']} ({x['way']}, seed {x['seed']}): {x['failed']}" for x in lines
              if "failed" in x]  # fmt: skip
    if failed:
        blocks += ["## Runs that failed their own check", "\n".join(failed)]
    spent = fmean([line["cpu_seconds"] for line in lines if "cpu_seconds" in line] or [0.0])
    blocks += [
        "## What is known of these methods, and whether it shows here", claims(here),
        "## What each paper promises, and whether it shows here", promises(here),
        f"Mean time of a run: {spent:.0f} CPU-seconds, one thread.",
    ]  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def table(lines: Sequence[Line]) -> str:
    """One table."""
    heads = ["model", "seed", *COLUMNS.values()]
    rows = [heads, ["---"] * len(heads)]
    for line in lines:
        if "failed" not in line:
            name = line["name"] + (" (collapsed)" if line.get("collapsed") else "")
            seed = "" if line["way"] == "given" else str(line["seed"])
            rows.append([name, seed, *(cell(line.get(key)) for key in COLUMNS)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def claims(lines: Sequence[Line]) -> str:
    """Each claim with the share of lines that show it."""
    beside = {line["name"]: line for line in lines if line["way"] == "given"}
    if not {"original", "reference"} <= beside.keys():
        return "Not measured."
    said = []
    for claim in CLAIMS:
        everyone = claim.method == "*"
        mine = [
            line
            for line in _of_way(lines, claim.way)
            if line["name"] == claim.method or (everyone and "," not in line["name"])
        ]
        against = sorted({x["name"] for x in mine if not claim.holds(x, beside)})
        but = f"; not by {', '.join(against)}" if everyone and against else ""
        said.append(f"- {claim.words}: {_shown(claim.holds(x, beside) for x in mine)}{but}.")
    return "\n".join(said)


def promises(lines: Sequence[Line]) -> str:
    """Each method's promise, both ways."""
    said = []
    for method, (words, holds) in PROMISES.items():
        mine = {
            way: [line for line in _of_way(lines, way) if line["name"] == method]
            for way in ("ours", "papers")
        }
        found = {way: _shown(holds(line) for line in some) for way, some in mine.items()}
        said.append(
            f"- **{method}**: {words}: {found['ours']} at the defaults, {found['papers']} the "
            "papers' way."
        )
    return "\n".join(said)


def _of_way(lines: Sequence[Line], way: str) -> list[Line]:
    return [line for line in lines if line["way"] == way and "failed" not in line]


def _shown(found: Iterable[bool]) -> str:
    """How many runs show something."""
    held = list(found)
    if not held:
        return "not run"
    word = "shown" if all(held) else "mixed" if any(held) else "denied"
    return f"**{word}**, {sum(held)} of {len(held)} runs"


def cell(value: Any) -> str:
    """A number as a cell."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.1e}" if value and abs(value) < 0.001 else f"{value:.3g}"
    return str(value)
