"""Coreset study: the same method on ever smaller shares of the forget rows, in as many steps.

Definition (theta_p a model that forgot by a share p; L the mean loss of a token on some rows):
    curve       effectiveness and utility against p, over seeds; `coreset-effect` is its index
    barrier     max over a of L(a theta_1 + (1 - a) theta_p) - (a L(theta_1) + (1 - a) L(theta_p))

A barrier of 0 says that the model made from a few rows lies in the same basin as the one made from
all of them: they went the same way, and did not merely end with equal scores.

Reference: LLM Unlearning Reveals a Stronger-Than-Expected Coreset Effect in Current Benchmarks
(2025); the barrier as in Linear Mode Connectivity and the Lottery Ticket Hypothesis (2020).

Departs from the paper: only its abstract was read. Which rows the barrier is taken on is INFERRED:
the caller names them, usually forget and retain rows together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError
from expunge.core.measuring import measured
from expunge.core.results import Value
from expunge.engine.run import forget
from expunge.lm.load import load
from expunge.lm.mixing import Mixture
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)

Judge = Callable[[Subject], tuple[float, float]]
"""A model -> its effectiveness and its utility, both high when good, on all rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coresets:
    """What is run.

    Attributes:
        model: Folder of the original.
        forget: All rows to forget.
        retain: Rows to keep.
        method: Id.
        params: Its parameters.
        options: Of the wrapper ``coreset``: ``selector``, ``keywords`` ...
        shares: Shares of the forget rows, 1 among them.
        seeds: Of the draw and of the run.
        barrier: Rows the barrier is taken on; none skips it.
    """

    model: Path
    forget: Sequence[Row]
    retain: Sequence[Row]
    method: str = "npo"
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    shares: Sequence[float] = SHARES
    seeds: Sequence[int] = (0, 1, 2)
    barrier: Sequence[Row] = ()

    def wrapper(self, share: float) -> str:
        """The wrapper as the command line takes it."""
        own = "".join(f",{name}={value}" for name, value in self.options.items())
        return f"coreset:{share!r}{own}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run.

    Attributes:
        share: Of the forget rows.
        seed: Its seed.
        steps: Optimiser steps it took.
        effectiveness: As judged.
        utility: As judged.
        barrier: Towards the run over all rows with the same seed, nats a token; None without rows.
    """

    share: float
    seed: int
    steps: int
    effectiveness: float
    utility: float
    barrier: float | None


def study(coresets: Coresets, judge: Judge, out: Path) -> tuple[list[Run], Value]:
    """Run every share with every seed; the same folder resumes.

    Args:
        coresets: What is run.
        judge: How a model is judged.
        out: Folder of the changes and of ``coresets.json``.

    Returns:
        The runs, and `coreset-effect` of them.

    Raises:
        ExpungeError: E-USE-006 when 1 is not among the shares, or runs differ in length.
    """
    if 1.0 not in coresets.shares:
        raise ExpungeError(
            "E-USE-006",
            f"Shares {tuple(coresets.shares)} without 1.",
            "a run over all rows, which the others are compared with.",
            "Add 1 to the shares.",
        )
    runs = [
        _run(coresets, judge, share, seed, out)
        for seed in coresets.seeds
        for share in sorted(coresets.shares, reverse=True)
    ]
    _check_steps(runs)
    value = index(runs)
    record = {"runs": [_plain(run) for run in runs], "coreset_effect": value.as_dict()}
    write_json(out / "coresets.json", record)
    return runs, value


def index(runs: Sequence[Run]) -> Value:
    """`coreset-effect` of some runs."""
    named = {f"{run.share!r}/{run.seed}": run for run in runs}
    scores = {
        kind: {name: getattr(run, kind) for name, run in named.items()}
        for kind in ("effectiveness", "utility", "share")
    }
    return measured("coreset-effect", scores).value


def barrier(one: Subject, other: Subject, rows: Sequence[Row], points: int = 11) -> float:
    """Largest rise of the loss above the straight line between two models' losses, nats a token.

    Args:
        one: A model.
        other: Another of the same architecture.
        rows: What the loss is taken on.
        points: Models on the way, both ends among them.

    Returns:
        0 where the loss nowhere rises above the line.
    """
    mixture, turns = Mixture(other, one), [row.turn for row in rows]
    shares = np.linspace(0.0, 1.0, points)
    losses = [fmean(s.nll for s in mixture.at(float(a)).score(turns)) for a in shares]
    line = losses[0] + shares * (losses[-1] - losses[0])
    return float(np.max(np.array(losses) - line))


def _run(coresets: Coresets, judge: Judge, share: float, seed: int, out: Path) -> Run:
    folder = _folder(out, share, seed)
    done = forget(
        coresets.model,
        coresets.forget,
        coresets.retain,
        method=coresets.method,
        params=coresets.params,
        wrappers=(coresets.wrapper(share),),
        stop_at="none",
        seed=seed,
        out=folder,
    )
    subject = _subject(folder)
    effectiveness, utility = judge(subject)
    rise = None
    if coresets.barrier:
        rise = barrier(subject, _subject(_folder(out, 1.0, seed)), coresets.barrier)
    return Run(
        share=share,
        seed=seed,
        steps=int(done["steps"]),
        effectiveness=effectiveness,
        utility=utility,
        barrier=rise,
    )


def _folder(out: Path, share: float, seed: int) -> Path:
    return out / f"share{share!r}-seed{seed}"


def _subject(folder: Path) -> Subject:
    loaded = load(folder)
    return Subject(loaded.model, loaded.tokenizer)


def _check_steps(runs: Sequence[Run]) -> None:
    """A run that took fewer steps would look as if its share did less."""
    steps = {run.steps for run in runs}
    if len(steps) > 1:
        raise ExpungeError(
            "E-USE-006",
            f"Runs of {min(steps)} to {max(steps)} steps.",
            "as many steps for every share.",
            "Leave match_steps on, and end runs by max_steps or epochs alone.",
        )


def _plain(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}
