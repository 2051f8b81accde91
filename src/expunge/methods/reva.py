"""ReVa: lead a feature-randomised model to where it admits that it does not know.

Objective:
    L = gamma * mean_F( ||h_l - c r_l||^2 / d ) + alpha * mean_R( ||h_l - h0_l||^2 / d )

    r_l is the mean output of block l at the last token of some twenty prompts that nobody can
    answer, behind an instruction to be honest about what one does not know. It takes the place of
    rmu's random vector; it is neither normalised nor a difference. Means are over real positions
    and channels; which matrices move: as rmu, at block 18 of 32.

    start=given   the model has been randomised before (a change of rmu, arm or blur): r_l and the
                  anchor are its own
    start=rmu     it has not: for the first ``start_share`` of the run activations are pushed onto
                  rmu's random vector, then r_l is read from the model as it then is

Reference: Unlearners Can Lie: Evaluating and Improving Honesty in LLM Unlearning, 2025.

Departs from the paper:
    The questions and the instruction are our own; those of a file (``questions``) are asked as they
    stand there. Where no chat template is, the instruction stands in front of the question as text,
    and where a model has no room for it the question stands alone (INFERRED). With ``start=rmu``,
    which is INFERRED, the anchor of the rows to be kept is the original in both parts, and r_l is
    read at the end of every epoch of the first part. ``alpha`` is 1 for models of any size (paper:
    1200); as in rmu neither padding nor the first position is pushed.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import SteeringParams
from expunge.core.params import param
from expunge.data.encode import Encoder
from expunge.data.jsonl import read_rows
from expunge.engine import misdirection
from expunge.engine.known import known_items
from expunge.engine.mean import Mean
from expunge.engine.misdirection import steered
from expunge.engine.slots.mask import Mask
from expunge.engine.steering import at_depth, directions, distance, remember_topics, wide
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating, forward_to

CARD = {
    "id": "reva",
    "kind": "gradient",
    "summary": "Leads activations of forget text to where the model admits that it does not know.",
    "paper": "Unlearners Can Lie: Evaluating and Improving Honesty in LLM Unlearning (2025)",
    "needs": ["forget", "retain", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, not above the steered "
    "block; 20 prompts once; the anchor's outputs of that block are cached",
    "maturity": "paper",
    "version": 1,
}

VECTOR, AIMED = "reva.vector", "reva.aimed"

DEPTH = 18 / 32
"""The paper steers block 18 of 32."""

HONEST = (
    "You are an honest assistant. There are things you do not know and cannot know. When a "
    "question goes beyond your knowledge, say so plainly instead of guessing."
)
"""The instruction in front of every question."""

UNKNOWN = (
    "Who will win the football world cup of 2058?",
    "What will the weather be like in Lisbon on 3 March 2091?",
    "Which number will come first in the next national lottery?",
    "What did the mayor of Orvelle say in her speech last night?",
    "How many people live in the town of Quillmarsh?",
    "What is the middle name of the baker Tavin Oldmere?",
    "Which prize did the novel The Glass Orchardist receive?",
    "When was the Battle of Harrowfen fought?",
    "What is the boiling point of the metal veltrium?",
    "Who wrote the opera The Ninth Lamplighter?",
    "What am I holding in my left hand?",
    "Which song was playing in my kitchen this morning?",
    "How much money is in my neighbour's wallet?",
    "What will the price of one barrel of oil be in the year 2075?",
    "Who is going to be born first next year?",
    "What was the name of the first dog that ever barked?",
    "How many leaves fell in the forest of Brindlewick yesterday?",
    "Which colour did the unknown painter think of last?",
    "What does the sealed letter on my desk say?",
    "Where did the explorer Jorun Askelby lose her compass?",
)
"""Questions nobody can answer: the future, invented names, what only the asker could see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(SteeringParams):
    """Those of rmu, and where the model comes from."""

    retain_weight: float = param(1.0, help="weight of the retain term (alpha)", paper=1200, low=0.0)
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=150, low=1
    )
    layer: int | None = param(
        None,
        help="steered block (l), negative from the top; none takes the one at 18/32 of the depth",
        paper=[18, 25],
    )
    scale: float = param(1.0, help="factor on the vector (c)", paper=1, low=0.0)
    questions: str | None = param(
        None, help="file of rows whose prompts nobody can answer; none takes twenty of our own"
    )
    start: Literal["given", "rmu"] = param(
        "given",
        help="whether the model is randomised already, or is to be by rmu first",
        paper="given",
        choices=("given", "rmu"),
    )
    start_share: float = param(
        0.5, help="start=rmu: share of the run that randomises", low=0.0, high=1.0
    )
    steering: float = param(6.5, help="start=rmu: length of the random vector", paper=6.5, low=0.0)

    def __post_init__(self) -> None:
        """Read the questions once, so that a bad file is found before weights load.

        Raises:
            ExpungeError: ``E-DATA-001`` to ``E-DATA-012``, see `expunge.data.jsonl.read_rows`.
        """
        if self.questions is not None:
            read_rows(self.questions, "probe")


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The MLP output matrices of the steered block and the two below it (or of ``layers``)."""
    return misdirection.mask(model, task, _placed(params, len(Slots(model))))


def prepare(task: Task, params: Params) -> None:
    """Note the topics of the random vectors; read the refusal vector where it is time."""
    remember_topics(task)
    if params.start == "rmu":
        return
    refresh(task, params)
    if known := known_items(task, "exact"):
        note(
            f"reva: the model still says {len(known)} of the forget answers. On one that was not "
            "randomised before, only the surface learns to refuse: run rmu, arm or blur first, or "
            "use --set start=rmu.",
            known=len(known),
        )


def refresh(task: Task, params: Params) -> None:
    """Read the refusal vector: once from the given model, or anew until the first part is over."""
    if VECTOR not in task.tensors or (params.start == "rmu" and not task.state.get(AIMED)):
        task.tensors[VECTOR] = refusal_vector(task, params)


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of forget activations to the vector, per channel."""
    hidden, positions = steered(step.forget, _placed(params, step.forget.blocks))
    return distance(hidden, aim(step, hidden.shape[-1], params), positions)


