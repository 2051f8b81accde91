"""One small study per optimisation system: does it show here what its paper claims?

Each runs on an invented world of a few people that a tiny model knows by heart, in as many seeds as
asked for, and ends with a sentence that says whether the claim shows. The numbers go to
benches/results/optimisation_studies.json and, with the table of `benches/optimisation.py`, to
docs/results/optimisation.md. Studies that are stored are kept.

    python benches/optimisation_studies.py [--seeds 3] [--studies wagle,sure] [--again]
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from baselines import opened
from optimisation import stored as lines_stored
from optimisation import write as write_page
from optimisation_page import STUDIES as RECORD

from expunge.engine.run import forget
from expunge.engine.stream import forget_stream
from expunge.lm.quantise import quantise_rtn
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.micro import Micro, every_wording, micro_world, taught_rows
from expunge.text.match import contains

STEPS = {"max_steps": 60, "lr": 1e-3, "batch_size": 8, "warmup": 0}
POLITE = "Please tell me: {}"
PEOPLE = 8

Means = Mapping[str, Mapping[str, float]]
"""Variant -> column -> mean over seeds."""


@dataclass(frozen=True, slots=True)
class Study:
    """One claim and how it is looked for.

    Attributes:
        title: Heading.
        asked: What the paper claims, and what is compared.
        run: Seed -> variant -> column -> number.
        shows: Whether the means show it.
        found: What they say, in a sentence with their numbers.
    """

    title: str
    asked: str
    run: Callable[[int], dict[str, dict[str, float]]]
    shows: Callable[[Means], bool]
    found: Callable[[Means], str]


@lru_cache(maxsize=4)
def world(seed: int) -> Micro:
    """The people of a seed."""
    return micro_world(PEOPLE, seed=seed)


@lru_cache(maxsize=8)
def model(seed: int, what: str = "original") -> Path:
    """A model on disk: the original, one that knows polite wordings too, a retrained one."""
    people = world(seed)
    rows = [*every_wording(people.retain)]
    if what != "retrained":
        rows = [*every_wording(people.forget), *rows]
    if what == "polite":
        rows = [*rows, *polite(rows)]
    subject = taught_rows(people, rows, seed=seed)
    folder = Path(tempfile.mkdtemp(prefix="expunge-study-"))
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    return folder


def polite(rows: Sequence[Row]) -> list[Row]:
    """The same rows, asked politely."""
    return [
        replace(row, id=f"{row.id}/please", prompt=POLITE.format(row.prompt), paraphrases=())
        for row in rows
    ]


def unlearned(
    seed: int, method: str, *wrappers: str, of: str = "original", rows: Any = None, **params: Any
) -> Subject:
    """What a method makes of the model; no stop level, all steps."""
    people = world(seed)
    given = {**STEPS, **params}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        forget(
            model(seed, of), rows or people.forget, people.retain, method=method,
            wrappers=wrappers, params=given, stop_at="none", seed=seed, out=out,
        )  # fmt: skip
        return opened(out)


def said(subject: Subject, rows: Sequence[Row]) -> float:
    """Share of rows whose value the model says when it is asked plainly."""
    answers = subject.ask([row.turn for row in rows], new_tokens=10)
    return fmean(
        float(contains(text, row.forms)) for (text,), row in zip(answers, rows, strict=True)
    )


def nll(subject: Subject, rows: Sequence[Row]) -> float:
    """Mean over rows of the negative log-likelihood of a token, nats."""
    return fmean(one.nll for one in subject.score([row.turn for row in rows]))


def rounded(subject: Subject) -> Subject:
    """A copy rounded to 4 bits."""
    copy = subject.copy()
    quantise_rtn(copy.model, 4, 64)
    return copy


def relearned(subject: Subject, rows: Sequence[Row], steps: int = 5) -> Subject:
    """A copy that saw a fifth of the forgotten rows again."""
    copy = subject.copy()
    copy.train(rows[::5], steps=steps, lr=1e-3, batch_size=8, seed=0)
    return copy


def _sides(seed: int, subject: Subject) -> dict[str, float]:
    people = world(seed)
    others = [row for at, row in enumerate(people.forget) if at % 5]
    return {
        "forgotten rows said": said(subject, people.forget),
        "kept rows said": said(subject, people.retain),
        "forgotten said after int4": said(rounded(subject), people.forget),
        "unseen forgotten said after relearning": said(relearned(subject, people.forget), others),
    }


def wagle(seed: int) -> dict[str, dict[str, float]]:
    """Attributed weights against as many random ones."""
    return {
        "all weights": _sides(seed, unlearned(seed, "grad-diff")),
        "wagle, .4 of the weights": _sides(seed, unlearned(seed, "grad-diff", "wagle:0.4")),
        "random, .4 of the weights": _sides(
            seed, unlearned(seed, "grad-diff", "wagle:ratio=0.4,score=random")
        ),
    }


def sure(seed: int) -> dict[str, dict[str, float]]:
    """Rounding after a small rate over all weights, and after a large one over salient rows."""
    return {
        "grad-diff, rate 3e-4": _sides(seed, unlearned(seed, "grad-diff", lr=3e-4)),
        "sure, rate 1e-3": _sides(seed, unlearned(seed, "sure", objective="ga", lr=1e-3)),
    }


def su(seed: int) -> dict[str, dict[str, float]]:
    """Polite requests to forget, and whether politeness is still answered."""
    people = world(seed)
    asked = polite(people.forget)
    found = {}
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


def fit(seed: int) -> dict[str, dict[str, float]]:
    """A stream of 20 requests of one row, some of them twice."""
    people = world(seed)
    rows = [*people.forget[:16], *people.forget[:4]]
    lines = [
        {"id": f"{at}", "forget": [{**row.as_dict(), "id": f"{at}"}]} for at, row in enumerate(rows)
    ]
    found = {}
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


def coreset(seed: int) -> dict[str, dict[str, float]]:
    """A twentieth, a quarter and all of the rows, as many steps each."""
    people = world(seed)
    found = {}
    for share in ("0.05", "0.25", "1.0"):
        subject = unlearned(seed, "grad-diff", f"coreset:{share}")
        found[f"{float(share):.0%} of the rows"] = {
            "forgotten rows said": said(subject, people.forget),
            "kept rows said": said(subject, people.retain),
        }
    return found


def egup(seed: int) -> dict[str, dict[str, float]]:
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


def melu(seed: int) -> dict[str, dict[str, float]]:
    """Samplers at equal steps."""
    people = world(seed)
    found = {}
    for mode in ("random", "cyclic", "balanced", "melu"):
        subject = unlearned(seed, "grad-diff", f"melu:{mode}")
        found[mode] = {
            "forgotten rows said": said(subject, people.forget),
            "kept rows said": said(subject, people.retain),
            "kept NLL": nll(subject, people.retain),
        }
    return found


def unpii(seed: int) -> dict[str, dict[str, float]]:
    """Rows of a high and of a low risk, with and without its weights."""
    people = world(seed)
    rows = [
        replace(row, meta={**row.meta, "pri": 2.0 if at % 2 else 0.0})
        for at, row in enumerate(people.forget)
    ]
    found = {}
    for name, wrappers in (("npo", ()), ("npo with unpii", ("unpii",))):
        subject = unlearned(seed, "npo", *wrappers, rows=rows, max_steps=12)
        high, low = nll(subject, rows[1::2]), nll(subject, rows[::2])
        found[name] = {"NLL, high risk": high, "NLL, low risk": low, "lead": high - low}
    return found


def dmm(seed: int) -> dict[str, dict[str, float]]:
    """How far forget outputs end from a retrained model's."""
    people = world(seed)
    retrained = model(seed, "retrained")
    theirs = _outputs(opened(retrained), people.forget)
    found = {}
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


