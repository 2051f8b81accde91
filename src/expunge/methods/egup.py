"""EGUP: as much effort for each row as its entanglement and its distance ask for, within a bound.

Objective:
    L = gamma * sum_i w_i v_i L_F(i) / sum_i w_i v_i + alpha * RETAIN
        + lambda * mean_i( max(0, N_i - b_i)^2 )

    w_i = softmax_i( c_i / tau ) * |F|,         c_i = cos( E_i, mean_{r in R} E_r )
    v_i = clip( 1 - d_i / (rho d*_i), 0, 1 ),   d_i = 1 - cos( H_i, H0_i )
    d*_i = mean_p( 1 - cos( H0_i, H0_p ) ),     b_i = mean_p( N0_p ),   p over look-alikes of i

    L_F(i) is the base loss of a row and N_i its token-mean negative log-likelihood. E_i and H_i are
    the mean states of a row at one block; what has a 0 is under the original. Rows close to what is
    kept get more effort (w), rows whose state has moved rho times as far as their look-alikes lie
    away get none (v), and no row is pushed above the level of text of its kind that the model never
    saw (b). Efforts are looked up anew after every epoch, and no gradient flows into them.

Reference: Towards Mitigating Excessive Forgetting in LLM Unlearning via Entanglement-Guidance with
Proxy Constraint, 2025.

Departs from the paper:
    Its full text could not be read. INFERRED: the form of w and the value of tau; the whole of v
    and of rho (at 1, small models end well below the bound, since their states turn further than
    those of look-alikes lie apart); that E and H are mean outputs of the last block over all real
    tokens (``layer``); the hinge, the square and the weight of the bound, and three look-alikes a
    row. Ours are entanglement=max and top5, which compare with single retain rows. The centroid is
    that of at most ``retain_rows`` rows. A row without look-alikes is bounded by what a guess among
    all tokens costs and always has v = 1. Where a model writes its own look-alikes it finds them
    likelier than text of other authors, and such a bound lies lower; source=invented takes none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.encode import Encoded, by_length
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import preference
from expunge.engine.proxies import proxies_of, turns_by_row
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import EMBEDDING, evaluating
from expunge.lm.subject import Subject

CARD = {
    "id": "egup",
    "kind": "gradient",
    "summary": "A base loss with an effort of its own for each row, bounded by look-alikes the "
    "model never saw.",
    "paper": "Towards Mitigating Excessive Forgetting in LLM Unlearning via Entanglement-Guidance "
    "with Proxy Constraint (2025)",
    "needs": ["forget", "anchor"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; after every epoch 1 "
    "forward over the forget rows and a sample of the retain rows; before training the model "
    "writes k look-alikes of every forget row; the anchor is cached",
    "maturity": "paper",
    "version": 1,
    "loss_of": "npo",
}

EFFORT, LEFT, BOUNDS, REACH = "egup.effort", "egup.left", "egup.bounds", "egup.reach"
START = "egup.start"

TOP = 5
"""Retain rows that entanglement=top5 takes the mean of."""

SMALLEST = 1e-12
"""A look-alike no further away than this is where the row itself is."""

BATCH = 32
"""Rows of a forward pass without gradient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the base loss, the effort and the bound."""

    base: Literal["npo", "ga"] = param(
        "npo",
        help="loss of a row: negative preference, or ascent (with a retain term: grad-diff)",
        paper="npo",
        choices=("npo", "ga"),
    )
    beta: float = param(0.1, help="base=npo: sharpness", paper=0.1, low=1e-6, high=100.0)
    temperature: float = param(
        0.1, help="of the softmax over rows; a high one gives all rows the same", low=1e-6
    )
    entanglement: Literal["centroid", "max", "top5"] = param(
        "centroid",
        help="what a row is compared with: the mean of the retain rows, the closest, the closest 5",
        paper="centroid",
        choices=("centroid", "max", "top5"),
    )
    layer: int | Literal["embedding"] = param(
        -1, help="block whose outputs are compared, negative from the top; or the input table"
    )
    retain_rows: int = param(200, help="retain rows they are compared with, at most", low=1)
    reach: float = param(
        2.0, help="times the distance of its look-alikes a row's state may move (rho)", low=1e-6
    )
    proxies: int = param(3, help="look-alikes of each forget row (k)", low=1, high=50)
    proxy_weight: float = param(1.0, help="weight of the bound (lambda)", low=0.0)
    source: Literal["auto", "model", "invented"] = param(
        "auto",
        help="who gives look-alikes: the model, rows it never saw, or those where it gives too few",
        paper="model",
        choices=("auto", "model", "invented"),
    )


def prepare(task: Task, params: Params) -> None:
    """Get the look-alikes, their level and distance under the original, and the first efforts."""

    def proxies() -> list[dict[str, Any]]:
        return proxies_of(task, params.proxies, params.source)

    made = made_once(task, "proxies", proxies)
    origins = [told["origin"] for record in made for told in record["proxies"]]
    task.record["proxies_invented"] = origins.count("model")
    task.record["proxies_unseen"] = origins.count("unseen")
    turns = turns_by_row(made)
    flat = [(at, turn) for at, row in enumerate(task.forget) for turn in turns[row.id]]
    alike = [turn for _, turn in flat]
    levels: list[list[float]] = [[] for _ in task.forget]
    apart: list[list[float]] = [[] for _ in task.forget]
    with evaluating(task.model):
        start = task.tensors[START] = pooled(task, _own(task, "forget"), params.layer)
        scored = Subject(task.model, task.tokenizer).score(alike)
        states = pooled(task, [task.encoder.encode(turn) for turn in alike], params.layer)
        for (at, _), level, state in zip(flat, scored, states, strict=True):
            levels[at].append(level.nll)
            apart[at].append(float(distance(start[at], state)))
        guess = math.log(task.model.config.get_text_config().vocab_size)
        bounds = [fmean(own) if own else guess for own in levels]
        task.record["bound"] = fmean(bounds)
        task.state[BOUNDS] = _by_item(task, bounds)
        task.state[REACH] = [fmean(own) if own else None for own in apart]
        refresh(task, params)


def refresh(task: Task, params: Params) -> None:
    """Look up anew how entangled each forget row is, and how far its state has moved."""
    now = pooled(task, _own(task, "forget"), params.layer)
    kept = pooled(task, _own(task, "retain", params.retain_rows), params.layer)
    effort = weights(entangled(now, kept, params.entanglement), params.temperature)
    moved = distance(now, task.tensors[START].to(now))
    left = torch.tensor(
        [
            1.0 if far is None else max(0.0, 1 - float(one) / max(params.reach * far, SMALLEST))
            for one, far in zip(moved, task.state[REACH], strict=True)
        ],
        dtype=now.dtype,
    )
    found = {EFFORT: _by_item(task, (effort * left).tolist()), LEFT: left.tolist()}
    task.state.update(found if task.world is None else task.world.agreed(found))


def forget(step: Step, params: Params) -> Mean:
    """The base loss, a mean over rows (npo) or tokens (ga) weighted by the rows' efforts."""
    view = step.forget
    if LEFT in step.state:
        step.report(LEFT, mean_of(torch.tensor(step.state[LEFT])))
    effort = of_rows(view, step.state.get(EFFORT), 1.0)
    if params.base == "npo":
        ratio = view.logp - view.anchor.logp
        return weighted(preference(ratio, params.beta), effort)
    return weighted(view.token_logp, effort[view.inputs.batch_row])


