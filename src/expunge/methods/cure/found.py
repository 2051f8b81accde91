"""Which nodes the answers to forget and to retain rows go through."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from expunge.core.rng import generator
from expunge.engine.task import Task
from expunge.lm.circuits import Node, effects, nodes_of, patched
from expunge.lm.contrasts import Contrast
from expunge.lm.scoring import padding_id
from expunge.methods.cure.asked import Question

if TYPE_CHECKING:
    from expunge.methods.cure import Params

FORGET, RETAIN, SHARED = "forget", "retain", "shared"

Classes = Mapping[Node, str]
"""Node of a circuit -> `FORGET`, `RETAIN` or `SHARED`."""


def circuits(
    task: Task, params: "Params", asked: Mapping[str, Sequence[Question]]
) -> list[dict[str, Any]]:
    """Every node with its scores and its class.

    Args:
        task: Its model, as the original.
        params: Of them ``share``, ``confirm``, ``circuits`` and ``rows``.
        asked: ``forget``, ``retain`` -> questions.

    Returns:
        For each node ``node``, ``layer``, ``head``, of each role its ``effect`` and what was
        ``patched`` (None where it was not), and ``class``, empty where it rests.
    """
    nodes = nodes_of(task.model)
    size = max(1, round(params.share * len(nodes)))
    table: list[dict[str, Any]] = [
        {"node": str(node), "layer": node.layer, "head": node.head} for node in nodes
    ]
    members = {}
    for role in (FORGET, RETAIN):
        contrasts = [
            *chain.from_iterable(one.contrasts for one in _some(task, params, asked, role))
        ]
        effect, change = scored(task, params, contrasts, size)
        for number, entry in enumerate(table):
            entry[role] = {"effect": float(effect[number]), "patched": change.get(number)}
        if params.circuits == "random":
            draw = generator(task.seed, "cure", "random", role)
            members[role] = set(draw.choice(len(nodes), size, replace=False).tolist())
        else:
            members[role] = set(top(effect, change, size))
    for number, entry in enumerate(table):
        entry["class"] = class_of(number in members[FORGET], number in members[RETAIN])
    return table


def scored(
    task: Task, params: "Params", contrasts: Sequence[Contrast], size: int
) -> tuple[Tensor, dict[int, float]]:
    """What each node changes of M on average: to first order, and truly for the first 2q.

    Returns:
        [nodes] and number of a node -> the same by true patching; both without sign.
    """
    pad, batch = padding_id(task.tokenizer), params.batch_size
    effect = effects(task.model, contrasts, pad, batch).mean(0).abs()
    if not params.confirm:
        return effect, {}
    first = effect.argsort(descending=True, stable=True)[: 2 * size].tolist()
    nodes = nodes_of(task.model)
    change = patched(task.model, contrasts, [nodes[at] for at in first], pad, batch)
    return effect, dict(zip(first, change.mean(0).abs().tolist(), strict=True))


def top(effect: Tensor, change: Mapping[int, float], size: int) -> list[int]:
    """Numbers of the nodes of a circuit: by what was patched where it was, else by the effect."""
    if change:
        return sorted(change, key=lambda at: (-change[at], at))[:size]
    return [int(at) for at in effect.argsort(descending=True, stable=True)[:size]]


def class_of(in_forget: bool, in_retain: bool) -> str:
    """F = C_f - C_r, R = C_r - C_f, S = both; nothing outside of both."""
    if in_forget and in_retain:
        return SHARED
    return FORGET if in_forget else RETAIN if in_retain else ""


def classes_of(table: Sequence[Mapping[str, Any]]) -> dict[Node, str]:
    """The nodes that move, from what `circuits` gave."""
    return {Node(one["layer"], one["head"]): one["class"] for one in table if one["class"]}


def _some(
    task: Task, params: "Params", asked: Mapping[str, Sequence[Question]], role: str
) -> list[Question]:
    """The questions that nodes are scored on."""
    every = asked[role]
    if len(every) <= params.rows:
        return list(every)
    draw = generator(task.seed, "cure", "scored", role)
    return [
        every[at] for at in sorted(draw.choice(len(every), params.rows, replace=False).tolist())
    ]
