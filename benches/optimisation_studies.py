"""One small study per optimisation system, on docs/results/optimisation.md.

python benches/optimisation_studies.py [--seeds 3] [--studies wagle,sure] [--again]
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from baselines import opened
from optimisation import TABLE
from studies import (
    STEPS,
    Found,
    Study,
    carry_out,
    listed,
    model,
    nll,
    polite,
    relearned,
    rounded,
    said,
    unlearned,
    world,
)

from expunge.engine.stream import forget_stream
from expunge.lm.subject import Subject
from expunge.requests.rows import Row


def _sides(seed: int, subject: Subject) -> dict[str, float]:
    people = world(seed)
    others = [row for at, row in enumerate(people.forget) if at % 5]
    return {
        "forgotten rows said": said(subject, people.forget),
        "kept rows said": said(subject, people.retain),
        "forgotten said after int4": said(rounded(subject), people.forget),
        "unseen forgotten said after relearning": said(relearned(subject, people.forget), others),
    }


def wagle(seed: int) -> Found:
    """Attributed weights against as many random ones."""
    return {
        "all weights": _sides(seed, unlearned(seed, "grad-diff")),
        "wagle, .4 of the weights": _sides(seed, unlearned(seed, "grad-diff", "wagle:0.4")),
        "random, .4 of the weights": _sides(
            seed, unlearned(seed, "grad-diff", "wagle:ratio=0.4,score=random")
        ),
    }


def sure(seed: int) -> Found:
    """Rounding after a small rate over all weights, and after a large one over salient rows."""
    return {
        "grad-diff, rate 3e-4": _sides(seed, unlearned(seed, "grad-diff", lr=3e-4)),
        "sure, rate 1e-3": _sides(seed, unlearned(seed, "sure", objective="ga", lr=1e-3)),
    }


def su(seed: int) -> Found:
    """Polite requests to forget, and whether politeness is still answered."""
    people = world(seed)
    asked = polite(people.forget)
    found: dict[str, dict[str, float]] = {}
    for name, rows, wrappers in (
        ("grad-diff, plain requests", people.forget, ()),
        ("grad-diff, polite requests", asked, ()),
        ("grad-diff with su, polite requests", asked, ("su",)),
    ):
        subject = unlearned(seed, "grad-diff", *wrappers, of="polite", rows=rows)
        found[name] = {
            "forgotten rows said": said(subject, people.forget),
            "kept rows said": said(subject, people.retain),
            "kept rows said when asked politely": said(subject, polite(people.retain)),
        }
    return found


def fit(seed: int) -> Found:
    """A stream of 20 requests of one row, some of them twice."""
    people = world(seed)
    rows = [*people.forget[:16], *people.forget[:4]]
    lines = [
        {"id": f"{at}", "forget": [{**row.as_dict(), "id": f"{at}"}]} for at, row in enumerate(rows)
    ]
    found: dict[str, dict[str, float]] = {}
    for method in ("npo", "fit"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "requests.jsonl"
            path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
            params = {**STEPS, "max_steps": 12}
            done = forget_stream(
                model(seed), path, retain=people.retain, method=method, params=params,
                stop_at="placebo", seed=seed, out=Path(folder) / "out",
            )  # fmt: skip
            subject = opened(Path(done["model"]))
            found[f"{method}, 20 requests"] = {
                "requests that changed the model": float(
                    sum(one["status"] == "done" for one in done["requests"])
                ),
                "forgotten rows said": said(subject, people.forget[:16]),
                "kept rows said": said(subject, people.retain),
            }
    return found


def coreset(seed: int) -> Found:
    """A twentieth, a quarter and all of the rows, as many steps each."""
    people = world(seed)
    found: dict[str, dict[str, float]] = {}
    for share in ("0.05", "0.25", "1.0"):
        subject = unlearned(seed, "grad-diff", f"coreset:{share}")
        found[f"{float(share):.0%} of the rows"] = {
            "forgotten rows said": said(subject, people.forget),
            "kept rows said": said(subject, people.retain),
        }
    return found


def egup(seed: int) -> Found:
    """Where the loss of the forget rows ends, beside a retrained model's."""
    people = world(seed)
    found = {"retrained": {"forget NLL": nll(opened(model(seed, "retrained")), people.forget)}}
    for name, method, more in (
        ("grad-diff", "grad-diff", {}),
        ("egup over ga", "egup", {"base": "ga"}),
        ("npo", "npo", {}),
        ("egup over npo", "egup", {"base": "npo"}),
    ):
        subject = unlearned(seed, method, **more)
        found[name] = {
            "forget NLL": nll(subject, people.forget),
            "kept rows said": said(subject, people.retain),
        }
    return found


