"""WAGLE: let only those weights move that forgetting hangs on.

Objective:
    L = L of the wrapped method; only the top ``ratio`` of all weights by score move
    s_j = | ( theta_j - g_r,j / mu ) * g_f,j |
    g_f, g_r: gradients of the token-mean negative log-likelihood of F and of R at the start

    To first order s_j is what forgetting gains from setting weight j free, if the retain rows are
    fitted again meanwhile with curvature mu. With the published mu the second part decides wherever
    g_r,j is not 0. Weights that may not move end bit for bit as they were.

    Other scores, of the same paper:
        magnitude   | theta_j |
        gradient    | g_f,j |
        random      a number drawn for each weight
        wanda       | theta_ij | * || x_j ||, the ratio taken of each output's weights; x are the
                    inputs on F. Weights outside the linear layers of the blocks all move
        ffn         all weights of the MLPs, no others; the ratio counts for nothing

Reference: WAGLE: Strategic Weight Attribution for Effective and Modular Unlearning in Large
Language Models, 2024.

Departs from the paper:
    Gradients are means over tokens, and mu is meant for those; the original code adds up the means
    of n batches, so its mu is n times ours. The ratio is the .8 of its refusals on TOFU; there
    GradDiff and NPO have .95, on WMDP .4 and .6. Embeddings of tokens that no forget row has score
    0 and are frozen first, so where the vocabulary is large .95 may freeze nothing else. The
    original code zeroes gradients alone, and weight decay moves what it masks; here it does not.
    Its masks are ranks of all scores; ours are counted by histogram, which is exact, and of equal
    scores at the limit the first move. Padding is no input of wanda.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.saliency import input_norms, nll_gradients, simplest, top_share, transposed
from expunge.engine.slots.mask import Mask, all_trainable
from expunge.engine.task import Task
from expunge.lm.arch import Slots

CARD = {
    "id": "wagle",
    "kind": "wrapper",
    "summary": "Only the weights that forgetting hangs on move, whatever the method.",
    "paper": "WAGLE: Strategic Weight Attribution for Effective and Modular Unlearning in Large "
    "Language Models (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "nothing a step; before it 1 forward and backward over forget and retain rows, and two "
    "gradients held; a copy of the weights that do not move",
    "maturity": "beta",
    "version": 1,
    "value": "ratio",
    "adapters": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How many weights move, and by what they are chosen."""

    ratio: float = param(
        0.8,
        help="share of all weights that moves (rho)",
        paper=[0.95, 0.8, 0.6, 0.4],
        low=1e-9,
        high=1.0,
    )
    score: Literal["attribution", "magnitude", "gradient", "random", "wanda", "ffn"] = param(
        "attribution",
        help="by what weights are chosen",
        paper="attribution",
        choices=("attribution", "magnitude", "gradient", "random", "wanda", "ffn"),
    )
    mu: float = param(
        1e-6,
        help="curvature of the retain rows; for gradients that are means over tokens",
        paper=[1e-6, 1e-3],
        low=1e-30,
    )
    rows: int = param(
        1000, help="most wordings of each role that gradients are taken of", paper=400, low=1
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The chosen weights, among those that the wrapped method's ``layers`` let move."""
    around = all_trainable(model, task, task.params)
    may = {n: p for n, p in model.named_parameters() if p.requires_grad and around.get(n, True)}
    if params.score == "ffn":
        chosen: Mapping[str, Tensor | bool] = dict.fromkeys(may, False) | _of_mlps(model, may)
    elif params.score == "wanda":
        chosen = _wanda(task, may, params.ratio)
    else:
        chosen = top_share(_scores(task, may, params), params.ratio)
    frozen = dict.fromkeys((n for n, p in model.named_parameters() if p.requires_grad), False)
    found = {n: m if isinstance(m, bool) else simplest(m) for n, m in chosen.items()}
    return {**frozen, **found}


def attribution(theta: Tensor, forget: Tensor, retain: Tensor, mu: float) -> Tensor:
    """``|(theta - g_r / mu) * g_f|``, weight by weight, in float32 at least.

    Args:
        theta: Weights at the start.
        forget: Gradient of the forget rows' loss.
        retain: Gradient of the retain rows' loss.
        mu: Curvature.
    """
    exact = torch.promote_types(theta.dtype, torch.float32)
    return ((theta.detach().to(exact) - retain / mu) * forget).abs()


def _scores(
    task: Task, weights: Mapping[str, Tensor], params: Params
) -> dict[str, Callable[[], Tensor]]:
    """What makes the scores of each parameter when it is asked."""
    if params.score == "magnitude":
        return {name: partial(torch.abs, w.detach()) for name, w in weights.items()}
    if params.score == "random":
        return {name: partial(_drawn, task.seed, name, w) for name, w in weights.items()}
    forget = nll_gradients(task, "forget", params.rows)
    if params.score == "gradient":
        return {name: partial(torch.abs, forget[name]) for name in weights}
    retain = nll_gradients(task, "retain", params.rows)
    return {
        name: partial(attribution, weight, forget[name], retain[name], params.mu)
        for name, weight in weights.items()
    }


def _drawn(seed: int, name: str, weight: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(derive(seed, "wagle", name))
    return torch.rand(weight.shape, generator=draw).to(weight.device)


def _wanda(task: Task, weights: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor | bool]:
    """Of each output's weights the ``ratio`` with the largest products."""
    found: dict[str, Tensor | bool] = dict.fromkeys(weights, True)
    columns = transposed(task.model)
    for layer, norms in input_norms(task, "forget").items():
        name = f"{layer}.weight"
        if name in weights:
            weight = weights[name].detach()
            by_output = (weight.T if name in columns else weight).abs().double() * norms
            count = max(1, round(ratio * by_output.shape[1]))
            best = by_output.sort(dim=1, descending=True, stable=True).indices[:, :count]
            chosen = torch.zeros_like(by_output, dtype=torch.bool).scatter_(1, best, True)
            found[name] = chosen.T if name in columns else chosen
    return found


def _of_mlps(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, bool]:
    slots = Slots(model)
    inside = {id(p) for layer in range(len(slots)) for p in slots.module(layer, "mlp").parameters()}
    return {name: True for name, weight in weights.items() if id(weight) in inside}
