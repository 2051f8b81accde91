"""Headers of safetensors files, read with suspicion and without torch.

The format is eight bytes of length, a JSON object, then the data. Everything a hostile file can
get wrong is checked before a single weight is touched.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.limits import CONFIG_BYTES, HEADER_BYTES

INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
"""Width of one number of each type."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file.

    Attributes:
        dtype: As safetensors spells it, for instance ``BF16``.
        shape: Its dimensions.
        start: First byte, from the beginning of the file.
        bytes: Size of the data.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    bytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_header(file: Path) -> dict[str, Entry]:
    """The tensors of a safetensors file, without reading their data.

    Args:
        file: The file.

    Returns:
        Name -> where it lies.

    Raises:
        ExpungeError: ``E-MODEL-010`` for a header that is too long, not JSON or not true.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(HEADER_BYTES, size - 8):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length), object_pairs_hook=_no_duplicates)
        return _entries(header, 8 + length, size)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise ExpungeError(
            "E-MODEL-010",
            f"{file.name} is broken: {str(error)[:200]}.",
            "a safetensors file whose header describes its data exactly.",
            "Do not use this file; get it again from a source you trust.",
        ) from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights; empty when there are none.

    Raises:
        ExpungeError: ``E-PATH-001`` for a name in the index that leaves the folder,
            ``E-MODEL-003`` when only pickled weights are there.
    """
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        shards = index.get("weight_map")
        if not isinstance(shards, Mapping) or not all(isinstance(s, str) for s in shards.values()):
            raise _bad_index("it has no table from tensors to files")
        return [_member(folder, name) for name in sorted(set(shards.values()))]
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [_member(folder, name)]
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICKLED)
    if pickled:
        raise ExpungeError(
            "E-MODEL-003",
            f"Weights only as {', '.join(pickled[:3])}, which can run code when opened.",
            "model.safetensors or its shards.",
            "Ask the publisher for safetensors, or convert the file on a machine you can lose.",
        )
    return []


def read_json(file: Path) -> dict[str, Any]:
    """A small JSON object from a stranger.

    Raises:
        ExpungeError: ``E-MODEL-002``.
    """
    try:
        if file.stat().st_size > CONFIG_BYTES:
            raise ValueError(f"over {CONFIG_BYTES} bytes")
        value = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError, OSError) as error:
        raise ExpungeError(
            "E-MODEL-002",
            f"{file.name} in {file.parent} cannot be read: {str(error)[:200]}.",
            "a JSON object.",
            "Give a complete model folder.",
        ) from error
    return value


def _entries(header: Any, data: int, size: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for name, fields in header.items():
        if name == "__metadata__":
            continue
        shape, (start, end) = fields["shape"], fields["data_offsets"]
        dtype = fields["dtype"]
        if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise ValueError(f"{name!r} has sizes that are not natural numbers")
        if dtype not in BITS:
            raise ValueError(f"{name!r} has the unknown type {dtype!r}")
        entry = Entry(dtype, tuple(shape), data + start, end - start)
        if entry.numel * BITS[dtype] != entry.bytes * 8:
            raise ValueError(f"{name!r} has {entry.bytes} bytes for the shape {shape}")
        entries[name] = entry
    _check_tiling(entries.values(), data, size)
    return entries


def _check_tiling(entries: Iterable[Entry], data: int, size: int) -> None:
    """Tensors must fill the file without gaps or overlaps."""
    end = data
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.bytes)):
        if entry.start != end:
            raise ValueError("tensors overlap or leave gaps")
        end += entry.bytes
    if end != size:
        raise ValueError(f"{size - end} bytes more than the header describes")


def _member(folder: Path, name: str) -> Path:
    """A file of the folder; the shared store of a hub cache counts as part of it."""
    path = Path(os.path.realpath(folder / name))
    root = Path(os.path.realpath(folder))
    allowed = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if name != Path(name).name or path.parent not in allowed:
        raise ExpungeError(
            "E-PATH-001",
            f"The weights file {ascii(name)[:200]} is outside {folder}.",
            "plain file names inside the model folder.",
            "Do not use this folder; get it again from a source you trust.",
        )
    if not path.is_file():
        raise _bad_index(f"the file {name} is missing")
    return path


def _bad_index(why: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"{INDEX} does not fit the folder: {why}.",
        "a complete set of weights.",
        "Download the model again.",
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("the same name twice")
    return found