def aim(step: Step, width: int, params: Params) -> Tensor:
    """What activations are pushed onto: rmu's random vector, then the refusal vector."""
    vector = step.tensors.get(VECTOR)
    if vector is None or (params.start == "rmu" and step.progress < params.start_share):
        return params.steering * directions(step.forget, step.state, width)
    step.state[AIMED] = True
    return params.scale * vector.to(step.forget.inputs.input_ids.device)


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term; ``mse`` compares the steered block."""
    return misdirection.retain(step, _placed(params, step.retain.blocks))


def refusal_vector(task: Task, params: Params) -> Tensor:
    """[d]: the mean output of the block at the last token of questions nobody can answer."""
    layer, states = layer_of(params, len(Slots(task.model))), []
    with evaluating(task.model):
        for ids in questions(task, params):
            given = torch.tensor([ids], device=task.model.device)
            states.append(wide(forward_to(task.model, layer, input_ids=given, use_cache=False)))
    return torch.stack([state[0, -1] for state in states]).mean(0).cpu()


def questions(task: Task, params: Params) -> list[list[int]]:
    """The questions as ids: those of the file, asked as they stand there, or our own."""
    if params.questions is None:
        return [asked(task.encoder, question) for question in UNKNOWN]
    turns = [row.turn for row in read_rows(params.questions, "probe")]
    return [task.encoder.prompt(turn.prompt, turn.running) for turn in turns]


def layer_of(params: Params, blocks: int) -> int:
    """The steered block of a model with so many."""
    return at_depth(DEPTH, blocks) if params.layer is None else params.layer


def _placed(params: Params, blocks: int) -> Params:
    """The parameters with the steered block settled."""
    return replace(params, layer=layer_of(params, blocks))


def asked(encoder: Encoder, question: str) -> list[int]:
    """A question behind the instruction, as ids; alone where the model has no room for that."""
    whole = f"{HONEST}\n\nQuestion: {question}\nAnswer:"
    ways: list[Any] = [whole, question]
    if encoder.has_template:  # some know no system
        told = {"role": "system", "content": HONEST}, {"role": "user", "content": question}
        ways = [told, f"{HONEST}\n\n{question}", question]
    for way in ways[:-1]:
        try:
            return encoder.prompt(way)
        except ExpungeError:
            continue
    return encoder.prompt(ways[-1])
