"""Path dependence: the same data in another order, the same forgetting, and another model.

A model learns the stages in every order asked for, with every seed; each result then forgets one of
the stages, for a ladder of numbers of steps. Utilities are compared where all models have forgotten
equally much, so that "better kept" never means "less forgotten".

Definition (mean over rows of the mean log-probability of a token, nats; o before forgetting):
    forget score    mean over prompts and refusals of logp_o(refusal) - logp(refusal)
    utility         1 - | logp(true answers) - logp_o(true answers) |
    matched level   the smallest, over models, of the largest forget score on the ladder
    PS, PS(seed)    `path-spread` of the utilities where each ladder first crosses that level

Reference: On the Impossibility of Retrain Equivalence in Machine Unlearning (2025).

Departs from the paper: it runs one epoch and tabulates scores; the ladder and the matching are
ours. That its log-probabilities are means over tokens is INFERRED.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from expunge.core.atomic import new_folder, write_json
from expunge.core.errors import ExpungeError
from expunge.core.measuring import measured
from expunge.core.results import Value
from expunge.core.rng import derive
from expunge.engine.run import forget
from expunge.lm.finetune import finetune
from expunge.lm.load import load, quiet
from expunge.lm.subject import Subject
from expunge.requests.rows import Row

Forgetter = Callable[[Path, Sequence[Row], int, int, Path], Path]
"""Model folder, rows to forget, steps, seed, folder for the result -> the changed model."""

LEARNED = "learned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One thing a model learns.

    Attributes:
        rows: What is trained on.
        epochs: Passes over them.
        lr: Peak learning rate; optimiser and schedule begin anew with every stage.
    """

    rows: Sequence[Row]
    epochs: int
    lr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """What is trained, in which orders, and what is forgotten.

    Attributes:
        base: Folder of the model before all stages.
        stages: Name -> stage.
        orders: Each names all stages once.
        unlearn: Name of the stage that is forgotten.
        keep: Rows whose answers are to stay.
        refusals: Answers by which forgetting is measured, beside each row's own.
        ladder: Numbers of steps, rising.
        seeds: Of training and forgetting; three or more.
        batch_size: Rows of a training step.
    """

    base: Path
    stages: Mapping[str, Stage]
    orders: Sequence[Sequence[str]]
    unlearn: str
    keep: Sequence[Row]
    refusals: Sequence[str] = ()
    ladder: Sequence[int] = (2, 4, 8, 16)
    seeds: Sequence[int] = (0, 1, 2)
    batch_size: int = 16


@dataclass(frozen=True, slots=True)
class Point:
    """A model on the way.

    Attributes:
        steps: Steps of forgetting.
        score: Forget score, nats a token.
        utility: Utility, at most 1.
    """

    steps: int
    score: float
    utility: float


@dataclass(frozen=True, slots=True)
class Spread:
    """What came out of one method.

    Attributes:
        level: Forget score at which utilities are compared.
        ladders: Run ``ORDER/SEED`` -> its points.
        value: `path-spread`; its ``per_row`` are the utilities at the level.
    """

    level: float
    ladders: Mapping[str, Sequence[Point]]
    value: Value


def by_method(method: str, params: Mapping[str, Any]) -> Forgetter:
    """Forgetting by a method of the registry, at a constant rate so that longer runs go on shorter.

    Args:
        method: Its id.
        params: Its parameters, without ``max_steps``.
    """

    def run(model: Path, rows: Sequence[Row], steps: int, seed: int, out: Path) -> Path:
        own = {"schedule": "constant", "warmup": 0, **params, "max_steps": steps}
        forget(model, rows, method=method, params=own, stop_at="none", seed=seed, out=out)
        return out

    return run


def spread(paths: Paths, forgetter: Forgetter, out: Path, *, name: str) -> Spread:
    """Run the study for one method; the same folder resumes.

    Args:
        paths: What is learned and forgotten.
        forgetter: How.
        out: Folder of models and changes; learned models are shared by all methods.
        name: Of the method, for its folder.

    Raises:
        ExpungeError: E-USE-006 when the orders do not fit the stages, or a model did not forget.
    """
    _check(paths)
    ladders = {
        f"{label(order)}/{seed}": _ladder(paths, forgetter, order, seed, out / name)
        for order in paths.orders
        for seed in paths.seeds
    }
    found = compared(ladders)
    write_json(out / name / "spread.json", _record(found))
    return found


