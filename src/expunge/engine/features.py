"""What methods share that read a block through a sparse autoencoder.

The autoencoder is one of a file, or is trained on the block's outputs at forget and retain rows.
First tokens and padding are left out everywhere: in most models the first one has a state far
larger than all others, which would drown every mean. A trained one lies beside the run while it
lasts, under the hash of weights, rows and settings; it is no part of the change.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from expunge.core.canonical import digest
from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.families import CoderParams
from expunge.core.rng import derive, generator
from expunge.data.encode import Encoded, by_length
from expunge.engine.counts import shape
from expunge.engine.datasets import Datasets
from expunge.engine.sources import Live
from expunge.engine.steering import positions_of
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm import sae
from expunge.lm.arch import Slots
from expunge.lm.digest import model_digest
from expunge.lm.folder import Folder
from expunge.lm.hooks import evaluating

FOLDER = "autoencoders"
"""Where trained ones are kept, beside the task's folder."""

BATCH = 16
"""Rows of a forward pass."""

TOKENS = 4096
"""States that are encoded together."""

RECENT, SMALL = 8, 1 << 22
"""Autoencoders a process remembers for its next runs on the same model, and their largest size."""

_RECENT: dict[str, sae.Autoencoder] = {}


def unfit(params: CoderParams, folder: Folder) -> list[ExpungeError]:
    """Why a method cannot use the file it is given, found before any weight loads.

    Args:
        params: Of the method.
        folder: The model.
    """
    if params.sae is None:
        return []
    blocks, width, _ = shape(folder.config)
    asked = params.layer if params.layer is None or not blocks else params.layer % blocks
    try:
        kept = sae.inspect(params.sae)
        sae.refuse_unfit(kept, width=width or None, layer=asked)
        if asked is None and kept.layer is None:
            raise _no_layer(params.sae)
    except ExpungeError as error:
        return [error]
    return []


def layer_of_file(params: CoderParams) -> int:
    """The block that the autoencoder of a file reads, or the one asked for.

    Raises:
        ExpungeError: ``E-USE-007`` where neither says it.
    """
    if params.layer is not None:
        return params.layer
    found = None if params.sae is None else sae.inspect(params.sae).layer
    if found is None:
        raise _no_layer(str(params.sae))
    return found


def coder_of(task: Task, params: CoderParams, layer: int) -> sae.Autoencoder:
    """The autoencoder of a block, on the device of the model.

    Args:
        task: The model as it is at the start, and its rows.
        params: Say which.
        layer: The block.

    Raises:
        ExpungeError: Where a file is not of this model.
    """
    place, model = Slots(task.model).index(layer), task.model
    if params.sae is not None:
        width = int(model.config.get_text_config().hidden_size)
        return sae.load(params.sae, width=width, layer=place).to(model.device)
    items = chosen_items(task, params)
    key = _key(task, params, place, items)
    if task.folder is None:
        return _trained(task, params, place, items, key)
    file = task.folder.parent / FOLDER / f"{key}.safetensors"
    if not file.is_file() and (task.world is None or task.world.first):
        file.parent.mkdir(parents=True, exist_ok=True)
        sae.save(_trained(task, params, place, items, key), file)
    if task.world is not None:
        task.world.wait()
    return sae.load(file).to(model.device)


def chosen_items(task: Task, params: CoderParams) -> dict[str, list[Encoded]]:
    """Forget and retain rows in all their wordings, of more than ``sae_rows`` some that are drawn.

    Returns:
        Role -> items.
    """
    datasets, found = Datasets(task), {}
    for role in ("forget", "retain"):
        rows = datasets.items(role) if task.roles.get(role) else []
        order = generator(task.seed, "features", role).permutation(len(rows))[: params.sae_rows]
        found[role] = [item for row in sorted(order.tolist()) for item in rows[row]]
    return found


@torch.no_grad()
def states_of(task: Task, items: Sequence[Encoded], layer: int) -> Tensor:
    """[N, d]: outputs of a block at every token but the first of each row, float32 at least.

    Args:
        task: The model as it is now.
        items: The rows.
        layer: The block.
    """
    datasets, made = Datasets(task, device=str(task.model.device)), []
    width = int(task.model.config.get_text_config().hidden_size)
    with evaluating(task.model):
        for chosen in by_length([len(item.ids) for item in items], BATCH):
            view = View(datasets.batch([items[at] for at in chosen]), Live(task.model))
            places = positions_of(view, "all", include_first=False)
            made.append(view.hidden(layer)[places])
    return torch.cat(made) if made else torch.zeros(0, width, device=task.model.device)


def codes(coder: sae.Autoencoder, states: Tensor) -> Iterator[Tensor]:
    """Activations of states, some at a time: [m, n]."""
    for part in torch.split(states, TOKENS):
        yield coder.encode(part)


def _trained(
    task: Task, params: CoderParams, layer: int, items: dict[str, list[Encoded]], key: str
) -> sae.Autoencoder:
    if key not in _RECENT:
        states = states_of(task, [item for part in items.values() for item in part], layer)
        with progress(f"autoencoder of block {layer}"):
            made = sae.train(
                states,
                features=params.expansion * states.shape[1],
                k=params.sae_k,
                steps=params.sae_steps,
                seed=derive(task.seed, "sae", layer),
                layer=layer,
            )
        if made.encoder.numel() > SMALL:
            return made
        while len(_RECENT) >= RECENT:
            del _RECENT[next(iter(_RECENT))]
        _RECENT[key] = made
    return _RECENT[key]


def _key(task: Task, params: CoderParams, layer: int, items: dict[str, list[Encoded]]) -> str:
    rows = sha256(repr([[i.ids for i in part] for part in items.values()]).encode()).hexdigest()
    settings = [params.expansion, params.sae_k, params.sae_steps, str(task.model.device)]
    return digest([model_digest(task.model), rows, layer, settings, task.seed])[:32]


def _no_layer(file: str | Path) -> ExpungeError:
    return ExpungeError(
        "E-USE-007",
        f"The autoencoder {file} does not say which block it reads.",
        "the block whose output it was trained on.",
        "Give --set layer=N.",
    )