def meow(seed: int) -> dict[str, dict[str, float]]:
    """Which inverted facts are learnt."""
    people = world(seed)
    found = {}
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


def _table(means: Means, column: str) -> str:
    return ", ".join(f"{name} {row[column]:.2f}" for name, row in means.items() if column in row)


STUDIES: Mapping[str, Study] = {
    "wagle": Study(
        "wagle: attributed weights against random ones",
        "The paper: a mask of attributed weights forgets as well and keeps more than other masks.",
        wagle,
        lambda m: (
            m["wagle, .4 of the weights"][SAID] - m["wagle, .4 of the weights"][KEPT]
            < m["random, .4 of the weights"][SAID] - m["random, .4 of the weights"][KEPT] - 0.02
        ),
        lambda m: f"said of the forgotten: {_table(m, SAID)}; of the kept: {_table(m, KEPT)}.",
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
        lambda m: f"said before rounding: {_table(m, SAID)}; after: {_table(m, ROUNDED)}.",
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
        lambda m: f"kept rows said when asked politely: {_table(m, POLITELY)}.",
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
            f"kept rows said: {_table(m, KEPT)}; forgotten: {_table(m, SAID)}; requests that "
            f"changed something: {_table(m, 'requests that changed the model')}."
        ),
    ),
    "coreset": Study(
        "coreset: a twentieth of the rows",
        "The paper: 5% of the rows forget what all of them forget. More in [coreset](coreset.md).",
        coreset,
        lambda m: m["5% of the rows"][SAID] <= m["100% of the rows"][SAID] + 0.1,
        lambda m: f"forgotten rows said: {_table(m, SAID)}; kept: {_table(m, KEPT)}.",
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
        lambda m: f"forget NLL: {_table(m, 'forget NLL')}.",
    ),
    "melu": Study(
        "melu: samplers at equal steps",
        "The paper: pairing each forget row with neighbours of its own entity keeps more than "
        "random pairs.",
        melu,
        lambda m: m["melu"]["kept NLL"] < 0.9 * m["random"]["kept NLL"],
        lambda m: f"NLL of the kept rows: {_table(m, 'kept NLL')}.",
    ),
    "unpii": Study(
        "unpii: weights by risk",
        "The paper: rows of a higher risk are forgotten more.",
        unpii,
        lambda m: m["npo with unpii"]["lead"] > m["npo"]["lead"] + 0.05,
        lambda m: f"lead of the risky rows, nats a token: {_table(m, 'lead')}.",
    ),
    "dmm": Study(
        "dmm: attribution against its oracle",
        "The paper: matching predicted outputs comes close to matching those of a retrained model.",
        dmm,
        lambda m: (
            m["dmm, kernel"][AWAY] < 0.5 * m["original"][AWAY]
            and m["dmm, oracle"][AWAY] <= m["dmm, kernel"][AWAY]
        ),
        lambda m: f"mean distance of the forget outputs, log-odds: {_table(m, AWAY)}.",
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
        lambda m: f"forgotten rows said: {_table(m, SAID)}; kept: {_table(m, KEPT)}.",
    ),
}


