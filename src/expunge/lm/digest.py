"""One hash for the weights of a model, in memory or on disk.

SHA-256 over the tensors in the order of their names: a line of canonical JSON with name, type and
shape, then the bytes. How many files the tensors lie in makes no difference.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.core.canonical import canonical
from expunge.lm.headers import Entry, read_header, weight_files

if TYPE_CHECKING:
    from torch import Tensor, nn

CHUNK = 1 << 24
"""Bytes read at a time."""


def tensors_digest(named: "Mapping[str, Tensor]") -> str:
    """Hash tensors.

    Args:
        named: Name -> tensor, on any device.

    Returns:
        SHA-256, hexadecimal.
    """
    import torch

    hasher = hashlib.sha256()
    for name in sorted(named):
        tensor = named[name].detach().cpu().contiguous()
        hasher.update(_line(name, dtype_name(tensor.dtype), list(tensor.shape)))
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def model_digest(model: "nn.Module") -> str:
    """Hash a model's parameters and saved buffers, each shared tensor once.

    Equal to `folder_digest` of the folder the model was saved to in its own precision, unless its
    family has other names on disk (GPT-NeoX: ``embed_out``).
    """
    return tensors_digest(untied(model))


def untied(model: "nn.Module") -> "dict[str, Tensor]":
    """The state of a model as it is saved: of tensors that are tied, only the one that leads."""
    state: dict[str, Tensor] = model.state_dict()
    followers = getattr(model, "all_tied_weights_keys", None) or {}
    return {name: tensor for name, tensor in state.items() if name not in followers}


def folder_digest(path: str | Path) -> str:
    """Hash the weights in a model or adapter folder; everything else in it is left out.

    Remembered while this process runs, as long as no file changes.

    Args:
        path: The folder.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        ExpungeError: ``E-MODEL-010`` for a broken file, ``E-MODEL-003`` for pickled weights.
    """
    files = weight_files(Path(path))
    return _files_digest(tuple((file, _identity(file)) for file in files))


def dtype_name(dtype: object) -> str:
    """The name safetensors gives a torch type, for instance ``BF16``."""
    import torch

    names = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    return names.get(dtype, str(dtype))  # type: ignore[call-overload, no-any-return]


@lru_cache(maxsize=256)
def _files_digest(files: tuple[tuple[Path, tuple[int, int, int]], ...]) -> str:
    entries: dict[str, tuple[Path, Entry]] = {}
    for file, _ in files:
        for name, entry in read_header(file).items():
            entries[name] = (file, entry)
    hasher = hashlib.sha256()
    for name in sorted(entries):
        file, entry = entries[name]
        hasher.update(_line(name, entry.dtype, list(entry.shape)))
        with file.open("rb") as stream:
            stream.seek(entry.start)
            left = entry.bytes
            while left:
                chunk = stream.read(min(CHUNK, left))
                hasher.update(chunk)
                left -= len(chunk) or left
    return hasher.hexdigest()


def _identity(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _line(name: str, dtype: str, shape: list[int]) -> bytes:
    return canonical([name, dtype, shape]) + b"\n"
