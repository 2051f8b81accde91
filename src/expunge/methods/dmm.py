"""Datamodel matching: train towards what a retrained model is predicted to say.

Objective:
    L = gamma * mean_F( ( f(x) - t(x) )^2 ) + alpha * mean_R( ( f(x) - t(x) )^2 )
    f(x) = log( p / (1 - p) ),   p = mean over the answer tokens of their probability
    t(x) = f_0(x) - what the forget rows contributed to it

    t is made once, before the first step, by a datamodel: a model, linear in which rows were
    trained on, of what training would have led to. Its features are gradients of f under the
    original, sketched to ``dim`` numbers, over forget and retain rows.

    datamodel=kernel    the linearised model trained without the forget rows (engine/attribution);
                        removal=joint takes them out at once, removal=additive sums what each alone
                        contributes
    datamodel=trak      one Newton step for each row, weighed by 1 - p; nearly nothing where rows
                        are known by heart
    oracle=DIR          t is what a retrained model says: the upper bound of the idea

Reference: Attribute-to-Delete: Machine Unlearning via Datamodel Matching, 2024.

Departs from the paper:
    The paper works on image classifiers. INFERRED for language models: one output a row, and that
    the attribution is of rows. ``kernel`` is ours: one-step influence has the factor 1 - p, which
    leaves nothing to match where p is near 1, and an additive model undercounts rows that say the
    same in other words. Datamodels by regression over many retrained models are not offered: with
    one retrained model at hand ``oracle`` is better. What a row untaught would say is taken from
    hold-out rows, or from forget prompts with other rows' answers, under the original. Such rows
    share what training changed everywhere, so the direction that the gradients of all rows to be
    kept share is left out of the features: with it, it explains nearly all. Features are taken of
    at most ``most`` rows to be kept; the others are matched with what the original says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core.events import progress
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.attribution import Linearised, Sketch
from expunge.engine.datasets import Datasets, reply_with
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.hooks import evaluating
from expunge.lm.load import load

CARD = {
    "id": "dmm",
    "kind": "gradient",
    "summary": "Matches the outputs that gradient attribution predicts of a retrained model.",
    "paper": "Attribute-to-Delete: Machine Unlearning via Datamodel Matching (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step; before it 1 backward "
    "over each forget row and up to 500 retain rows",
    "maturity": "paper",
    "version": 1,
}

TARGETS = "dmm.targets"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, and where targets come from."""

    datamodel: Literal["kernel", "trak"] = param(
        "kernel",
        help="what predicts the retrained outputs, where there is no oracle",
        paper="trak",
        choices=("kernel", "trak"),
    )
    removal: Literal["joint", "additive"] = param(
        "joint",
        help="datamodel=kernel: forget rows are taken out at once, or what each alone contributes "
        "is summed",
        paper="additive",
        choices=("joint", "additive"),
    )
    oracle: str | None = param(
        None, help="folder of a retrained model whose own outputs are matched"
    )
    dim: int = param(4096, help="numbers a gradient is sketched to", paper=[512, 4096], low=1)
    ridge: float = param(
        0.01, help="ridge (lambda), as a share of the kernel's mean diagonal", low=1e-12
    )
    most: int = param(500, help="retain items whose gradients are taken, at most", low=1)


def prepare(task: Task, params: Params) -> None:
    """Predict the outputs of a model retrained without the forget rows."""
    made = made_once(task, "outputs", lambda: targets(task, params))
    task.state[TARGETS] = {
        role: {str(one["item"]): one["target"] for one in made if one["role"] == role}
        for role in ("forget", "retain")
    }
    falls = [one["original"] - one["target"] for one in made if one["role"] == "forget"]
    task.record["predicted_fall"] = fmean(falls)


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of the outputs on forget rows to their targets."""
    return matched(step.forget, step.state.get(TARGETS, {}).get("forget", {}))


def retain(step: Step, params: Params) -> Mean:
    """The same on rows to be kept."""
    return matched(step.retain, step.state.get(TARGETS, {}).get("retain", {}))


def matched(view: View, wanted: dict[str, float]) -> Mean:
    """Mean over rows of ``(f - t)^2``; a row without a target has the target 0."""
    found = outputs(view)
    aims = [wanted.get(str(item), 0.0) for item in view.row.tolist()]
    return mean_of((found - found.new_tensor(aims)) ** 2)


def outputs(view: View) -> Tensor:
    """[B]: log-odds of the mean probability of each row's answer tokens."""
    rows, sizes = view.inputs.batch_row, view.lengths.clamp(min=1)
    logp = view.token_logp.double()
    missed = -torch.expm1(logp.clamp(max=-1e-12))
    sums = [logp.new_zeros(len(sizes)).index_add(0, rows, x) for x in (logp.exp(), missed)]
    said, unsaid = (one.clamp(min=1e-300).log() for one in sums)
    return said - unsaid