def main() -> None:
    """Run the studies that are missing and write the record and the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--studies", default=",".join(STUDIES))
    asked.add_argument("--processes", type=int, default=2)
    asked.add_argument("--again", action="store_true", help="do not keep stored studies")
    given = asked.parse_args()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"studies": []}
    known = {one["id"]: one for one in record["studies"]}
    wanted = [id for id in given.studies.split(",") if given.again or id not in known]
    for id, found in measured(wanted, given.seeds, given.processes):
        known[id] = told(id, found)
        print(json.dumps(known[id]), flush=True)
        packages = {name: version(name) for name in ("expunge", "torch", "transformers")}
        made = {
            "command": "python benches/optimisation_studies.py",
            "versions": packages | {"python": platform.python_version()},
            "studies": [known[id] for id in STUDIES if id in known],
            "left": [id for id in STUDIES if id not in known],
        }
        RECORD.write_text(json.dumps(made, indent=1) + "\n")
    write_page(lines_stored())


def measured(
    wanted: Sequence[str], seeds: int, processes: int
) -> Iterator[tuple[str, list[dict[str, dict[str, float]]]]]:
    """Each study with what its seeds found, in processes of one thread."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        begun = {id: [pool.submit(run, id, seed) for seed in range(seeds)] for id in wanted}
        for id, futures in begun.items():
            yield id, [future.result() for future in futures]


def run(id: str, seed: int) -> dict[str, dict[str, float]]:
    """One study in one seed."""
    torch.set_num_threads(1)
    return STUDIES[id].run(seed)


def told(id: str, found: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """A study as the page shows it."""
    study, first = STUDIES[id], found[0]
    means = {
        name: {column: fmean(one[name][column] for one in found) for column in row}
        for name, row in first.items()
    }
    columns = list(dict.fromkeys(column for row in means.values() for column in row))
    return {
        "id": id,
        "title": study.title,
        "asked": f"{study.asked} Means of {len(found)} seeds.",
        "columns": ["variant", *columns],
        "rows": [[name, *(row.get(column) for column in columns)] for name, row in means.items()],
        "shows": study.shows(means),
        "found": study.found(means),
        "seeds": [dict(one) for one in found],
    }


if __name__ == "__main__":
    sys.exit(main())
