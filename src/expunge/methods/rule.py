"""RULE: refusals first, then reinforcement on what to refuse and what to go on answering.

Objective (o drawn from the model for a prompt q, G answers a group; A = (R - mean) / (std + 1e-4)):
    L = tokenmean( -min( rho A, clip(rho, 1 - e, 1 + e_high) A ) + beta KL_3(p || p_1) )

    forget prompts      R = 1/2 [o refuses] + 1/2 [o refuses and names the subject]
    boundary prompts    R = 1/2 [o does not refuse] + 1/2 [and ROUGE-L recall of the answer > 0.3]
    p_1                 the model after the warm start, which is trained on refusals that name the
                        subject

Boundary prompts are neighbour rows, or the retain rows whose questions resemble those to be
forgotten most: what tells them apart from the forget prompts is the subject alone.

Reference: RULE: Reinforcement UnLEarning Achieves Forget-Retain Pareto Optimality, 2025.

Departs from the paper:
    INFERRED: both shares are of the forget rows. Of few rows at least ``fewest`` are taken, so that
    there is something to learn from. Boundary rows are those given, not written by a large model.
    Refusals are recognised by `expunge.text.refusal`, which asks for a speaker, a denial and a word
    of knowing near the beginning: the original pattern also takes long right answers for refusals.
    How often it errs on the answers to be kept is looked at before weights load, and from 1% on the
    run is refused. An answer without a word gets nothing. Recall counts the first words only, four
    times as many as the answer has: it would else reward length. Where a subject has no known name,
    a refusal gets the whole reward. The warm start ends by what is drawn
    (`expunge.engine.reinforcement.steering`) and its rate is scaled to the size of the model.
    INFERRED: the halves of ``half`` are a quarter each. Since rewards are normalised within a
    group, ``half`` moves the model as ``two-stage`` does; it is there for the numbers it logs.
    INFERRED: the learning rate grows as (5e8 / n)^0.667 for models of n parameters, fewer than 5e8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.families import ReinforcementParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.reinforcement.lessons import (
    Lesson,
    asking,
    drawn,
    lessons_of,
    mistaken,
    nearest,
    part_of,
    refuse_mistakes,
    refuse_running_text,
    sayable,
    saying,
)
from expunge.engine.task import Task
from expunge.requests.rows import Row
from expunge.text.match import contains
from expunge.text.naming import naming
from expunge.text.normalise import all_words
from expunge.text.overlap import rouge_l
from expunge.text.refusal import REFUSALS, is_refusal

CARD = {
    "id": "rule",
    "kind": "reinforcement",
    "summary": "Teaches refusals that name the subject, then rewards refusing forget prompts and "
    "answering those next to them.",
    "paper": "RULE: Reinforcement UnLEarning Achieves Forget-Retain Pareto Optimality (2025)",
    "needs": ["forget", "retain", "neighbour"],
    "access": "weights",
    "cost": "8 drawn answers a prompt, 1 forward and backward over them and 1 forward of the "
    "reference; a second model in memory, or a second adapter",
    "maturity": "paper",
    "version": 1,
    "rate_exponent": 0.667,
}

Weights = tuple[float, float]
SHAPES: Mapping[str, Mapping[str, Weights]] = {
    "two-stage": {"forget": (0.5, 0.5), "keep": (0.5, 0.5)},
    "muse": {"forget": (1.0, 0.0), "keep": (0.5, 0.5)},
    "absolute": {"forget": (1.0, 0.0), "keep": (1.0, 0.0)},
    "half": {"forget": (0.25, 0.25), "keep": (0.5, 0.5)},
    "mixed": {"forget": (0.7, 0.3), "keep": (0.7, 0.3)},
}
"""Shape -> aim -> what the right choice between refusing and answering is worth, and what making it
well is worth."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(ReinforcementParams):
    """The shared parameters, the shares of the rows, and the rewards."""

    forget_share: float = param(
        0.12, help="share of the forget rows that are asked", paper=0.12, low=0.0, high=1.0
    )
    boundary_share: float = param(
        0.08, help="how many boundary rows are asked, as a share of the forget rows",
        paper=0.08, low=0.0,
    )  # fmt: skip
    fewest: int = param(16, help="rows of each kind that are asked in any case", paper=1, low=1)
    reward: Literal["two-stage", "muse", "absolute", "half", "mixed"] = param(
        "two-stage",
        help="two-stage: half for the choice, half for making it well; muse: refusals need not "
        "name; absolute: the choice alone; half: refusals half as much; mixed: 0.7 and 0.3",
        paper="two-stage",
        choices=("two-stage", "muse", "absolute", "half", "mixed"),
    )
    recall: float = param(
        0.3, help="ROUGE-L recall above which an answer is a good one", paper=0.3, low=0.0, high=1.0
    )
    window: float | None = param(
        4.0,
        help="of an answer only so many times the words of the true one count; none counts all",
        low=1.0,
    )
    false_positives: float = param(
        0.01,
        help="share of answers to be kept that look like refusals at which the run is refused",
        paper=0.01,
        low=0.0,
    )
    accumulation: int = param(4, help="parts an optimiser step is made of", paper=4, low=1)
    epochs: int | None = param(
        None, help="passes over the prompts; none leaves it to max_steps", paper=1, low=1
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=2e-6, low=0.0
    )
    weight_decay: float = param(0.01, help="decoupled weight decay", paper=0.01, low=0.0)
    epsilon_high: float | None = param(
        0.3, help="how far a ratio may rise before it is clipped", paper=0.3, low=0.0
    )
    dual_clip: float | None = param(
        3.0, help="largest ratio that counts against a bad answer; none has no bound", paper=3
    )


