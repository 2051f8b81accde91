"""Tokens that a method adds to a model: in memory, in the folder of the change, and undone again.

A token is added to the tokenizer as a special one, so that decoded text leaves it out, and gets a
row of the embedding and of the head. Where the embedding has rows that no token uses (vocabularies
are often padded) the next of them is taken, and nothing changes its shape; else both grow by one.
The new rows are drawn as wide as those that are there; a head of its own gets a copy.

The change then has a tokenizer of its own, and what the original had stands beside it under names
that begin with ``before-``: from these `revert` makes the original's files, byte for byte.
``change.json`` tells under ``added`` the tokens and their ids, which tensors grew, and the hashes
of those files. The bitwise patch of a tensor that grew reaches over the original's rows.
"""

import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExpungeError
from expunge.core.rng import derive
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.headers import Entry, read_header, weight_files
from expunge.lm.load import load_tokenizer, quiet

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)

ADDED = "added"
"""Where ``change.json`` tells of tokens."""

BEFORE = "before-"
"""What the names of the original's files begin with."""

OWN = "tokenizer.json"
"""The file that says which ids texts become."""

GIVEN_BACK = (*TOKENIZER_FILES, "config.json")
"""Files of the original that a change with tokens of its own keeps."""


@torch.no_grad()
def add_tokens(task: Task, names: Sequence[str]) -> list[int]:
    """Give a model and its tokenizer more tokens.

    Args:
        task: Whose model and tokenizer; it is told of the tokens.
        names: How they are written.

    Returns:
        Their ids.

    Raises:
        ExpungeError: ``E-USE-003`` for a token that is there already, ``E-USE-006`` under an
            adapter.
    """
    model, tokenizer = task.model, task.tokenizer
    _refuse(model, tokenizer.get_vocab(), names)
    slots = Slots(model)
    used = max(tokenizer.get_vocab().values(), default=-1) + 1
    width = float(_weight(slots.embed)[:used].float().std())
    tokenizer.add_special_tokens(
        {"extra_special_tokens": list(names)}, replace_extra_special_tokens=False
    )
    ids = [int(at) for at in tokenizer.convert_tokens_to_ids(list(names))]  # type: ignore[union-attr]
    if max(ids) >= len(_weight(slots.embed)):
        moves = _weight(slots.head).requires_grad
        with quiet(), torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        _weight(slots.head).requires_grad_(moves)
    embed = _weight(slots.embed)
    for name, at in zip(names, ids, strict=True):
        draw = torch.Generator().manual_seed(derive(task.seed, "token", name) % (1 << 63))
        embed[at] = (width * torch.randn(embed.shape[1], generator=draw)).to(embed)
    share_rows(model, ids, used)
    task.added.update(zip(names, ids, strict=True))
    return ids


@torch.no_grad()
def share_rows(model: nn.Module, ids: Sequence[int], used: int) -> None:
    """Copy the embeddings of some tokens to their rows of the head; tied, they are the same.

    Args:
        model: The model.
        ids: The tokens.
        used: How many rows there were: the copy is as wide as these are in the head.
    """
    embed, head = Slots(model).embed, Slots(model).head
    there, here = _weight(embed), _weight(head)
    if here is not there:
        wider = here[:used].float().std() / there[:used].float().std()
        here[ids] = (there[ids].float() * wider).to(here)
    bias = getattr(head, "bias", None)
    if bias is not None:
        bias[ids] = 0.0


def write_tokens(parent: Folder, result: Path, task: Task) -> dict[str, Any] | None:
    """Write the tokenizer with the tokens that were added, and keep what the original had.

    Args:
        parent: The original.
        result: Folder that holds the changed weights already.
        task: Whose tokens.

    Returns:
        What ``change.json`` says of them under ``added``; None when there are none.

    Raises:
        ExpungeError: ``E-MODEL-005`` when the tokenizer does not come back as it was saved.
    """
    if not task.added:
        return None
    for name in TOKENIZER_FILES:
        (result / name).unlink(missing_ok=True)
    with quiet():
        task.tokenizer.save_pretrained(result)
    if load_tokenizer(inspect_folder(result)).get_vocab() != task.tokenizer.get_vocab():
        raise ExpungeError(
            "E-MODEL-005",
            f"The tokenizer with {', '.join(task.added)} added reads back as another one.",
            "a tokenizer that can be saved and loaded.",
            "Save the original's tokenizer again with a current version of transformers.",
        )
    written = [OWN]
    if parent.holds == "model":  # else the original is given back from its own folder
        for name in GIVEN_BACK:
            if (parent.path / name).is_file():
                shutil.copyfile(parent.path / name, result / f"{BEFORE}{name}")
                written.append(f"{BEFORE}{name}")
    return {
        "tokens": dict(task.added),
        "rows": _grown(parent.path, result) if parent.holds == "model" else {},
        "files": {name: _hash(result / name) for name in written},
    }


def check_tokens(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check the files of a change with tokens of its own against their hashes.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    for name, expected in _files(manifest).items():
        found = _hash(folder / name) if (folder / name).is_file() else "none"
        if found != expected:
            raise ExpungeError(
                "E-MODEL-009",
                f"{name} in {folder} has the hash {found[:16]}.",
                f"{str(expected)[:16]}, as recorded when tokens were added to this model.",
                "Somebody changed the file: restore it, or make the change again.",
            )


def replaced_by(manifest: Mapping[str, Any]) -> set[str]:
    """Names of the files of a change that are no files of the original."""
    files = _files(manifest)
    return {*GIVEN_BACK, *files} if files else set()


def give_back(folder: Path, manifest: Mapping[str, Any], target: Path) -> None:
    """Put the original's tokenizer and configuration into a folder, byte for byte."""
    for name in _files(manifest):
        if name.startswith(BEFORE):
            shutil.copyfile(folder / name, target / name.removeprefix(BEFORE))


def _refuse(model: nn.Module, known: Mapping[str, int], names: Sequence[str]) -> None:
    if hasattr(model, "peft_config"):
        raise ExpungeError(
            "E-USE-006",
            "Tokens to be added to a model under an adapter.",
            "a model whose own embedding can grow.",
            "Leave --adapter out.",
        )
    if there := [name for name in names if name in known]:
        raise ExpungeError(
            "E-USE-003",
            f"{', '.join(there)}: the model has a token of that name.",
            "names that are no tokens yet.",
            "Name another one.",
        )


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)  # noqa: S101
    return weight


def _grown(parent: Path, result: Path) -> dict[str, list[int]]:
    """Tensor -> its rows before and after, of those that got more."""
    before, after = _entries(parent), _entries(result)
    return {
        name: [before[name].shape[0], entry.shape[0]]
        for name, entry in after.items()
        if name in before and entry.shape != before[name].shape
    }


def _entries(folder: Path) -> dict[str, Entry]:
    return {
        name: entry for file in weight_files(folder) for name, entry in read_header(file).items()
    }


def _files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """File -> hash; only names that such a change may have, whatever the manifest says."""
    added = manifest.get(ADDED)
    files = added.get("files") if isinstance(added, Mapping) else None
    known = {OWN, *(f"{BEFORE}{name}" for name in GIVEN_BACK)}
    return {n: h for n, h in files.items() if n in known} if isinstance(files, Mapping) else {}


def _hash(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()
