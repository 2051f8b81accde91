"""Depth of forgetting: whether another phrasing of the same answer falls with the forgotten one.

A model learns three answers to the same prompts, one after another: two compliant phrasings C and
U, and a refusal R. Every order of the three is one history. Then it forgets U by gradient ascent
that sees nothing else, and all three answers are weighed before and after.

Definition (a change is after minus before, of the mean over prompts of log p of a whole answer):
    held           U did not fall
    deep           U fell, and C fell with it
    superficial    U fell, and neither C nor R did
    astray         U fell, C did not, and R did
    following      change of C / change of U, where U fell; above 0 exactly in what is deep

Reference: On the Impossibility of Retrain Equivalence in Machine Unlearning (2025).

Departs from the paper: its rate is 5e-5, which moves a tiny model by next to nothing, so the rate
is given. Whole answers, the batch, the token mean of the ascended loss, and any fall, however
small, as a fall are INFERRED; `Verdict.following` says how large it was. The names of the two
cases it does not name are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, permutations
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch

from expunge.core.atomic import write_json
from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.data.encode import collate
from expunge.lab.path_dependence import Paths, Stage, label, learned
from expunge.lm.finetune import draws
from expunge.lm.hooks import learning
from expunge.lm.load import load
from expunge.lm.scoring import packed_logp, padding_id
from expunge.lm.subject import Subject

ANSWERS = ("C", "U", "R")
"""The other compliant phrasing, the one that is forgotten, the refusal."""

ORDERS = tuple(permutations(ANSWERS))
"""The six histories."""

Depth = Literal["deep", "superficial", "astray", "held"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What is learned, and how one answer is forgotten.

    Attributes:
        base: Folder of the model before all stages.
        stages: ``C``, ``U`` and ``R``: the same prompts, each with its own answers.
        lr: Rate of the ascent, plain stochastic gradient without momentum or clipping.
        epochs: Passes of the ascent over the rows of ``U``.
        orders: Histories to try.
        seeds: Of training and forgetting.
        batch_size: Rows of a step, of training and of forgetting.
    """

    base: Path
    stages: Mapping[str, Stage]
    lr: float
    epochs: int = 20
    orders: Sequence[Sequence[str]] = ORDERS
    seeds: Sequence[int] = (0, 1, 2)
    batch_size: int = 16


@dataclass(frozen=True, slots=True)
class Levels:
    """Mean over prompts of the log-probability of a whole answer, nats.

    Attributes:
        C: Of the other compliant phrasing.
        U: Of the forgotten one.
        R: Of the refusal.
    """

    C: float
    U: float
    R: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What forgetting did to one model.

    Attributes:
        before: Levels of the model that learned all three.
        after: Levels once U was forgotten.
    """

    before: Levels
    after: Levels

    @property
    def change(self) -> Levels:
        """After minus before."""
        was, now = self.before, self.after
        return Levels(now.C - was.C, now.U - was.U, now.R - was.R)

    @property
    def depth(self) -> Depth:
        """How deep the forgetting went."""
        change = self.change
        if change.U >= 0:
            return "held"
        if change.C < 0:
            return "deep"
        return "astray" if change.R < 0 else "superficial"

    @property
    def following(self) -> float | None:
        """Nats that C fell for each nat that U fell; None where U did not fall."""
        change = self.change
        return change.C / change.U if change.U < 0 else None


def depths(trial: Trial, out: Path) -> dict[str, Verdict]:
    """Try every order with every seed.

    Args:
        trial: What is learned and forgotten.
        out: Folder of the learned models, made once for all rates, and of ``depth-RATE.json``.

    Returns:
        Run ``ORDER/SEED`` -> what forgetting did.

    Raises:
        ExpungeError: ``E-USE-006`` when stages are not C, U and R over the same prompts or an
            order misses one, ``E-RUN-002`` when the ascent leaves the finite numbers.
    """
    _check(trial)
    found = {
        f"{label(order)}/{seed}": _verdict(trial, order, seed, out)
        for order in trial.orders
        for seed in trial.seeds
    }
    write_json(out / f"depth-{trial.lr:g}.json", {run: _record(v) for run, v in found.items()})
    return found


def ascend(subject: Subject, trial: Trial, seed: int) -> None:
    """Raise the loss of U in place, by plain stochastic gradient."""
    rows = trial.stages["U"].rows
    items = [subject.encoder.encode(row.training, row=number) for number, row in enumerate(rows)]
    pad = padding_id(subject.tokenizer)
    optimiser = torch.optim.SGD(subject.model.parameters(), lr=trial.lr)
    steps = trial.epochs * ceil(len(items) / trial.batch_size)
    order = draws([len(item.ids) for item in items], trial.batch_size, seed)
    with learning(subject.model):
        for step, batch in enumerate(islice(order, steps), start=1):
            optimiser.zero_grad(set_to_none=True)
            batched = collate([items[at] for at in batch], pad)
            likelihood = packed_logp(subject.model, batched).logp.mean()
            if not bool(torch.isfinite(likelihood)):
                raise _diverged(step, trial.lr)
            likelihood.backward()  # type: ignore[no-untyped-call]
            optimiser.step()


def levels(subject: Subject, stages: Mapping[str, Stage]) -> Levels:
    """How likely each answer is now."""
    return Levels(
        **{
            name: fmean(
                float(scored.logp.sum())
                for scored in subject.score([row.turn for row in stages[name].rows])
            )
            for name in ANSWERS
        }
    )


def _verdict(trial: Trial, order: Sequence[str], seed: int, out: Path) -> Verdict:
    paths = Paths(
        base=trial.base,
        stages=trial.stages,
        orders=trial.orders,
        unlearn="U",
        keep=trial.stages["C"].rows,
        batch_size=trial.batch_size,
    )
    loaded = load(learned(paths, order, seed, out))
    before = levels(Subject(loaded.model, loaded.tokenizer), trial.stages)
    subject = Subject(loaded.model, loaded.tokenizer)
    ascend(subject, trial, derive(seed, "path-depth"))
    # A subject of its own: one that has scored may remember what the weights said before.
    return Verdict(before, levels(Subject(subject.model, subject.tokenizer), trial.stages))
