"""CURE: forget in the circuits that the forget rows go through, each with a rule of its own.

Objective:
    M      = logit(y) - mean logit(rivals of y),  at the first token of the answer y
    a_n(D) = | mean_D < h_n^corr - h_n^clean, dM / dh_n^clean > |,  n: an attention head or an MLP
    C_f, C_r: of the 2q nodes with the largest a_n(D_f), a_n(D_r), the q that change M most when
              their output is truly replaced by that of the corrupted row
    F = C_f - C_r,   R = C_r - C_f,   S = both;   every other weight rests

    g_f, g_r: gradients of FORGET and RETAIN. Of each module, with c = <g_f, g_r> / ||g_r||^2:
    F:  gamma ( g_f - c g_r )
    R:  alpha g_r
    S:  gamma ( g_f - min(c, 0) g_r ) + alpha g_r

    FORGET, over the answer and its rivals with probabilities p:
    forget_loss=uniform:  KL( u || p ),  u the uniform distribution
    forget_loss=entropy:  KL( p || u ),  the entropy of p, maximised
    forget_loss=teacher:  KL( q || p ),  q what the original says of the corrupted row

A recommendation row asks for one of ``labels`` ("Yes", "No"), the only rivals of one another; M is
then logit(yes) - logit(no), signed by the label. ``meta`` names its ``user`` and the ``items`` of
its history as they stand in the prompt. A corrupted row has, in the place of each, an item that
walks from this user hardly come by (personalised PageRank on the graph of users and items, restart
.15): of the graph of the rows, of the file ``graph`` (``{"user", "items"}`` a line), or items of
other users where there is no graph. The items taken are those of the very length in tokens, as
far as there are; positions of rows of other lengths are aligned by what they share.

Any other row has as rivals its ``wrong`` answers, or those of other rows, or the token that the
original finds likeliest but its own; and is corrupted by another subject's name, or by another
row's prompt.

An optimiser that scales weights one by one and remembers earlier steps (Adam) would mix what was
projected. So ``project=update`` projects twice: the gradients, as above, and then the move that the
optimiser made of them, in each module. That of F is at right angles to g_r, that of S does not go
up along g_r: to first order no step raises the retain loss there.

Reference: CURE: Circuit-Aware Unlearning for LLM-based Recommendation, 2025.

Departs from the paper:
    Only its abstract and a summary were read; all formulas are INFERRED. So are the direction of
    the KL to uniform (the other has no gradient where a row is known for certain); M for rows that
    are no recommendations, and their corruption; four corrupted rows for each; a graph of the rows'
    own histories, and the less visited half of its items as far from a user; q = 15% of the nodes;
    that a module is a node. Weights that nodes share (keys and values of a group of heads, the
    undivided factor of an adapter) move where one of them is in a circuit, and as S unless all such
    are of one class. Norms, embeddings and the bias of the attention's output rest.
    The run ends where the Jensen-Shannon distance of p on the forget rows from somebody never
    trained on has got no smaller for ``patience`` measurements (of the rows of that step), once it
    has got smaller at all; such a one is the hold-out rows, or the original on corrupted rows. Full
    weights move unless ``--adapter lora`` is given, the paper's way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.saliency import simplest
from expunge.engine.slots.combine import Again, Gradients
from expunge.engine.slots.mask import Mask
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.world import sharding
from expunge.lm.circuits import Node
from expunge.lm.node_weights import owners
from expunge.methods.cure.asked import Questions
from expunge.methods.cure.found import FORGET, RETAIN, SHARED, circuits, classes_of
from expunge.methods.cure.sites import Sites, distance, divergence
from expunge.methods.cure.turned import Modules

CARD = {
    "id": "cure",
    "kind": "gradient",
    "summary": "Finds the circuits of the forget and the retain answers and moves what only one of "
    "them uses by its own gradient, what both use without conflict.",
    "paper": "CURE: Circuit-Aware Unlearning for LLM-based Recommendation (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and 1 over retain rows per step; 3 gradients and a "
    "copy of the moving weights held; before training 2 forwards and 1 backward over the scored "
    "rows, and 1 forward for each of 4q nodes",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}

ASKED, CLASSES = "cure.asked", "cure.classes"
"""Names in the state: where each forget item is asked, and the nodes of the circuits."""

JSD = "jsd"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, what is asked, how circuits are found and how they are moved."""

    forget_loss: Literal["uniform", "entropy", "teacher"] = param(
        "uniform",
        help="what the answer and its rivals are led to: all alike, or what the original says of "
        "the corrupted row",
        choices=("uniform", "entropy", "teacher"),
    )
    retain_term: str = param(
        "nll", help="what keeps the retain rows", paper="nll", choices=("nll", "kl", "mse")
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by size", paper=1e-4, low=0.0
    )
    labels: tuple[str, ...] = param(
        ("Yes", "No"), help="answers of recommendation rows, rivals of one another"
    )
    rivals: int = param(5, help="rivals of the answer of any other row, at most", low=1)
    tokens: Literal["first", "all"] = param(
        "first",
        help="which tokens of an answer are asked for",
        paper="first",
        choices=("first", "all"),
    )
    share: float = param(
        0.15, help="share of all nodes that makes a circuit (q)", paper=[0.1, 0.2], low=1e-6,
        high=0.5,
    )  # fmt: skip
    confirm: bool = param(True, help="settle circuits by true patching", paper=True)
    circuits: Literal["found", "random"] = param(
        "found",
        help="random: as many nodes, drawn blindly, for comparison",
        paper="found",
        choices=("found", "random"),
    )
    rows: int = param(128, help="wordings of each role that nodes are scored on, at most", low=1)
    project: Literal["update", "gradient", "none"] = param(
        "update",
        help="what is projected: the gradients and the optimiser's moves, the gradients, nothing",
        choices=("update", "gradient", "none"),
    )
    corruptions: int = param(4, help="corrupted rows of each row", low=1)
    graph: str = param("auto", help="users and items: those of the rows (auto), a file, or none")
    restart: float = param(
        0.15, help="probability that a walk goes back to its user", paper=0.15, low=1e-3, high=1.0
    )
    low: float = param(
        0.5, help="share of the items that counts as far from a user", low=1e-6, high=1.0
    )
    patience: int = param(
        10, help="measurements without a smaller distance after which the run ends", low=1
    )
    tolerance: float = param(1e-3, help="nats by which a distance must fall to be smaller", low=0.0)


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The weights of the nodes of both circuits; nothing else moves.

    Raises:
        ExpungeError: ``E-USE-006`` where processes hold pieces of the weights.
    """
    if sharding():
        raise ExpungeError(
            "E-USE-006",
            f"cure under {sharding()}, which gives each process a piece of the weights.",
            "whole weights in every process: heads are parts of them.",
            "Use data parallelism (torchrun without sharding).",
        )
    found = owners(model, settled(task, params))
    moves = found.parameters
    return {
        name: simplest(moves[name].mask(weight)) if name in moves else False
        for name, weight in model.named_parameters()
    }


def prepare(task: Task, params: Params) -> None:
    """Tell where forget rows are asked, and which nodes move."""
    classes = settled(task, params)
    for kind in (FORGET, RETAIN, SHARED):
        named = [str(node) for node, one in classes.items() if one == kind]
        task.record[f"nodes_{kind}"] = len(named)
        task.record[f"nodes_{kind}_named"] = named


def settled(task: Task, params: Params) -> dict[Node, str]:
    """The classes of the nodes that move; found once, on the original."""
    if CLASSES not in task.state:
        questions = Questions(task, params)
        asked = {FORGET: questions.of(FORGET), RETAIN: questions.of(RETAIN, params.rows)}

        def told() -> list[dict[str, Any]]:
            references = questions.references(asked[FORGET])
            return [one.record(q) for one, q in zip(asked[FORGET], references, strict=True)]

        kept = made_once(task, "asked", told)
        task.state[ASKED] = [one["asked"] for one in kept]
        table = made_once(task, "circuits", lambda: circuits(task, params, asked))
        task.state[CLASSES] = [[*node, kind] for node, kind in classes_of(table).items()]
        task.record["corrupted_by"] = dict(questions.corruptions.made)
    return {Node(layer, head): kind for layer, head, kind in task.state[CLASSES]}


def forget(step: Step, params: Params) -> Mean:
    """Divergence of what is said among the candidates from what is to be said, nats."""
    sites = Sites.of(step.forget, step.state.get(ASKED))
    if sites.reference is not None:
        step.report(JSD, mean_of(distance(sites.logp.detach(), sites.reference, sites.real)))
    return mean_of(divergence(sites, params.forget_loss))


def combine(gradients: Gradients, state: dict[str, Any], params: Params) -> list[Tensor]:
    """Each module's own mixture of both gradients."""
    return _modules(gradients.again, state).combined(
        gradients.forget,
        gradients.retain,
        gamma=params.forget_weight,
        alpha=params.retain_weight,
        turned=params.project != "none",
    )


def redirect(
    moves: Sequence[Tensor], gradients: Gradients, state: dict[str, Any], params: Params
) -> Sequence[Tensor]:
    """The moves of the optimiser without what the retain rows would pay for."""
    if params.project != "update":
        return moves
    return _modules(gradients.again, state).redirected(moves, gradients.retain)


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether the distance has fallen, and falls no more."""
    told = [one.terms[JSD] for one in history if JSD in one.terms]
    before, late = told[: -params.patience], told[-params.patience :]
    if len(before) < 2 or min(before) > before[0] - params.tolerance:
        return False
    return min(late) > min(before) - params.tolerance


def _modules(again: Again | None, state: dict[str, Any]) -> Modules:
    assert again is not None  # noqa: S101
    classes = {Node(layer, head): kind for layer, head, kind in state[CLASSES]}
    return Modules.of(again, classes)
