"""UWC, unlearning with control: as much of the change as the rest of the model can bear.

Objective:
    theta(a) = (1 - a) theta_0 + a theta_u               theta_u: what the wrapped method made
    a*       = largest a in [0, 1] with R(theta(a)) >= rho * R(theta_0)
    result     theta(a*)

    R is the extraction strength of retain rows: the share of an answer that follows by itself from
    what stands before it, a mean over rows; or the greedy token accuracy of their answers.

Two methods, or two settings of one, are only compared at the same utility; and a run that went
too far is brought back without another step. a* is found by bisection on a grid of ``tolerance``.
R need not fall steadily along the way, so neighbours are tried as well: as long as one of the next
two points above still holds the bar, a* moves up to it, and whether the point below holds it is
told. The record has all that was tried, and what can still be extracted of the forget rows, in
their own wording and in paraphrases, of the original, of theta_u and of the result.

Of an adapter the merged weights are mixed: a of its product, by scaling one factor. Scaling both
would be a squared. Both ends are bit for bit the original and what was trained.

Reference: Towards Effective Evaluations and Comparisons for LLM Unlearning Methods, 2024.

Departs from the paper:
    rho is .9 in the released code; the paper's .95 is quoted from memory (INFERRED). There the
    strength is found by one generation for every word of an answer, here by one forward pass for
    all its tokens. At most ``rows`` retain rows are asked (ours). It is refused around methods that
    make something of their trained weights themselves (merging): there is no way back along a
    line. The evaluation alone, without a change, is the metric ``uwc-score``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from types import ModuleType
from typing import Literal

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.engine.finish import Finishing
from expunge.engine.task import Task
from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn
from expunge.text.overlap import recalled_tail

CARD = {
    "id": "uwc",
    "kind": "wrapper",
    "summary": "Goes back from the trained weights until the rows to be kept are known again.",
    "paper": "Towards Effective Evaluations and Comparisons for LLM Unlearning Methods (2024)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "nothing a step; after it about 8 passes over retain rows and 3 over forget rows, and "
    "the moved weights twice in memory",
    "maturity": "paper",
    "version": 1,
    "value": "bar",
}

BEFORE = "uwc.before"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What must be left, and how finely a* is looked for."""

    bar: float = param(
        0.9,
        help="share of the original's retain metric to keep (rho)",
        paper=[0.9, 0.95],
        low=0.0,
        high=1.0,
    )
    metric: Literal["extraction", "accuracy"] = param(
        "extraction",
        help="what is kept: extraction strength of retain answers, or their greedy token accuracy",
        paper="extraction",
        choices=("extraction", "accuracy"),
    )
    tolerance: float = param(0.05, help="width of the grid of a", paper=0.05, low=1e-3, high=0.5)
    rows: int = param(200, help="most retain rows asked", low=1)


def refuse(
    module: ModuleType, settings: GradientParams, params: Params, rows: Mapping[str, Sequence[Row]]
) -> None:
    """Say why this cannot go around a method.

    Raises:
        ExpungeError: ``E-USE-006`` around one that goes on from its trained weights itself.
    """
    if hasattr(module, "finish"):
        raise ExpungeError(
            "E-USE-006",
            f"uwc around {module.CARD['id']}, which goes on from its trained weights itself.",
            "a method whose result is what it trained.",
            "Leave --with uwc out, or name another --method.",
        )


def prepare(task: Task, params: Params) -> None:
    """Take the retain metric of the original, before anything is trained.

    Raises:
        ExpungeError: ``E-USE-006`` when the original has nothing of it, so any model would do.
    """
    task.state[BEFORE] = kept = _kept(task, params)
    if not kept > 0:
        raise ExpungeError(
            "E-USE-006",
            f"The {params.metric} of the {task.record['uwc_rows']} retain rows asked is 0 for the "
            "original: nothing of it can be kept.",
            "retain rows that the model knows.",
            "Give --retain rows the model was trained on, use uwc:metric=accuracy, or leave "
            "--with uwc out.",
        )