def compared(ladders: Mapping[str, Sequence[Point]]) -> Spread:
    """Utilities at the forget score that every run reaches.

    Raises:
        ExpungeError: E-USE-006 when some run never rises above 0.
    """
    reached = {run: max(point.score for point in points) for run, points in ladders.items()}
    run, level = min(reached.items(), key=lambda item: item[1])
    if level <= 0:
        raise ExpungeError(
            "E-USE-006",
            f"{run} did not forget: its refusals are as likely as before.",
            "a forget score above 0 somewhere on the ladder of every run.",
            "Raise the learning rate or the numbers of steps.",
        )
    utility = {run: utility_at(points, level) for run, points in ladders.items()}
    order = {run: run.rpartition("/")[0] for run in ladders}
    value = measured("path-spread", {"utility": utility, "order": order}).value
    return Spread(level, dict(ladders), value)


def utility_at(points: Sequence[Point], level: float) -> float:
    """Utility where the ladder first crosses a forget score, on the line between two rungs."""
    for before, after in pairwise((Point(0, 0.0, 1.0), *points)):
        if before.score < level <= after.score:
            share = (level - before.score) / (after.score - before.score)
            return before.utility + share * (after.utility - before.utility)
    raise ValueError(f"forget score {level} is not reached")


def learned(paths: Paths, order: Sequence[str], seed: int, out: Path) -> Path:
    """The model that learned the stages in an order; made once."""
    folder = out / LEARNED / f"{label(order)}-seed{seed}"
    if folder.exists():
        return folder
    loaded = load(paths.base)
    for place, name in enumerate(order):
        stage = paths.stages[name]
        finetune(
            loaded.model,
            loaded.tokenizer,
            stage.rows,
            epochs=stage.epochs,
            lr=stage.lr,
            batch_size=paths.batch_size,
            seed=derive(seed, "path", name, place),
            weight_decay=0.0,
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as made, quiet():
        loaded.model.save_pretrained(made)
        loaded.tokenizer.save_pretrained(made)
    return folder


def label(order: Sequence[str]) -> str:
    """An order in one word."""
    return "-".join(order)


def _ladder(
    paths: Paths, forgetter: Forgetter, order: Sequence[str], seed: int, out: Path
) -> list[Point]:
    model = learned(paths, order, seed, out.parent)
    rows = paths.stages[paths.unlearn].rows
    refused, told = _levels(model, paths)
    points = []
    for steps in paths.ladder:
        change = out / f"{label(order)}-seed{seed}-{steps}"
        now, still = _levels(forgetter(model, rows, steps, seed, change), paths)
        points.append(Point(steps, refused - now, 1.0 - abs(still - told)))
    return points


def _levels(folder: Path, paths: Paths) -> tuple[float, float]:
    """Mean log-probability of a token of the refusals, and of the answers to keep."""
    loaded = load(folder)
    subject = Subject(loaded.model, loaded.tokenizer)
    turns = [row.turn for row in paths.stages[paths.unlearn].rows]
    others = [replace(turn, completion=said) for turn in turns for said in paths.refusals]
    refused = -fmean(scored.nll for scored in subject.score([*turns, *others]))
    return refused, -fmean(scored.nll for scored in subject.score([r.turn for r in paths.keep]))


def _check(paths: Paths) -> None:
    wrong = [order for order in paths.orders if sorted(order) != sorted(paths.stages)]
    if wrong or paths.unlearn not in paths.stages or len(paths.orders) < 2:
        raise ExpungeError(
            "E-USE-006",
            f"Orders {[label(order) for order in paths.orders]} of the stages "
            f"{sorted(paths.stages)}, of which {paths.unlearn!r} is to be forgotten.",
            "two orders or more, each with every stage once; the forgotten one is among them.",
            "Correct the orders.",
        )


def _record(found: Spread) -> dict[str, Any]:
    ladders = {
        run: [{"steps": p.steps, "score": p.score, "utility": p.utility} for p in points]
        for run, points in found.ladders.items()
    }
    return {"level": found.level, "ladders": ladders, "path_spread": found.value.as_dict()}
