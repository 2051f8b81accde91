"""Scope-aware unlearning: rows to be kept, behind the very prompts that are being forgotten.

Objective:
    L = L_u + eta * tokenmean( -log p( y | x_f + x ) )

    L_u is the whole loss of the wrapped method, x_f the prompt of a forget row of the step, put in
    front of prompt x and answer y of a retain row; y alone is supervised.

A loss that forgets makes the answer unlikely behind everything that stands before it: behind the
name of a person, and behind whatever else the request is worded with. Who words a request with
words that everybody uses ("please") so makes the model forget how to answer whoever is polite, and
no retain term can mend it, since retain rows do not hold the word. Behind the forgotten prompt
itself they do: the model learns that all but the answer asked for is still to be given. Nothing has
to be known of the words.

Every forget row of a step lends its prompt, in the wording drawn, to a retain row that is drawn
anew whenever the forget row comes round; to several, where a step has fewer forget rows than retain
rows. The answer of the forget row is never shown. ``order=both`` puts x_f behind x as often as in
front of it.

A model with a chat template sees one turn of the user with both questions, or two turns of one each
(``turns=two``; some templates refuse that). Which of them it was stands in the record.

Reference: Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy, 2025.

Departs from the paper:
    INFERRED: a space between the two prompts (on a tiny model a sign that stands nowhere else was
    learnt as the mark of what to keep, and half of the repair was gone); running text, which has
    no prompt, lends the first half of its words and takes a prompt in front of all of it.
    ``order=both`` is ours. A pair the model has no positions for is the retain row alone. The term
    rests with the forget term, at the stop level; no combiner changes it, and no ``forget_weight``
    weighs it. Where rows are weighed (unpii), a pair weighs what its forget row does.
"""

from dataclasses import dataclass, replace
from typing import Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.data.encode import Encoder
from expunge.engine.datasets import wordings_of
from expunge.engine.mean import Mean
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.lm.dialogue import asked, asking, messages_of
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "su",
    "kind": "wrapper",
    "summary": "Keeps rows behind the forgotten prompts, so that no everyday word is forgotten.",
    "paper": "Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy (2025)",
    "needs": ["forget", "retain", "scope"],
    "access": "weights",
    "cost": "1 more forward and backward a step, over retain rows as long as two prompts",
    "maturity": "paper",
    "version": 1,
    "value": "eta",
}

ETA = "su.eta"
BETWEEN = " "
SHAPES = {"one": "one turn", "two": "two turns"}

GENTLE = {"grad-diff": 2.0}
"""Method -> its weight, where it is another than the usual one."""

USUAL = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How much the kept answers weigh, and how the two prompts stand together."""

    eta: float | Literal["auto"] = param(
        "auto",
        help="weight of the kept answers; auto is 5, around grad-diff 2; 0 leaves them out",
        paper=[2, 5, 10, 12, 40],
        low=0.0,
    )
    order: Literal["forget_first", "both"] = param(
        "forget_first",
        help="the forgotten prompt in front, or behind in every second pair",
        paper="forget_first",
        choices=("forget_first", "both"),
    )
    turns: Literal["one", "two"] = param(
        "one",
        help="under a chat template: both questions in one turn of the user, or in two",
        choices=("one", "two"),
    )


def prepare(task: Task, params: Params) -> None:
    """Put retain rows behind the forgotten prompts."""
    has_template = task.encoder.has_template
    task.state[ETA] = params.eta if params.eta != "auto" else GENTLE.get(task.method, USUAL)
    task.record["eta"] = task.state[ETA]
    task.record["scope"] = SHAPES[params.turns] if has_template else "plain text"
    kept = [turn for row in task.retain for turn in wordings_of(row)]
    orders = 2 if params.order == "both" else 1

    def beside(row: Row, wording: int, candidate: int) -> Turn:
        place, behind = divmod(candidate, orders)
        forgotten, own = prompts_of(row)[wording], kept[place]
        if params.turns == "two" and has_template and not own.running:
            both = after(own, forgotten, behind=bool(behind))
        else:
            both = joined(own, forgotten, behind=bool(behind))
        return both if _fits(task.encoder, both) else own

    beside(task.forget[0], 0, 0)  # a template that refuses two turns says so before training
    size = task.params.batch_size * task.params.accumulation
    each = max(1, size // len(task.forget))  # a step has as many pairs as retain rows
    count = orders * len(kept)
    task.paired["scope"] = Paired(beside, count=count, take=min(each, count))


def joined(own: Turn, forgotten: str, *, behind: bool = False) -> Turn:
    """A turn whose question has the forgotten prompt in front of it, or behind it."""
    asks = asked(own)
    both = (asks, forgotten) if behind and asks else (forgotten, asks)
    return asking(own, BETWEEN.join(both))


def after(own: Turn, forgotten: str, *, behind: bool = False) -> Turn:
    """A conversation in which the user asks twice, and only the turn's own question is answered."""
    messages = messages_of(own)
    other = {"role": "user", "content": forgotten}
    last = (messages[-1], other) if behind else (other, messages[-1])
    return replace(own, prompt=(*messages[:-1], *last))


def scope(step: Step, params: Params) -> Mean | None:
    """Weighted token mean of the kept answers behind forgotten prompts, nats."""
    eta = step.state[ETA]
    return eta * step.scope.nll if eta else None


BESIDE = {"scope": scope}


def _fits(encoder: Encoder, turn: Turn) -> bool:
    try:
        encoder.encode(turn)
    except ExpungeError as error:
        if error.code != "E-DATA-011":
            raise
        return False
    return True
