"""Datamodel matching: train towards what a retrained model is predicted to say.

Objective:
    L = gamma * mean_F( ( f(x) - t(x) )^2 ) + alpha * mean_R( ( f(x) - t(x) )^2 )
    f(x) = log( p / (1 - p) ),   p = mean over the answer tokens of their probability
    t(x) = f_0(x) - what the forget rows contributed to it

    t is made once, before the first step, by a datamodel: a model, linear in which rows were
    trained on, of what training would have led to. kernel and trak estimate it from gradients of f
    under the original, sketched to ``dim`` numbers, over forget and retain rows; regression from
    what other models say.

    datamodel=kernel      the linearised model trained without the forget rows (engine/attribution);
                          removal=joint takes them out at once, removal=additive sums what each
                          alone contributes
    datamodel=trak        one Newton step for each row, weighed by 1 - p; nearly nothing where rows
                          are known by heart
    datamodel=regression  m models are trained from ``base`` as `retrain` does, each on rows drawn
                          anew, and f is regressed on which rows they had (engine/subsets):
                              f(x; S) = b(x) + sum_i beta_i(x) 1[i in S]
                              t(x) = f_0(x) - sum over forget rows i of beta_i(x)
                          Rows out at once and rows out one by one are the same to it.
    oracle=DIR            t is what a retrained model says: the upper bound of the idea

Reference: Attribute-to-Delete: Machine Unlearning via Datamodel Matching, 2024.

Departs from the paper:
    The paper works on image classifiers. INFERRED for language models: one output a row, and that
    the attribution is of rows. ``kernel`` is ours: one-step influence has the factor 1 - p, which
    leaves nothing to match where p is near 1, and an additive model undercounts rows that say the
    same in other words. What a row untaught would say is taken from hold-out rows, or from forget
    prompts with other rows' answers, under the original. Such rows share what training changed
    everywhere, so the direction that the gradients of all rows to be kept share is left out of the
    features: with it, it explains nearly all. At most ``most`` rows to be kept have a predicted
    target; the others are matched with what the original says.

    ``regression`` is ridge regression where the paper's datamodels are sparse (lasso), and each row
    is in with the chance ``subset`` where theirs are of one size: see engine/subsets. With no more
    models than rows the betas are not determined, and come out too small; the run says so.
    ``group=subject`` (ours) then takes the rows of a subject in or out together, which leaves fewer
    numbers to be found. A sum of single betas misses what only the absence of several rows does:
    three facts of one person out of twelve came out too large. One retrained model costs one
    training and is the truth that m models predict: where it can be had, ``oracle`` is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError, raise_all
from expunge.core.events import note, progress
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.registry import methods
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.engine.attribution import Linearised, Sketch
from expunge.engine.counts import Ahead
from expunge.engine.datasets import Datasets, reply_with
from expunge.engine.exact import missing_rows, named_base
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.sources import Live
from expunge.engine.step import Step
from expunge.engine.subsets import (
    RECIPE,
    Datamodel,
    Subsets,
    drawn,
    regressed,
    several_processes,
    units_of,
)
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.folder import Folder
from expunge.lm.hooks import evaluating
from expunge.lm.load import load
from expunge.requests.rows import Row

CARD = {
    "id": "dmm",
    "kind": "gradient",
    "summary": "Matches the outputs that gradient attribution predicts of a retrained model.",
    "paper": "Attribute-to-Delete: Machine Unlearning via Datamodel Matching (2024)",
    "needs": ["forget", "retain"],
    "access": "weights; regression: also those of the base model",
    "cost": "1 forward and backward over forget and retain rows per step; before it 1 backward "
    "over each forget row and up to 500 retain rows, or (regression) 100 trainings on half of all",
    "maturity": "paper",
    "version": 1,
}

TARGETS = "dmm.targets"

REGRESSION = "datamodel=regression"
"""What messages call it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, and where targets come from."""

    datamodel: Literal["kernel", "trak", "regression"] = param(
        "kernel",
        help="what predicts the retrained outputs, where there is no oracle",
        paper=["regression", "trak"],
        choices=("kernel", "trak", "regression"),
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
        0.01,
        help="ridge (lambda), as a share of the mean diagonal of the kernel, or of what the "
        "regression solves",
        low=1e-12,
    )
    most: int = param(500, help="retain items whose targets are predicted, at most", low=1)
    base: str | None = param(
        None, help="regression: folder of the model before it saw any of the rows"
    )
    models: int = param(100, help="regression: models trained on subsets of the rows (m)", low=2)
    subset: float = param(
        0.5, help="regression: chance of a row to be in a subset", paper=0.5, low=0.01, high=0.99
    )
    group: Literal["row", "subject"] = param(
        "row",
        help="regression: what is in or out as one, a row or all rows of a subject",
        paper="row",
        choices=("row", "subject"),
    )
    train_epochs: int = param(5, help="regression: passes of each model over its rows", low=1)
    train_lr: float | Literal["auto"] = param(
        "auto", help="regression: learning rate of each model; auto as for retrain", low=0.0
    )
    train_batch_size: int = param(16, help="regression: rows of each step of a model", low=1)


def unfit(params: Params, folder: Folder) -> list[ExpungeError]:
    """Why models cannot be trained on subsets, known before weights load."""
    if not regresses(params):
        return []
    _, problems = named_base(REGRESSION, params.base, folder)
    return problems + several_processes(REGRESSION)


def refuse(rows: Mapping[str, Sequence[Row]], params: Params) -> None:
    """Refuse a regression over rows that stand in for what the original was trained on.

    Raises:
        ExpungeError: ``E-USE-007`` without retain rows.
    """
    if regresses(params):
        raise_all(missing_rows(REGRESSION, rows))


def ahead(params: Params, rows: int) -> Ahead | None:
    """What is trained before the first step: each model on its share of ``rows`` rows."""
    if not regresses(params):
        return None
    each = ceil(params.subset * rows)
    steps = params.models * params.train_epochs * ceil(each / params.train_batch_size)
    return Ahead(steps, rows=min(each, params.train_batch_size), models=params.models)


def regresses(params: Params) -> bool:
    """Whether models are trained on subsets: an oracle makes them needless."""
    return params.datamodel == "regression" and params.oracle is None


def prepare(task: Task, params: Params) -> None:
    """Predict the outputs of a model retrained without the forget rows."""
    made = made_once(task, "outputs", lambda: targets(task, params))
    task.state[TARGETS] = {
        role: {str(one["item"]): one["target"] for one in made if one["role"] == role}
        for role in ("forget", "retain")
    }
    falls = [one["original"] - one["target"] for one in made if one["role"] == "forget"]
    task.record["predicted_fall"] = fmean(falls)
    shares = [one["explained"] for one in made if one["role"] == "forget" and "explained" in one]
    if shares:
        task.record["explained"] = fmean(shares)


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
    explained: dict[int, float] = {}
    with evaluating(task.model):
        now = said(task.model, datasets, rows)
        aims = now.clone()
        chosen = [int(at) for at in _chosen(task, items, params.most)]
        kept = [items[at] for at in chosen]
        if params.oracle is not None:
            aims = said(load(params.oracle).model, datasets, rows)
        elif params.datamodel == "regression":
            found, gone = estimated(task, datasets, [item for _, item in kept], params)
            aims[chosen] -= found.weights[gone].sum(0)
            explained = dict(zip(chosen, found.explained.tolist(), strict=True))
        else:
            aims[chosen] = _predicted(task, datasets, kept, now[chosen], params)
    made = [
        {"role": role, "item": item.row, "target": float(aim), "original": float(own)}
        for (role, item), aim, own in zip(items, aims, now, strict=True)
    ]
    return [
        {**one, "explained": explained[at]} if at in explained else one
        for at, one in enumerate(made)
    ]


def estimated(
    task: Task, datasets: Datasets, items: Sequence[Encoded], params: Params
) -> tuple[Datamodel, list[int]]:
    """The regression of what models say on some items, and which of its units are forgotten."""
    assert params.base is not None  # noqa: S101
    units = units_of(task, by_subject=params.group == "subject")
    included = drawn(len(units), params.models, params.subset, task.seed)
    if params.models <= len(units):
        note(
            f"{params.models} models for {len(units)} {params.group}s that are in or out: what one "
            "contributed is not determined, and comes out too small. More --set models would do, "
            "or --set group=subject."
        )
    recipe = methods.params(
        RECIPE,
        {
            "epochs": params.train_epochs, "lr": params.train_lr,
            "batch_size": params.train_batch_size, "precision": params.precision,
            "checkpointing": params.checkpointing,
        },
    )  # fmt: skip
    models = Subsets(task, params.base, units, included, recipe)
    outputs = models.outputs(lambda model: said(model, datasets, items))
    gone = [at for at, unit in enumerate(units) if unit.role == "forget"]
    return regressed(included, outputs, params.ridge), gone


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
