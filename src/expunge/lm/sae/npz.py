"""Arrays of an ``.npz`` file, read with suspicion: numbers only, as many as the header says."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expunge.core.errors import ExpungeError

HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz_header(file: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every array, none of them loaded.

    Raises:
        ExpungeError: ``E-MODEL-003`` for arrays of objects, which are pickled; ``E-MODEL-010`` for
            anything else that is not a file of numbers.
    """
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    version = np.lib.format.read_magic(stream)
                    shape, _, dtype = HEADERS[version](stream)
                    if dtype.hasobject:
                        raise _pickled(file, member.filename)
                    held = member.file_size - stream.tell()
                if held != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
                    raise ValueError(f"{member.filename} holds {held} bytes for {list(shape)}")
                found[member.filename.removesuffix(".npy")] = tuple(int(size) for size in shape)
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        raise ExpungeError(
            "E-MODEL-010",
            f"{file.name} is broken: {str(error)[:200]}.",
            "an .npz file of arrays of numbers.",
            "Do not use this file; get it again from a source you trust.",
        ) from error
    return found


def read_npz(file: Path) -> dict[str, Tensor]:
    """Name -> array, after `read_npz_header`."""
    with np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}


def _pickled(file: Path, member: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-003",
        f"{member} in {file.name} is an array of objects, which can run code when opened.",
        "arrays of numbers.",
        "Do not use this file; get it again from a source you trust.",
    )
