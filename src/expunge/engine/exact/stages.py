"""Checkpoints of stages: a file each, that says which rows it saw and which file it came from.

The file's own hash covers all of that, and stands in the state of the ensemble. So a chain of
files, from the base model on, is a list of everything that has ever moved its adapters.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.atomic import replacing
from expunge.core.canonical import canonical, file_digest
from expunge.core.errors import ExpungeError
from expunge.lm.headers import read_header

HEADER = "expunge"
"""Where a file's metadata tell of its stage."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stage was trained on.

    Attributes:
        shard: Its shard.
        sequence: Which sequence of that.
        stage: Its number in that, from 0.
        slices: The slices it trained on, in the order in which they came in.
        rows: Hashes of all rows it trained on, sorted.
        parent: Hash of the file of the stage before, of the base model's weights for the first.
        recipe: Hash of the recipe it was trained by.
        optimiser: Where its moments began: always at nothing, or they would carry rows along.
    """

    shard: int
    sequence: int
    stage: int
    slices: Sequence[int]
    rows: Sequence[str]
    parent: str
    recipe: str
    optimiser: str = "fresh"

    @property
    def file(self) -> str:
        """The name of its file."""
        return stage_file(self.shard, self.sequence, self.stage)


def stage_file(shard: int, sequence: int, stage: int) -> str:
    """The name of the file of a stage."""
    return f"shard{shard}-sequence{sequence}-stage{stage}.safetensors"


def write_stage(folder: Path, seen: Seen, tensors: Mapping[str, Tensor]) -> str:
    """Write a stage; the same stage gives the same bytes.

    Returns:
        The hash of the file.
    """
    plain = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with replacing(folder / seen.file) as temporary:
        save_file(plain, temporary, metadata={HEADER: canonical(asdict(seen)).decode()})
    return file_digest(folder / seen.file)


def read_seen(file: Path) -> Seen:
    """What the file of a stage says of itself.

    Raises:
        ExpungeError: ``E-MODEL-010`` when it is none.
    """
    read_header(file)
    try:
        with safe_open(file, framework="pt") as opened:
            return Seen(**json.loads(opened.metadata()[HEADER]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ExpungeError(
            "E-MODEL-010",
            f"{file.name} is not the checkpoint of a stage: {str(error)[:200]}.",
            "a file as it was written with the change.",
            "Take the folder from a backup, or build the ensemble again.",
        ) from error


def read_stage(file: Path, hash: str) -> dict[str, Tensor]:
    """The tensors of a stage, its file checked.

    Raises:
        ExpungeError: ``E-MODEL-009`` when it is not the file with that hash.
    """
    check_file(file, hash)
    return load_file(file)


def check_file(file: Path, hash: str) -> None:
    """Check a file against its hash.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    found = file_digest(file) if file.is_file() else "missing"
    if found != hash:
        raise ExpungeError(
            "E-MODEL-009",
            f"The checkpoint {file} has the hash {found[:16]}.",
            f"{hash[:16]}, as the state of the ensemble says.",
            "Somebody changed it: take the folder from a backup, or build the ensemble again.",
        )
