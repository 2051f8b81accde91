"""Small models beside a large one: cut out of it, told in plain values, written as a folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from expunge.core.errors import ExpungeError
from expunge.engine.counts import Size, shape, size_of
from expunge.engine.runtime import twin
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.digest import tensors_digest, untied
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.load import load_tokenizer, quiet

MOST_BLOCKS = 8
"""Blocks that are cut out where nothing is said: of a model with less than four times as many, a
quarter of its own."""

NARROW = (torch.bfloat16, torch.float16)
"""Types that weights are told in where they lose nothing by it."""


def blocks_of(asked: int | None, depth: int) -> int:
    """How many blocks a small model gets of one with ``depth``.

    Args:
        asked: So many; None takes `MOST_BLOCKS`, of less deep models a quarter.
        depth: Blocks of the large model.

    Raises:
        ExpungeError: ``E-USE-003`` when that is none of them, or all.
    """
    blocks = min(MOST_BLOCKS, max(1, depth // 4)) if asked is None else asked
    if 1 <= blocks < depth:
        return blocks
    raise ExpungeError(
        "E-USE-003",
        f"The first {blocks} blocks of a model with {depth}.",
        f"a number from 1 to {depth - 1}: not all of them.",
        "Choose another --set blocks, or a deeper model.",
    )


def cut(model: PreTrainedModel, blocks: int) -> PreTrainedModel:
    """The first blocks of a model between its own embedding, final norm and head.

    Args:
        model: A causal language model.
        blocks: How many.

    Returns:
        In modules of its own without hooks, on the very weights of ``model``: what is moved there
        is moved here.
    """
    small = twin(model, bare=True)
    del Slots(small).blocks[blocks:]
    config: Any = small.config.get_text_config()
    config.num_hidden_layers = blocks
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:blocks]
    small.eval()  # type: ignore[no-untyped-call]
    return small


def settings_of(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of a model in plain JSON values, without where it came from."""
    told: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    told.pop("_name_or_path", None)
    return told


def stored_type(weights: Sequence[Tensor]) -> torch.dtype:
    """The narrowest type that holds all weights as they are: most often that of their files."""
    for narrow in NARROW:
        if all(torch.equal(weight.to(narrow).to(weight.dtype), weight) for weight in weights):
            return narrow
    return weights[0].dtype


def weights_of(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """A copy of a model's weights, those that are tied once, as `built` takes them."""
    return {
        name: tensor.detach().to(dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for name, tensor in untied(model).items()
    }


def built(
    settings: Mapping[str, Any], tensors: Mapping[str, Tensor], like: PreTrainedModel
) -> PreTrainedModel:
    """A small model from what was told of it.

    Args:
        settings: As `settings_of` gives them.
        tensors: As `weights_of` gives them.
        like: Its device and precision are taken.

    Returns:
        The model, held still and in evaluation mode.

    Raises:
        ValueError: When the weights are not those of such a model.
    """
    factory: Any = AutoModelForCausalLM
    with quiet(), no_init_weights(), torch.random.fork_rng(devices=[]):
        model: Any = factory.from_config(AutoConfig.for_model(**settings), trust_remote_code=False)
    unknown = model.load_state_dict(dict(tensors), strict=False)
    model.tie_weights()
    missing = set(unknown.missing_keys) - set(getattr(model, "all_tied_weights_keys", None) or ())
    if missing or unknown.unexpected_keys:
        raise ValueError(
            f"weights of another model: {sorted({*missing, *unknown.unexpected_keys})}"
        )
    for parameter in model.parameters():  # not buffers: rounded rotary angles are another model
        parameter.data = parameter.data.to(like.dtype)
    made: PreTrainedModel = model.to(like.device).eval().requires_grad_(False)
    return made


def write(
    task: Task, name: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Put a small model among what the method made, as a folder that other libraries load.

    Its place and the hash of its weights go into the record of the run.

    Args:
        task: What is asked; without a folder nothing is written.
        name: Of the folder.
        settings: As `settings_of` gives them.
        tensors: As `weights_of` gives them; the folder has their precision.
    """
    if task.folder is None or (task.world is not None and not task.world.first):
        return
    model = built(settings, tensors, task.model).cpu()
    dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    with quiet():
        model.save_pretrained(task.folder / name)
        task.tokenizer.save_pretrained(task.folder / name)
    digest = tensors_digest(tensors)
    task.record[name] = {"folder": str(Path(task.folder.name) / name), "digest": digest}


def fitting(folder: Folder, small: str | None, blocks: int | None) -> list[ExpungeError]:
    """Why a small model cannot stand beside a large one; no weights load.

    Args:
        folder: The large model.
        small: Folder of the small one; None: it is cut out of the large one.
        blocks: As many blocks, then; see `blocks_of`.
    """
    if folder.problems:
        return []
    try:
        if small is None:
            blocks_of(blocks, shape(folder.config)[0])
            return []
        beside = inspect_folder(small)
        return list(beside.problems) or list(_other_tokens(folder, beside))
    except ExpungeError as problem:
        return [problem]


def size_beside(folder: Folder, small: str | None, blocks: int | None) -> Size:
    """The size of a small model beside a large one; no weights load. Arguments as `fitting`.

    Raises:
        ExpungeError: As `blocks_of`.
    """
    if small is not None:
        beside = inspect_folder(small)
        return size_of(beside.parameters, beside.config, beside.tensors)
    size = size_of(folder.parameters, folder.config, folder.tensors)
    return size.cut(blocks_of(blocks, size.blocks))


def _other_tokens(folder: Folder, beside: Folder) -> Iterator[ExpungeError]:
    sizes = [shape(one.config)[2] for one in (folder, beside)]
    known = [load_tokenizer(one).get_vocab() for one in (folder, beside)]
    if sizes[0] != sizes[1] or known[0] != known[1]:
        yield ExpungeError(
            "E-MODEL-011",
            f"{beside.path} gives logits of {sizes[1]} tokens, {folder.path} of {sizes[0]}"
            f"{'' if known[0] == known[1] else ', and the tokens are others'}.",
            "a small model with the vocabulary of the large one.",
            "Name another --set small, or leave it out: one is then cut out of the model.",
        )
    if 0 < beside.positions < folder.positions:
        yield ExpungeError(
            "E-USE-006",
            f"{beside.path} has {beside.positions} positions, {folder.path} {folder.positions}.",
            "a small model that reads rows as long as the large one does.",
            "Name another --set small.",
        )