def constraint(step: Step, params: Params) -> Mean:
    """Mean over rows of the squared excess over their bounds, nats squared, weighted."""
    view = step.forget
    bounds = of_rows(view, step.state.get(BOUNDS), math.inf)
    over = (-view.logp_mean - bounds.to(view.logp)).relu()
    return params.proxy_weight * mean_of(over**2)


BESIDE = {"constraint": constraint}


def weighted(values: Tensor, effort: Tensor) -> Mean:
    """The mean by efforts, whose sum is exact however a step is cut; 0 where that is 0."""
    return Mean((effort.to(values) * values).sum(), effort.sum().clamp(min=SMALLEST**2))


def weights(similarity: Tensor, temperature: float) -> Tensor:
    """[n]: softmax of similarities [n], times their number; exactly 1 where all are equal."""
    raised = ((similarity - similarity.max()) / temperature).exp()
    return raised / raised.mean()


def entangled(forget: Tensor, retain: Tensor, how: str) -> Tensor:
    """[n]: how alike the states [n, d] of forget rows are to those [m, d] of retain rows."""
    if how == "centroid":
        return normalize(forget, dim=1) @ normalize(retain.mean(0), dim=0)
    cosine = normalize(forget, dim=1) @ normalize(retain, dim=1).T
    return cosine.topk(1 if how == "max" else min(TOP, len(retain)), dim=1).values.mean(1)


def distance(states: Tensor, other: Tensor) -> Tensor:
    """[n]: 1 - cosine of states [n, d] and others; exactly 0 for equal ones."""
    apart = normalize(states, dim=-1) - normalize(other, dim=-1)
    return apart.square().sum(-1) / 2


def pooled(task: Task, items: Sequence[Encoded], layer: int | str) -> Tensor:
    """[n, d] float64: output of a block, a mean over the real tokens of each item."""
    at = EMBEDDING if isinstance(layer, str) else layer
    datasets = Datasets(task, device=str(task.model.device))
    means: dict[int, Tensor] = {}
    for batch in by_length([len(item.ids) for item in items], BATCH):
        view = View(datasets.batch([items[place] for place in batch]), Live(task.model))
        real = view.inputs.attention_mask.bool()[..., None]
        sums = torch.where(real, view.hidden(at).double(), 0.0).sum(1) / real.sum(1)
        means.update(zip(batch, sums.cpu(), strict=True))
    return torch.stack([means[place] for place in range(len(items))]) if items else torch.zeros(0)


def of_rows(view: View, values: Sequence[float] | None, otherwise: float) -> Tensor:
    """[B] float64: the value of each row's item in a view; ``otherwise`` where none are known."""
    known = [otherwise] * (int(view.row.max()) + 1) if values is None else values
    return torch.tensor(known, dtype=torch.float64, device=view.row.device)[view.row]


def _by_item(task: Task, values: Sequence[float]) -> list[float]:
    """The value of each forget row for all of its wordings."""
    rows = zip(task.forget, values, strict=True)
    return [value for row, value in rows for _ in wordings_of(row)]


def _own(task: Task, role: str, most: int | None = None) -> list[Encoded]:
    """The rows of a role in their own wording, at most so many, drawn once for the run."""
    items = [wordings[0] for wordings in Datasets(task).items(role)]
    if most is None or len(items) <= most:
        return items
    drawn = generator(task.seed, "entanglement").choice(len(items), most, replace=False)
    return [items[int(place)] for place in sorted(drawn)]
