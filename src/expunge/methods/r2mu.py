"""R2MU: misdirect what leads to an answer as well as the answer, and keep the skill of reasoning.

Objective:
    L = gamma * ( mean_F( ||h_l - c u||^2 / d ) + w_t * mean_T( ||h_l - c u||^2 / d ) )
        + alpha * mean_R( ||h_l - h0_l||^2 / d ) + beta * mean_C( ||h_l - h0_l||^2 / d )

    F are the forget rows. T are traces: what the model itself goes on to think, behind a forget
    prompt, when it is asked to go step by step (written by the original before training, kept with
    the run; the first ``trace_tokens`` of each are pushed). R are retain rows, C rows of general
    reasoning with their thinking. All means are over real positions and channels; u, c and which
    matrices move: as rmu.

Reference: Reasoning Model Unlearning: Forgetting Traces, Not Just Answers, While Preserving
Reasoning Skills, 2025.

Departs from the paper:
    C is a file of rows, ``reasoning``; without one the retain rows stand in (INFERRED), which then
    count twice. Its rows are put together by text, since templates of reasoning models cut thinking
    out of what they render. As in rmu neither padding nor the first position is pushed. Rows of all
    four sets are drawn in pairs, so that no list ends the run before the others. What else the
    original code measures on the way is not. The paper's other variant, which makes words like
    *wait* unlikely, is left out. On small models rmu alone reaches thoughts that stand right behind
    the prompts it pushes; what shows there is the reasoning that stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge.core.families import SteeringParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.data import chat
from expunge.data.jsonl import read_rows
from expunge.engine.made import made_once
from expunge.engine.mean import Mean
from expunge.engine.misdirection import layer_of, mask, retain, steered
from expunge.engine.steering import directions, distance, positions_of, remember_topics, wide
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "r2mu",
    "kind": "gradient",
    "summary": "Misdirects answers and the thinking that leads to them; reasoning elsewhere stays.",
    "paper": "Reasoning Model Unlearning: Forgetting Traces, Not Just Answers, While Preserving "
    "Reasoning Skills (2025)",
    "needs": ["forget", "retain", "trace", "reasoning", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget, trace, retain and reasoning rows per step, not "
    "above the steered block; before that one sampled trace for each forget prompt",
    "maturity": "paper",
    "version": 1,
}

__all__ = ["BESIDE", "CARD", "Params", "forget", "mask", "prepare", "retain"]

CUE = " Let's think about it step by step. <think>"
"""What stands between a prompt and its trace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(SteeringParams):
    """Those of rmu, the traces, and the rows of reasoning."""

    retain_weight: float = param(
        1.5, help="weight of the retain term (alpha)", paper=[1.5, 2, 20], low=0.0
    )
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=[500, 300], low=1
    )
    steering: float = param(
        6.5, help="length of the vector activations are pushed onto (c)", paper=6.5, low=0.0
    )
    trace_weight: float = param(1.0, help="weight of the traces (w_t)", paper=1, low=0.0)
    trace_tokens: int = param(100, help="tokens of a trace that are pushed", paper=100, low=1)
    trace_written: int = param(512, help="tokens of a trace that are written", paper=512, low=1)
    reasoning_weight: float = param(
        1.0, help="weight of the rows of reasoning (beta)", paper=1, low=0.0
    )
    reasoning: str | None = param(
        None, help="file of rows with their thinking; none takes the retain rows", paper="LIMO"
    )
    reasoning_tokens: int = param(
        150, help="tokens of a row of reasoning that count", paper=150, low=2
    )

    def __post_init__(self) -> None:
        """Read the rows of reasoning once, so that a bad file is found before weights load.

        Raises:
            ExpungeError: ``E-DATA-001`` to ``E-DATA-012``, see `expunge.data.jsonl.read_rows`.
        """
        if self.reasoning is not None:
            read_rows(self.reasoning, "retain")


def prepare(task: Task, params: Params) -> None:
    """Let the model think about every forget prompt; put traces and reasoning beside the rows."""
    remember_topics(task)
    made = made_once(task, "traces", lambda: thoughts(task, params))
    known = {one["id"]: str(one["trace"]) for one in made}
    kept = reasoning_of(task, params)

    def trace(row: Row, wording: int, candidate: int) -> Turn:
        first = row.turns[0]
        return cut(task, replace(first, completion=CUE + known[row.id]), params.trace_tokens)

    def reasoning(row: Row, wording: int, candidate: int) -> Turn:
        return kept[candidate]

    task.paired["trace"] = Paired(trace, count=1)
    task.paired["reasoning"] = Paired(reasoning, count=max(1, len(kept)), beside="retain")


def forget(step: Step, params: Params) -> Mean:
    """How far forget rows are from the control vector, squared, per channel."""
    return away(step.forget, step.state, params)


def traces(step: Step, params: Params) -> Mean | None:
    """The same of what the model thinks about them."""
    if not params.trace_weight or "trace" not in step:
        return None
    return params.forget_weight * params.trace_weight * away(step.trace, step.state, params)


def reasoned(step: Step, params: Params) -> Mean | None:
    """How far the steered block has moved on rows of reasoning, squared, per channel."""
    if not params.reasoning_weight or "reasoning" not in step:
        return None
    view = step.reasoning
    layer = layer_of(params, view.blocks)
    positions = positions_of(view, "all", include_first=True)
    return params.reasoning_weight * distance(
        view.hidden(layer), wide(view.anchor.hidden(layer)), positions
    )


BESIDE = {"trace": traces, "reasoning": reasoned}


def away(view: View, state: dict[str, Any], params: Params) -> Mean:
    """Mean squared distance of a view's activations to the control vector, per channel."""
    hidden, positions = steered(view, params)
    return distance(hidden, params.steering * directions(view, state, hidden.shape[-1]), positions)


def thoughts(task: Task, params: Params) -> list[dict[str, Any]]:
    """What the model goes on to think behind every forget prompt, sampled once."""
    turns = [row.turns[0] for row in task.forget]
    room = min(
        task.encoder.max_length - len(task.encoder.prompt(t.prompt, t.running, CUE)) for t in turns
    )
    written = Subject(task.model, task.tokenizer).ask(
        turns, new_tokens=max(1, min(params.trace_written, room)), temperature=1.0,
        seed=derive(task.seed, "traces"), openings=[CUE] * len(turns),
    )  # fmt: skip
    return [
        {"id": row.id, "trace": trace} for row, (trace,) in zip(task.forget, written, strict=True)
    ]


def reasoning_of(task: Task, params: Params) -> Sequence[Turn]:
    """The rows of reasoning as running text, or the retain rows."""
    if params.reasoning is None:
        return [row.training for row in task.retain]
    rows = [row.turn for row in read_rows(params.reasoning, "retain")]
    whole = [Turn("", opened(task, turn) + turn.completion, running=True) for turn in rows]
    return [cut(task, turn, params.reasoning_tokens) for turn in whole]


def opened(task: Task, turn: Turn) -> str:
    """A prompt as text, up to where the model speaks."""
    if turn.running or not task.encoder.has_template:
        return turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    asked = turn.prompt
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    return chat.opened(task.tokenizer, messages)


def cut(task: Task, turn: Turn, tokens: int) -> Turn:
    """A turn whose completion ends after so many tokens."""
    found = task.tokenizer(
        turn.completion, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ends = [end for _, end in found["offset_mapping"]]
    if len(ends) <= tokens:
        return turn
    return replace(turn, completion=turn.completion[: ends[tokens - 1]])