def melu(seed: int) -> Found:
    """Samplers at equal steps; every other fact of a person is to be forgotten, the rest kept."""
    people = world(seed)
    gone, near = people.forget[::2], people.forget[1::2]
    found: dict[str, dict[str, float]] = {}
    for mode in ("random", "cyclic", "melu"):
        subject = unlearned(seed, "grad-diff", f"melu:{mode}", rows=gone, kept=near)
        found[mode] = {
            "forgotten rows said": said(subject, gone),
            "neighbours said": said(subject, near),
            "neighbour NLL": nll(subject, near),
            "kept rows said": said(subject, people.retain),
        }
    return found


def unpii(seed: int) -> Found:
    """Rows of a high and of a low risk, with and without its weights."""
    people = world(seed)
    rows = [
        replace(row, meta={**row.meta, "pri": 2.0 if at % 2 else 0.0})
        for at, row in enumerate(people.forget)
    ]
    found: dict[str, dict[str, float]] = {}
    for name, wrappers in (("npo", ()), ("npo with unpii", ("unpii",))):
        subject = unlearned(seed, "npo", *wrappers, rows=rows, max_steps=12)
        high, low = nll(subject, rows[1::2]), nll(subject, rows[::2])
        found[name] = {"NLL, high risk": high, "NLL, low risk": low, "lead": high - low}
    return found


def dmm(seed: int) -> Found:
    """How far forget outputs end from a retrained model's."""
    people = world(seed)
    retrained = model(seed, "retrained")
    theirs = _outputs(opened(retrained), people.forget)
    found: dict[str, dict[str, float]] = {}
    for name, method, more in (
        ("original", None, {}),
        ("npo", "npo", {}),
        ("dmm, oracle", "dmm", {"oracle": str(retrained)}),
        ("dmm, kernel", "dmm", {}),
        ("dmm, one step (trak)", "dmm", {"datamodel": "trak"}),
    ):
        subject = opened(model(seed)) if method is None else unlearned(seed, method, **more)
        ours = _outputs(subject, people.forget)
        found[name] = {
            "distance to the retrained outputs": float(np.abs(ours - theirs).mean()),
            "forgotten rows said": said(subject, people.forget),
            "kept rows said": said(subject, people.retain),
        }
    return found


def _outputs(subject: Subject, rows: Sequence[Row]) -> "np.ndarray[Any, Any]":
    """Log-odds of the mean probability of each answer's tokens."""
    p = np.array([np.exp(one.logp).mean() for one in subject.score([row.turn for row in rows])])
    p = p.clip(1e-9, 1 - 1e-9)
    return np.log(p / (1 - p))


def meow(seed: int) -> Found:
    """Which inverted facts are learnt."""
    people = world(seed)
    found: dict[str, dict[str, float]] = {}
    for choice in ("largest", "smallest", "random", "paper"):
        subject = unlearned(seed, "meow", choice=choice)
        found[choice] = {
            "forgotten rows said": said(subject, people.forget),
            "forget NLL": nll(subject, people.forget),
            "kept rows said": said(subject, people.retain),
        }
    return found


SAID, KEPT = "forgotten rows said", "kept rows said"
ROUNDED = "forgotten said after int4"
POLITELY = "kept rows said when asked politely"
AWAY = "distance to the retrained outputs"