def refuse(rows: Mapping[str, Sequence[Row]], params: Params) -> None:
    """Refuse what no reward can be given for.

    Raises:
        ExpungeError: ``E-USE-007`` without questions to refuse or to answer, ``E-USE-006`` when
            too many answers to be kept look like refusals.
    """
    refuse_running_text("rule", rows)
    kept = _boundary(rows)
    if not kept:
        raise ExpungeError(
            "E-USE-007",
            "rule without questions that are to be answered still.",
            "neighbour or retain rows with a prompt and a completion.",
            "Give --neighbour FILE or --retain FILE.",
        )
    refuse_mistakes(kept, params.false_positives)


def prepare(task: Task, params: Params) -> None:
    """Record how often the rule for refusals errs on answers to be kept."""
    kept = _boundary(task.roles)
    task.record["false_positives"] = round(len(mistaken(kept)) / len(kept), 6)


def lessons(task: Task, params: Params) -> list[Lesson]:
    """Prompts to refuse, and boundary prompts to answer."""
    return _lessons(task.roles, params, task.seed)


def passes(rows: Mapping[str, Sequence[Row]], params: Params, seed: int) -> int:
    """How many lessons there are."""
    return len(_lessons(rows, params, seed))


def steering(task: Task, params: Params, lessons: Sequence[Lesson]) -> list[Row]:
    """A refusal that names the subject after each forget prompt."""
    rows = []
    for number, lesson in enumerate(lessons):
        named = [one for name in lesson.names[:1] for one in naming(name)]
        texts = sayable(task.encoder, named, REFUSALS)
        chosen = derive(task.seed, "refusal", lesson.row.id, number) % len(texts)
        rows.append(saying(lesson, texts[chosen], number))
    return rows


def refusal(said: str, lesson: Lesson, task: Any, params: Params) -> float | None:
    """The reward of an answer to a forget prompt: refuses, and names the subject."""
    if lesson.aim != "forget":
        return None
    refuses = bool(is_refusal(said))
    names = not lesson.names or contains(said, lesson.names)
    return _worth(params, "forget", refuses, refuses and names)


def answer(said: str, lesson: Lesson, task: Any, params: Params) -> float | None:
    """The reward of an answer to a boundary prompt: does not refuse, and is right."""
    if lesson.aim != "keep":
        return None
    answers = bool(all_words(said)) and not is_refusal(said)
    return _worth(params, "keep", answers, answers and recalled(said, lesson, params))


REWARDS = {"refusal": refusal, "answer": answer}


def recalled(said: str, lesson: Lesson, params: Params) -> bool:
    """Whether enough of the true answer is said, within the words that count."""
    most = None if params.window is None else round(params.window * len(lesson.gold.split()))
    return rouge_l(" ".join(said.split()[:most]), lesson.gold).recall > params.recall


def _worth(params: Params, aim: str, is_right: bool, is_done_well: bool) -> float:
    choice, well = SHAPES[params.reward][aim]
    return choice * is_right + well * is_done_well


def _boundary(rows: Mapping[str, Sequence[Row]]) -> list[Row]:
    """What boundary rows are chosen from: neighbours where there are any."""
    return asking(rows.get("neighbour", ())) or asking(rows.get("retain", ()))


def _lessons(rows: Mapping[str, Sequence[Row]], params: Params, seed: int) -> list[Lesson]:
    forget, wrong = rows["forget"], mistaken(_boundary(rows))
    kept = [row for row in _boundary(rows) if row not in wrong]
    asked = drawn(forget, part_of(len(forget), params.forget_share, params.fewest), seed, "rule")
    count = min(len(kept), max(round(params.boundary_share * len(forget)), params.fewest))
    return [
        *lessons_of(asked, "forget", among=forget),
        *lessons_of(nearest(asked, kept, count), "keep"),
    ]
