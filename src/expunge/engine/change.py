"""Changes: what a method hands back, as a folder that loads anywhere and can be undone.

A change folder holds the weights in their own layout (`transformers` or `peft` load it as it is),
``change.json``, and for full weights ``revert.safetensors``: the bitwise exclusive or of the new
weights with the parent's, which takes either to the other exactly. A change whose vocabulary grew
also keeps the files of the original that tell of it (`expunge.engine.vocabulary`).
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from expunge.core.atomic import new_folder, write_json
from expunge.core.errors import ExpungeError
from expunge.core.paths import inside
from expunge.engine.made import FOLDER as MADE
from expunge.engine.part_files import PARTS, entries_of, files_of, read_parts
from expunge.engine.vocabulary import TOKENIZER_FILES, check_tokens, give_back, replaced_by
from expunge.lm.digest import folder_digest
from expunge.lm.folder import inspect_folder
from expunge.lm.headers import weight_files
from expunge.lm.patch import apply_xor, xor

FORMAT = "unlearning-change/1"
MANIFEST = "change.json"
PATCH = "revert.safetensors"
REVERTED = "reverted"
STAGING = ".original"


@dataclass(frozen=True, slots=True)
class Change:
    """A finished change on disk.

    Attributes:
        folder: Where it lies.
        manifest: The content of ``change.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """What ``expunge forget --json`` prints."""
        return dict(self.manifest["summary"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished change folder, or None when there is none.

    Raises:
        ExpungeError: ``E-MODEL-002`` when ``change.json`` is not one.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            return dict(manifest)
    except (ValueError, KeyError, TypeError, OSError):
        pass
    raise ExpungeError(
        "E-MODEL-002",
        f"{path} is not a change manifest.",
        f"a JSON object with format {FORMAT!r}.",
        "Make the change again, or name another folder.",
    )


def copy_tokenizer(parent: Path, folder: Path) -> None:
    """Take the tokenizer over byte for byte, so that text becomes the same tokens."""
    for name in TOKENIZER_FILES:
        if (parent / name).is_file():
            shutil.copyfile(parent / name, folder / name)


def write_patch(parent: Path, folder: Path) -> int:
    """Write what takes the new weights in ``folder`` back to the parent's.

    Returns:
        Number of weights that differ, those of added rows included.
    """
    new = read_tensors(weight_files(folder))
    patch = xor(new, read_tensors(weight_files(parent)))
    save_file(patch, folder / PATCH)
    return sum(
        int(bits.count_nonzero()) + new[name].numel() - bits.numel() for name, bits in patch.items()
    )


def load_change(folder: str | Path) -> Change:
    """Open a change folder and check its weights against its manifest.

    Raises:
        ExpungeError: ``E-MODEL-002`` when it is none, ``E-MODEL-009`` when hashes differ.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise ExpungeError(
            "E-MODEL-002",
            f"{folder} has no {MANIFEST}.",
            "a folder written by expunge forget or expunge guard.",
            "Check the path.",
        )
    verify_result(folder, manifest)
    return Change(folder, manifest)


def verify_result(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check weights, run-time parts and added tokens of a change against its own manifest.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    expected = manifest["result"]["digest"]
    if expected is not None:
        _compare(folder, folder_digest(folder), expected)
    read_parts(folder, manifest)
    check_tokens(folder, manifest)


def verify(folder: Path, expected: str) -> None:
    """Check what loading a folder gives against a digest.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    _compare(folder, inspect_folder(folder).digest, expected)


def _compare(folder: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ExpungeError(
            "E-MODEL-009",
            f"The weights in {folder} have digest {found[:16]}.",
            f"{expected[:16]}, as recorded when they were written.",
            "Somebody changed the files: restore them, or make the change again.",
        )


def revert(folder: str | Path, out: str | Path | None = None) -> dict[str, Any]:
    """Give back the original weights, bit for bit, and the run-time parts it had.

    Args:
        folder: A change folder; its weights are checked first.
        out: Where to put the original. By default the folder itself becomes the original again,
            and the change moves, whole, to ``reverted/`` inside it.

    Returns:
        ``out``, ``digest`` of the original's weights, ``verified``, ``change`` (where it is now).

    Raises:
        ExpungeError: ``E-MODEL-009`` when weights do not verify, ``E-MODEL-001`` when an adapter's
            original is gone.
    """
    change = load_change(folder)
    digest = change.manifest["parent"]["digest"]
    with new_folder(Path(out) if out is not None else change.folder / STAGING) as target:
        if (change.folder / PATCH).is_file():
            _rebuild(change, target)
        else:
            _copy_parent(change, target)
        _give_parts_back(change, target)
        verify(target, digest)
    if out is not None:
        return {"out": str(out), "digest": digest, "verified": True, "change": str(folder)}
    _exchange(change.folder)
    moved = str(change.folder / REVERTED)
    return {"out": str(change.folder), "digest": digest, "verified": True, "change": moved}


def read_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """All tensors of some safetensors files."""
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _rebuild(change: Change, target: Path) -> None:
    """Undo the exclusive or, file by file, so that no more than one file is in memory."""
    patch = load_file(change.folder / PATCH)
    own = {MANIFEST, PATCH, *files_of(change.manifest), *replaced_by(change.manifest)}
    for file in change.folder.iterdir():
        if file.is_file() and file.name not in own and not file.name.startswith("."):
            if file.suffix == ".safetensors":
                new = load_file(file)
                old = apply_xor(new, {name: patch[name] for name in new if name in patch})
                save_file({**new, **old}, target / file.name, metadata={"format": "pt"})
            else:
                shutil.copyfile(file, target / file.name)
    give_back(change.folder, change.manifest, target)


def _copy_parent(change: Change, target: Path) -> None:
    parent = Path(change.manifest["parent"]["path"])
    if not parent.is_dir():
        raise ExpungeError(
            "E-MODEL-001",
            f"The original of this change is not at {parent}.",
            "the folder the change was made from, which the change never touched.",
            "Put it back there.",
        )
    for file in parent.iterdir():
        if file.is_file() and file.name != MANIFEST and not file.name.startswith("."):
            shutil.copyfile(file, target / file.name)


def _give_parts_back(change: Change, target: Path) -> None:
    """Make of the original's weights the change it was, where it had run-time parts itself.

    A part that this change took the place of lies in the original's folder alone, with what its
    method made.
    """
    before = change.manifest["parent"].get("manifest")
    if before is None:
        return
    own, parent = entries_of(change.manifest), Path(change.manifest["parent"]["path"])
    gone = [entry for entry in entries_of(before) if entry not in own]
    if gone and not parent.is_dir():
        raise ExpungeError(
            "E-MODEL-001",
            f"The original of this change is not at {parent}.",
            f"that folder: the part of {gone[0]['method']} that this change replaced lies there.",
            "Put it back there.",
        )
    lost = files_of({"runtime": {PARTS: gone}})
    for name in files_of(before):
        shutil.copyfile(inside(parent if name in lost else change.folder, name), target / name)
    if gone and (parent / MADE).is_dir():
        shutil.copytree(parent / MADE, target / MADE)
    write_json(target / MANIFEST, before)


def _exchange(folder: Path) -> None:
    """Move the change aside and the original in, the manifest first: no half state counts."""
    aside = folder / REVERTED
    aside.mkdir()
    (folder / MANIFEST).replace(aside / MANIFEST)
    for file in sorted(folder.iterdir()):
        if (file.is_file() and not file.name.startswith(".")) or file.name == MADE:
            file.replace(aside / file.name)
    staged = sorted((folder / STAGING).iterdir(), key=lambda file: file.name == MANIFEST)
    for file in staged:
        file.replace(folder / file.name)
    (folder / STAGING).rmdir()
