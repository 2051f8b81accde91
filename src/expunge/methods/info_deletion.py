"""Deletion defences: edits that leave no trace of an answer for whoever looks inside, either.

Objective (y: the first token of the answer; p_l: what block l would say, its hidden state read out
through the final norm and head; S: the defended blocks):
    objective=erase            p(y)
    objective=empty            -log p( fixed text )
    objective=error            -log p( a wrong answer )
    objective=head-projection  mean_{l in S} relu( p_l[y] - k-th largest of p_l )
                                           + relu( k-th smallest of p_l - p_l[y] )
    objective=max-entropy      mean_{l in S} -entropy( p_l )

    Each is a mean over an answer's prompts: bare, and behind ten texts; with ``rephrase`` also in
    the row's other wordings. It takes the place of the likelihood in the search for a value (the
    terms on drift and length stay), which `rome`'s or `memit`'s matrix then writes; ``editor=ft``
    descends on the weights themselves, none of which may move by more than ``eps``.

    An answer that is only made unlikely lies at the very bottom of p_l, where an attacker finds it
    as well; the second hinge keeps it out of there.

Reference: Can Sensitive Information Be Deleted From LLMs? Objectives for Defending Against
Extraction Attacks, 2023.

Departs from the paper:
    Facts are not filtered by what the model knows, and answers of several tokens are known by their
    first (which the paper's are made of). What is said before the fact belongs to the prompt.
    S is the upper half of the blocks where none are named. In other wordings the last token is
    edited, or the subject's; the paper's place before the last verb needs a parser (INFERRED).
    ``objective=error`` takes the row's own wrong answer, else one of another row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.events import progress
from expunge.core.families import EditParams
from expunge.core.params import param
from expunge.engine import rates
from expunge.engine.alternates import alternates_of
from expunge.engine.editing.associations import Association, Place, associations, secrets
from expunge.engine.editing.editors import all_at_once, one_by_one
from expunge.engine.editing.locating import Build, Plan, planned
from expunge.engine.editing.spreading import begun, over_blocks
from expunge.engine.editing.values import ENOUGH, Goal, mean_over, unlikely
from expunge.engine.finish import Finishing
from expunge.engine.made import made_once
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.sources import Live
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.lm.lens import lens

CARD = {
    "id": "info-deletion",
    "kind": "edit",
    "summary": "Edits that take an answer out of what every block would say, not only the last.",
    "paper": "Can Sensitive Information Be Deleted From LLMs? Objectives for Defending Against "
    "Extraction Attacks (2023)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "25 forwards and backwards over 11 prompts for each forget row, with a head product "
    "for each defended block; 1 pass over the texts of the second moment",
    "maturity": "paper",
    "version": 1,
    "adapters": False,
}

DEPTH = 6 / 28
"""Where the paper's GPT-J was edited."""

WINDOW = 3
"""Blocks that are edited by ``editor=memit``."""

PARAPHRASES = 5
"""Other wordings that count with ``rephrase``, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(EditParams):
    """The shared parameters of editing, what is to be made small, and who writes it."""

    objective: Literal["erase", "empty", "error", "head-projection", "max-entropy"] = param(
        "head-projection",
        help="what a value is to make small",
        paper=["erase", "empty", "error", "head-projection", "max-entropy"],
        choices=("erase", "empty", "error", "head-projection", "max-entropy"),
    )
    editor: Literal["rome", "memit", "ft"] = param(
        "memit",
        help="how values are written: one after the other into one block, all at once over three, "
        "or none, by descent on the weights of one block",
        paper=["rome", "memit", "ft"],
        choices=("rome", "memit", "ft"),
    )
    rephrase: bool = param(False, help="defend the rows' other wordings, too (input rephrasing)")
    target: Literal["text"] = param(
        "text", help="objective=empty says this; no other objective has one", choices=("text",)
    )
    merge: int = param(1, help="answers are hidden one by one", low=1, high=1)
    k: int = param(4, help="candidates at either end the answer is kept out of", paper=4, low=1)
    defended: tuple[int, ...] | None = param(
        None,
        help="blocks that are to give nothing away (S), negative from the top; none takes the "
        "upper half",
        paper=[8, 9, 16, 17, 18, 19, 20, 21, 22, 23],
    )
    layer: int | None = param(
        None,
        help="edited block, the top one of memit's three; negative from the top; none takes the "
        "one where values are found most easily",
        paper=[6, 7, 17],
    )
    contexts: int = param(
        10, help="texts of the model that each prompt is put behind as well", paper=10, low=0
    )
    mom2_update_weight: float | Literal["auto"] = param(
        "auto",
        help="editor=memit: weight of the second moment; auto as in memit",
        paper=15000,
        low=0.0,
    )
    eps: float = param(1e-4, help="editor=ft: how far a weight may move", paper=1e-4, low=0.0)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The output matrices of MLPs."""
    return mlp_outputs_only(model, range(len(Slots(model))))