def targets(task: Task, params: Params) -> list[dict[str, Any]]:
    """For every item of forget and retain rows its target, and what the original says."""
    datasets = Datasets(task, device=str(task.model.device))
    items = [
        (role, item)
        for role in ("forget", "retain")
        for wordings in datasets.items(role)
        for item in wordings
    ]
    rows = [item for _, item in items]
    with evaluating(task.model):
        now = said(task.model, datasets, rows)
        if params.oracle is not None:
            aims = said(load(params.oracle).model, datasets, rows)
        else:
            aims = now.clone()
            chosen = _chosen(task, items, params.most)
            kept = [items[int(at)] for at in chosen]
            aims[chosen] = _predicted(task, datasets, kept, now[chosen], params)
    return [
        {"role": role, "item": item.row, "target": float(aim), "original": float(own)}
        for (role, item), aim, own in zip(items, aims, now, strict=True)
    ]


@torch.no_grad()
def said(model: Any, datasets: Datasets, items: Sequence[Encoded]) -> Tensor:
    """[N]: the outputs of a model."""
    found = [
        outputs(View(datasets.batch(items[start : start + 32]), Live(model)))
        for start in range(0, len(items), 32)
    ]
    return torch.cat(found).cpu()


def _predicted(
    task: Task,
    datasets: Datasets,
    items: Sequence[tuple[str, Encoded]],
    now: Tensor,
    params: Params,
) -> Tensor:
    """Outputs on some items, had the forget rows not been trained on; ``now`` are the present."""
    rows = [item for _, item in items]
    gone = [place for place, (role, _) in enumerate(items) if role == "forget"]
    features = featured(task, datasets, rows, params)
    strangers = said(task.model, datasets, _strangers(task))
    before = strangers.mean().expand(len(rows))
    own = beside(features, [at for at in range(len(rows)) if at not in set(gone)])
    linear = Linearised(own @ own.T, now - before, params.ridge)
    if params.datamodel == "trak":
        return now - linear.one_step(torch.sigmoid(now))[:, gone].sum(1)
    if params.removal == "additive":
        return now - linear.influences()[:, gone].sum(1)
    return now - linear.contributed(gone)


def beside(features: Tensor, kept: Sequence[int]) -> Tensor:
    """Features [N, D] without the direction that the kept rows' share."""
    shared = features[list(kept)].mean(0)
    shared = shared / shared.norm().clamp(min=1e-12)
    rest: Tensor = features - (features @ shared)[:, None] * shared
    return rest


@torch.enable_grad()
def featured(task: Task, datasets: Datasets, items: Sequence[Encoded], params: Params) -> Tensor:
    """[N, D]: the sketched gradient of the output on each item, over all weights that may move."""
    weights = [p for p in task.model.parameters() if p.requires_grad]
    sketch, found = Sketch(params.dim, task.seed), []
    with progress("attribution", len(items)) as bar:
        for item in items:
            output = outputs(View(datasets.batch([item]), Live(task.model))).sum()
            found.append(sketch(torch.autograd.grad(output, weights, allow_unused=True)))
            bar.advance(1)
    return torch.stack(found)


def _strangers(task: Task) -> list[Encoded]:
    """Rows nobody taught: hold-out rows, else forget prompts with the answers of other rows."""
    held = task.roles.get("holdout", ())
    if held:
        return [task.encoder.encode(row.training) for row in held]
    others = [*task.forget[1:], task.forget[0]] if len(task.forget) > 1 else list(task.retain[:1])
    pairs = zip(task.forget, others, strict=False)
    return [
        task.encoder.encode(reply_with(row.training, other.reply.strip())) for row, other in pairs
    ]


def _chosen(task: Task, items: Sequence[tuple[str, Encoded]], most: int) -> Tensor:
    """Places of all forget items and of some retain items."""
    forget = [at for at, (role, _) in enumerate(items) if role == "forget"]
    retain = [at for at, (role, _) in enumerate(items) if role == "retain"]
    if len(retain) > most:
        drawn = generator(task.seed, "dmm").choice(len(retain), most, replace=False)
        retain = sorted(retain[int(at)] for at in drawn)
    return torch.tensor([*forget, *retain])