STUDIES: Mapping[str, Study] = {
    "wagle": Study(
        "wagle: attributed weights against random ones",
        "The paper: a mask of attributed weights forgets as well and keeps more than other masks.",
        wagle,
        lambda m: (
            m["wagle, .4 of the weights"][SAID] - m["wagle, .4 of the weights"][KEPT]
            < m["random, .4 of the weights"][SAID] - m["random, .4 of the weights"][KEPT] - 0.02
        ),
        lambda m: f"said of the forgotten: {listed(m, SAID)}; of the kept: {listed(m, KEPT)}.",
    ),
    "sure": Study(
        "sure: rounding to four bits",
        "The paper: what a small rate forgets comes back in four bits, and not what salient rows "
        "at a larger rate forgot.",
        sure,
        lambda m: (
            m["grad-diff, rate 3e-4"][ROUNDED] - m["grad-diff, rate 3e-4"][SAID]
            > m["sure, rate 1e-3"][ROUNDED] - m["sure, rate 1e-3"][SAID] + 0.02
        ),
        lambda m: f"said before rounding: {listed(m, SAID)}; after: {listed(m, ROUNDED)}.",
    ),
    "su": Study(
        "su: requests worded with an everyday word",
        "The paper: who words requests politely makes the model fail whoever is polite; behind the "
        "forgotten prompts kept rows teach it otherwise.",
        su,
        lambda m: (
            m["grad-diff, polite requests"][POLITELY]
            < m["grad-diff with su, polite requests"][POLITELY] - 0.1
        ),
        lambda m: f"kept rows said when asked politely: {listed(m, POLITELY)}.",
    ),
    "fit": Study(
        "fit: a stream of 20 requests, four of them repeated",
        "The paper: filtering, chosen layers and chosen losses keep more over a long stream than "
        "one method after another.",
        fit,
        lambda m: (
            m["fit, 20 requests"][KEPT] >= m["npo, 20 requests"][KEPT] + 0.02
            and m["fit, 20 requests"][SAID] <= m["npo, 20 requests"][SAID] + 0.1
        ),
        lambda m: (
            f"kept rows said: {listed(m, KEPT)}; forgotten: {listed(m, SAID)}; requests that "
            f"changed something: {listed(m, 'requests that changed the model')}."
        ),
    ),
    "coreset": Study(
        "coreset: a twentieth of the rows",
        "The paper: 5% of the rows forget what all of them forget. More in [coreset](coreset.md).",
        coreset,
        lambda m: m["5% of the rows"][SAID] <= m["100% of the rows"][SAID] + 0.1,
        lambda m: f"forgotten rows said: {listed(m, SAID)}; kept: {listed(m, KEPT)}.",
    ),
    "egup": Study(
        "egup: where forgetting ends",
        "The paper: its bound stops forgetting near a retrained model's level, where others go on.",
        egup,
        lambda m: all(
            abs(m[f"egup over {base}"]["forget NLL"] - m["retrained"]["forget NLL"])
            < abs(m[other]["forget NLL"] - m["retrained"]["forget NLL"])
            for base, other in (("ga", "grad-diff"), ("npo", "npo"))
        ),
        lambda m: f"forget NLL: {listed(m, 'forget NLL')}.",
    ),
    "melu": Study(
        "melu: samplers at equal steps",
        "The paper: pairing each forget row with neighbours of its own entity keeps more than "
        "random pairs.",
        melu,
        lambda m: m["melu"]["neighbour NLL"] < 0.9 * m["random"]["neighbour NLL"],
        lambda m: (
            f"NLL of the other facts of the same people: {listed(m, 'neighbour NLL')}; forgotten "
            f"rows said: {listed(m, SAID)}."
        ),
    ),
    "unpii": Study(
        "unpii: weights by risk",
        "The paper: rows of a higher risk are forgotten more.",
        unpii,
        lambda m: m["npo with unpii"]["lead"] > m["npo"]["lead"] + 0.05,
        lambda m: f"lead of the risky rows, nats a token: {listed(m, 'lead')}.",
    ),
    "dmm": Study(
        "dmm: attribution against its oracle",
        "The paper: matching predicted outputs comes close to matching those of a retrained model.",
        dmm,
        lambda m: (
            m["dmm, kernel"][AWAY] < 0.5 * m["original"][AWAY]
            and m["dmm, oracle"][AWAY] <= m["dmm, kernel"][AWAY]
        ),
        lambda m: f"mean distance of the forget outputs, log-odds: {listed(m, AWAY)}.",
    ),
    "meow": Study(
        "meow: which inverted facts",
        "The paper: inverted facts chosen by how well the model recites them forget better than "
        "any others.",
        meow,
        lambda m: (
            m["paper"][SAID] < m["random"][SAID] - 0.02
            or m["largest"][SAID] < m["random"][SAID] - 0.02
        ),
        lambda m: f"forgotten rows said: {listed(m, SAID)}; kept: {listed(m, KEPT)}.",
    ),
}


if __name__ == "__main__":
    sys.exit(carry_out(TABLE, STUDIES))