def edit(change: Finishing, params: Params) -> None:
    """Find values by the objective and write them, or descend by it."""
    task = change.task
    goal, enough = goal_of(task, params)
    build = asked(task, params)
    if params.editor == "memit":
        top = params.layer
        named = params if top is None else replace(params, layers=window(task.model, top))
        over = over_blocks(
            change, named, depth=DEPTH, build=build, goal=goal, enough=enough, blocks=WINDOW
        )
        all_at_once(change, params, *over, params.mom2_update_weight)
        return
    plan = planned(
        change, params, slot="mlp", layer=params.layer, depth=DEPTH, build=build, goal=goal,
        enough=enough,
    )  # fmt: skip
    if params.editor == "rome":
        one_by_one(change, params, plan)
    else:
        descend(change, params, plan)


def asked(task: Task, params: Params) -> Build:
    """Place -> the answers to be hidden, or the prompts to be led elsewhere."""
    contexts, more = begun(task, params.contexts), PARAPHRASES if params.rephrase else 0
    targets = instead(task, params) if params.objective in ("empty", "error") else None

    def build(place: Place) -> list[Association]:
        rows, encoder = task.forget, task.encoder
        if targets is None:
            return secrets(rows, encoder, place=place, contexts=contexts, paraphrased=more)
        return associations(
            rows, targets, encoder, place=place, contexts=contexts, paraphrased=more
        )

    return build


def instead(task: Task, params: Params) -> dict[str, str]:
    """Row id -> the fixed text, or a wrong answer."""
    if params.objective == "empty":
        return {row.id: params.text for row in task.forget}
    own = {row.id: row.wrong[0].strip() for row in task.forget if row.wrong}
    if len(own) == len(task.forget):
        return own
    made = made_once(task, "alternates", lambda: alternates_of(task, 1, "permute"))
    others = {one["id"]: str(one["alternates"][0]["reply"]) for one in made}
    return others | own


def goal_of(task: Task, params: Params) -> tuple[Goal, float | None]:
    """What a value is to make small, and when it is small enough; what erases has no such level."""
    blocks = len(Slots(task.model))
    layers = params.defended or tuple(range(blocks // 2, blocks))
    readers: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "head-projection": partial(hinges, k=params.k),
        "max-entropy": certainty,
    }
    if params.objective in readers:
        return Read(task.model, layers, readers[params.objective]), None
    return (likely, None) if params.objective == "erase" else (unlikely, ENOUGH)


def likely(view: View, owner: Tensor, count: int) -> Tensor:
    """[n]: how likely the first token of an answer is, a mean over its prompts."""
    return mean_over(view.logp.exp(), owner, count)


@dataclass(frozen=True, slots=True)
class Read:
    """A measure of what some blocks would say, a mean over them and an answer's prompts.

    Attributes:
        model: The model.
        layers: The blocks.
        measure: ([B, V] probabilities, [B] answers) -> [B].
    """

    model: PreTrainedModel
    layers: Sequence[int]
    measure: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, view: View, owner: Tensor, count: int) -> Tensor:
        """[n]."""
        states = view.hiddens(self.layers)
        logits = [lens(self.model, states[layer][view.mask]) for layer in self.layers]
        each = [self.measure(one.float().softmax(-1), view.labels) for one in logits]
        return mean_over(torch.stack(each).mean(0), owner, count)


def hinges(p: Tensor, answer: Tensor, k: int) -> Tensor:
    """[B]: how far an answer is among the k likeliest and among the k least likely tokens.

    Args:
        p: [B, V], probabilities.
        answer: [B], tokens.
        k: Candidates at either end.
    """
    own = p.gather(1, answer[:, None])[:, 0]
    highest = p.topk(k, dim=1).values[:, -1]
    lowest = p.topk(k, dim=1, largest=False).values[:, -1]
    return (own - highest).relu() + (lowest - own).relu()


def certainty(p: Tensor, _: Tensor) -> Tensor:
    """[B]: minus the entropy of probabilities [B, V], nats."""
    minus: Tensor = torch.special.xlogy(p, p).sum(-1)
    return minus


def window(model: PreTrainedModel, top: int) -> tuple[int, ...]:
    """The blocks of which one is the top one."""
    last = Slots(model).index(top)
    return tuple(range(max(0, last - WINDOW + 1), last + 1))


def descend(change: Finishing, params: Params, plan: Plan) -> None:
    """Adam on one matrix, no entry of which may move by more than ``eps``."""
    model, goal = change.task.model, plan.search.goal
    weight: Any = Slots(model).module(plan.layer, "mlp_out").weight
    start, count = weight.detach().clone(), len(plan.asked)
    prompts = [(at, prompt) for at, one in enumerate(plan.asked) for prompt in one.prompts]
    inputs = plan.datasets.batch([prompt.item for _, prompt in prompts])
    owner = torch.tensor([at for at, _ in prompts], device=weight.device)
    size = sum(parameter.numel() for parameter in model.parameters())
    optimiser = torch.optim.Adam([weight], lr=rates.learning_rate(params, size, adapter=False))
    with progress("descent", params.v_num_grad_steps) as bar, torch.enable_grad():
        for _ in range(params.v_num_grad_steps):
            loss = goal(View(inputs, Live(model)), owner, count).mean()
            (weight.grad,) = torch.autograd.grad(loss, weight)
            optimiser.step()
            weight.grad = None
            with torch.no_grad():
                weight.copy_(weight.clamp(start - params.eps, start + params.eps))
            bar.advance(1)
    change.steps = count
