"""What is settled before training: the block, the latents, and the matrices as they are."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.engine import misdirection
from expunge.engine.features import chosen_items, coder_of, layer_of_file, states_of
from expunge.engine.steering import at_depth
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.methods.sspu.subspaces import Latents, Matrices, bases, latents_of

LAYER = "sspu.layer"
TOPIC, AWAY, BEFORE = "sspu.topic", "sspu.away", "sspu.before."

DEPTHS = (1 / 8, 1 / 4, 3 / 8, 1 / 2)
"""Where candidates are, when none are named."""


def settle(task: Task, params: Any) -> None:
    """Choose block and latents, once; keep the bases, and the matrices as they are now.

    Raises:
        ExpungeError: ``E-USE-003`` where a basis is empty, ``E-USE-007`` where a file names no
            block.
    """
    slots = Slots(task.model)
    if LAYER in task.state or (params.subspace == "whole" and not params.lambda_reg):
        return
    named = _candidates(params, len(slots))
    items, found = chosen_items(task, params), {}
    for layer in dict.fromkeys(map(slots.index, named)):
        coder = coder_of(task, params, layer)
        count = params.features or max(1, min(64, coder.width // 8))
        forget, retain = (states_of(task, items[r], layer) for r in ("forget", "retain"))
        found[layer] = coder, latents_of(coder, forget, retain, count, params.score)
    layer = max(found, key=lambda at: found[at][1].total)
    _keep(task, params, layer, *found[layer])
    task.record["scores"] = {str(at): chosen.total for at, (_, chosen) in found.items()}


def placed(params: Any, state: Mapping[str, Any], blocks: int) -> Any:
    """The parameters with the steered block settled."""
    layer = state.get(LAYER, params.layer)
    return replace(params, layer=misdirection.layer_of(replace(params, layer=layer), blocks))


def start_of(task: Task) -> dict[int, Tensor]:
    """Block -> its matrix [out, in] before training, on the device of the model."""
    for name in [name for name in task.tensors if name.startswith(BEFORE)]:
        task.tensors[name] = task.tensors[name].to(task.model.device)
    return {
        int(name.removeprefix(BEFORE)): tensor
        for name, tensor in task.tensors.items()
        if name.startswith(BEFORE)
    }


def topic_of(task: Task) -> Tensor:
    """U+, on the device of the model."""
    return task.tensors[TOPIC].to(task.model.device)


def _candidates(params: Any, blocks: int) -> list[int]:
    if params.sae is not None or params.layer is not None:
        return [layer_of_file(params)]
    return list(params.candidates or [at_depth(share, blocks) for share in DEPTHS])


def _keep(task: Task, params: Any, layer: int, coder: Any, chosen: Latents) -> None:
    """Put what training needs into the task."""
    topic, away = bases(coder, chosen)
    task.state[LAYER] = layer
    task.record.update(layer=layer, topic_features=topic.shape[1], other_features=away.shape[1])
    for name, found, is_needed in (
        ("of the topic", topic, bool(params.lambda_reg)),
        ("besides the topic", away, params.subspace == "features"),
    ):
        if is_needed and not found.shape[1]:
            raise ExpungeError(
                "E-USE-003",
                f"sspu: no feature {name} is left at block {layer}, of {coder.latents} latents.",
                "latents that fire on forget rows alone, and others that only retain rows use.",
                "Give other rows to keep, another --set layer=N, or fewer --set features=K.",
            )
    task.tensors[TOPIC] = topic.float()
    if params.subspace == "features":
        task.tensors[AWAY] = away.float()
    for at, matrix in Matrices(task.model, _moved(task, params, layer)).weights().items():
        task.tensors[f"{BEFORE}{at}"] = matrix


def _moved(task: Task, params: Any, layer: int) -> list[int]:
    """The blocks whose matrices move, as `expunge.engine.misdirection.mask` has them."""
    named = params.layers or range(max(0, layer - misdirection.MOVED + 1), layer + 1)
    return [Slots(task.model).index(at) for at in named]