def finish(change: Finishing, params: Params) -> None:
    """Go back to a*.

    Raises:
        ExpungeError: ``E-RUN-003`` when even the smallest step of the grid falls below the bar.
    """
    task, tried = change.task, dict[float, float]()
    wanted = params.bar * float(task.state[BEFORE])

    def holds(share: float) -> bool:
        if share not in tried:
            change.rescale(share)
            tried[share] = _kept(task, params)
        return tried[share] >= wanted

    grid = grid_of(params.tolerance)
    share = largest(holds, grid)
    if task.world is not None:
        share = task.world.agreed(share)
    if not share:
        raise _too_much(tried, wanted, params)
    below = grid[grid.index(share) - 1]
    change.record.update(
        uwc_share=share,
        uwc_is_steady=not below or holds(below),
        uwc={
            "metric": {"original": task.state[BEFORE], "wanted": wanted},
            "tried": [{"share": a, "metric": kept} for a, kept in sorted(tried.items())],
            "forget": {
                name: _left(change, a)
                for name, a in (("original", 0.0), ("trained", 1.0), ("result", share))
            },
        },
    )
    change.rescale(share)


def grid_of(width: float) -> list[float]:
    """The shares that are looked at, from 0 to 1.

    Example:
        >>> grid_of(0.3)
        [0.0, 0.3, 0.6, 0.9, 1.0]
    """
    below = [round(step * width, 9) for step in range(ceil(1 / width))]
    return [*(share for share in below if share < 1), 1.0]


def largest(holds: Callable[[float], bool], grid: Sequence[float]) -> float:
    """The largest share that holds the bar, as far as bisection and neighbours tell.

    Args:
        holds: Whether a share does; the first of the grid is taken to.
        grid: The shares, rising.

    Example:
        >>> grid = grid_of(0.25)
        >>> largest(lambda a: a <= 0.62, grid), largest(lambda a: a in (0.25, 0.75), grid)
        (0.5, 0.75)
    """
    low, high = 0, len(grid) - 1
    if holds(grid[high]):
        return grid[high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(grid[middle]) else (low, middle)
    while above := [at for at in range(low + 1, low + 3) if at < len(grid) and holds(grid[at])]:
        low = above[-1]
    return grid[low]


def strength(scored: Sequence[Scored]) -> float:
    """Mean over answers of the share of their tokens in the longest tail of first choices."""
    hits = [one.hit[: one.text_tokens].tolist() for one in scored if one.text_tokens]
    return fmean(map(recalled_tail, hits)) if hits else 0.0


def accuracy(scored: Sequence[Scored]) -> float:
    """Share of the answers' tokens that are the first choice."""
    hits = [hit for one in scored for hit in one.hit.tolist()]
    return fmean(hits) if hits else 0.0


def _kept(task: Task, params: Params) -> float:
    """The retain metric of the model as it is now."""
    rows = _asked(task.retain, params.rows, task.seed)
    task.record["uwc_rows"] = len(rows)
    scored = _scores(task, [row.turn for row in rows])
    return strength(scored) if params.metric == "extraction" else accuracy(scored)


def _asked(rows: Sequence[Row], most: int, seed: int) -> Sequence[Row]:
    if len(rows) <= most:
        return rows
    return [rows[at] for at in generator(seed, "uwc").choice(len(rows), most, replace=False)]


def _left(change: Finishing, share: float) -> Mapping[str, float]:
    """What can be extracted of the forget rows at a share, and how unlikely they are."""
    change.rescale(share)
    rows = change.task.forget
    reworded = [turn for row in rows for turn in row.turns[1:]]
    return {
        "extraction": strength(_scores(change.task, [row.turn for row in rows])),
        **({"reworded": strength(_scores(change.task, reworded))} if reworded else {}),
        "nll": change.levels()[0].nll,
    }


def _scores(task: Task, turns: Sequence[Turn]) -> list[Scored]:
    return Subject(task.model, task.tokenizer).score(turns) if turns else []


def _too_much(tried: Mapping[float, float], wanted: float, params: Params) -> ExpungeError:
    least = min(tried)
    return ExpungeError(
        "E-RUN-003",
        f"Already {least:g} of the change leaves a retain {params.metric} of {tried[least]:.3f}.",
        f"a share of the change that leaves at least {wanted:.3f}.",
        "Lower uwc:bar or uwc:tolerance, train less (--set lr, --set max_steps), or add a retain "
        "term.",
    )
