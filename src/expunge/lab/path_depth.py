"""Depth of forgetting: whether another phrasing of the same answer falls with the forgotten one.

A model learns three answers to the same prompts, one after another: two compliant phrasings C and
U, and a refusal R. Every order of the three is one history. Then it forgets U by gradient ascent
that sees nothing else, and all three answers are weighed before and after.

Definition (a change is after minus before, of the mean over prompts of log p of a whole answer):
    held           U did not fall
    deep           U fell, and C fell with it
    superficial    U fell, and neither C nor R did
    astray         U fell, C did not, and R did
    C at a fall    change of C where U had first fallen by so many nats, on the line between epochs

Reference: On the Impossibility of Retrain Equivalence in Machine Unlearning (2025).

Departs from the paper: its rate of 5e-5 moves most tiny models very little, so the rate is given
and INFERRED, as are the batch, the token mean of the ascended loss, and that any fall, however
small, is one. It learns through low-rank adapters by SGD; here all weights learn, by AdamW. It
judges at the end of the ascent, where some orders have forgotten far more than others: C at an
equal fall of U is ours, and so are the names of the two cases the paper has no word for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise, permutations
from math import ceil, isfinite
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
        track: Levels before forgetting and after each of its epochs.
    """

    track: Sequence[Levels]

    @property
    def change(self) -> Levels:
        """The end minus the beginning."""
        was, now = self.track[0], self.track[-1]
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

    def kin_at(self, fall: float) -> float | None:
        """Change of C where U had first fallen by some nats; None where it never did."""
        start = self.track[0]
        for was, now in pairwise(self.track):
            before, after = start.U - was.U, start.U - now.U
            if before < fall <= after:
                share = (fall - before) / (after - before)
                return was.C + share * (now.C - was.C) - start.C
        return None


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


def ascend(subject: Subject, trial: Trial, seed: int) -> Iterator[None]:
    """Raise the loss of U in place, by plain stochastic gradient.

    Yields:
        Nothing, after each epoch.
    """
    rows = trial.stages["U"].rows
    items = [subject.encoder.encode(row.training, row=number) for number, row in enumerate(rows)]
    optimiser = torch.optim.SGD(subject.model.parameters(), lr=trial.lr)
    order = draws([len(item.ids) for item in items], trial.batch_size, seed)
    for _ in range(trial.epochs):
        for batch in islice(order, ceil(len(items) / trial.batch_size)):
            optimiser.zero_grad(set_to_none=True)
            batched = collate([items[at] for at in batch], padding_id(subject.tokenizer))
            with learning(subject.model):
                likelihood = packed_logp(subject.model, batched).logp.mean()
                likelihood.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        yield


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
    subject = Subject(loaded.model, loaded.tokenizer)
    track = [levels(subject, trial.stages)]
    for epoch, _ in enumerate(ascend(subject, trial, derive(seed, "path-depth")), start=1):
        track.append(levels(subject, trial.stages))
        if not all(map(isfinite, asdict(track[-1]).values())):
            raise _diverged(epoch, trial.lr)
    return Verdict(track)


def _check(trial: Trial) -> None:
    prompts = {name: [row.prompt for row in stage.rows] for name, stage in trial.stages.items()}
    alike = len({tuple(map(str, asked)) for asked in prompts.values()}) == 1
    wrong = [order for order in trial.orders if sorted(order) != sorted(ANSWERS)]
    if sorted(prompts) != sorted(ANSWERS) or not alike or wrong:
        raise ExpungeError(
            "E-USE-006",
            f"Stages {sorted(prompts)}, {'the same' if alike else 'different'} prompts, orders "
            f"{[label(order) for order in trial.orders]}.",
            "stages C, U and R that answer the same prompts, and orders that name each once.",
            "Correct the stages or the orders.",
        )


def _diverged(epoch: int, lr: float) -> ExpungeError:
    return ExpungeError(
        "E-RUN-002",
        f"The ascent at rate {lr:g} left the finite numbers in epoch {epoch}.",
        "a finite log-probability.",
        "Lower the rate.",
    )


def _record(verdict: Verdict) -> dict[str, Any]:
    return {"depth": verdict.depth, "track": [asdict(levels) for levels in verdict.track]}
