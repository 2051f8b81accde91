"""The audited model on disk: the digest of its weights, and of every file that is loaded.

A model is more than its weights: another tokenizer, chat template or guard makes it answer
differently. So all files that a loader reads are named by their digests, and when a model is
verified there must be these and no others.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from expunge.core.canonical import file_digest
from expunge.core.errors import ExpungeError, raise_all
from expunge.lm.folder import Folder, inspect_folder

LOADED = (".json", ".jinja", ".model", ".safetensors", ".txt")
"""Endings of the files that loaders read."""
TEMPLATES = "additional_chat_templates"
STEMS = (
    "adapter_config adapter_model added_tokens change chat_template config generation_config guard "
    "merges model preprocessor_config processor_config revert special_tokens_map spiece tokenizer "
    "tokenizer_config vocab"
)
PLAIN = re.compile(
    rf"({STEMS.replace(' ', '|')})(-[0-9]{{5}}-of-[0-9]{{5}})?(\.index)?(\.[a-z]+){{1,2}}\Z",
    re.ASCII,
)
"""Names that libraries and we give; any other may tell something and is replaced by its hash."""
OURS = ("audit.json", "summary.json", "certificate.json")
"""Files of an audit folder, in case it is the model's folder too."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model folder as it is on disk.

    Attributes:
        digest: Of the weights one gets by loading it, as audits record it.
        files: Name -> SHA-256 of what is loaded; below ``base/``, the files of its base.
    """

    digest: str
    files: Mapping[str, str]


def measure(path: Path) -> Measured:
    """Hash a model, adapter or change folder; nothing of it is loaded and nothing is fetched.

    Raises:
        ExpungeError: What makes the folder unusable, all at once.
    """
    folder = inspect_folder(path, fetch=False)
    raise_all(folder.problems)
    return Measured(folder.digest, dict(_files(folder)))


def at_hand(given: Path | None, recorded: str | None) -> Path | None:
    """The folder to look at: the one given, else the one the audit recorded, if it is here.

    Raises:
        ExpungeError: ``E-MODEL-001`` when the one given is no folder.
    """
    if given is not None:
        if not given.is_dir():
            raise ExpungeError(
                "E-MODEL-001",
                f"There is no folder {given}.",
                "the folder of the audited model.",
                "Check --model.",
            )
        return given
    return Path(recorded) if recorded and Path(recorded).is_dir() else None


def other_model(path: Path, why: str, told: str) -> ExpungeError:
    """``E-CERT-009``."""
    return ExpungeError(
        "E-CERT-009",
        f"{path} is not the model that was {told}: {why}.",
        f"the model that was {told}, unchanged.",
        "Give its folder by --model if it is elsewhere; otherwise audit this model.",
    )


def differences(found: Mapping[str, str], certified: Mapping[str, str]) -> str:
    """Which files were added, removed or changed, as the end of a sentence; empty for none."""
    kinds = {
        "added": found.keys() - certified.keys(),
        "missing": certified.keys() - found.keys(),
        "changed": {name for name in found.keys() & certified if found[name] != certified[name]},
    }
    told = [f"{kind}: {', '.join(sorted(names)[:5])}" for kind, names in kinds.items() if names]
    return "; ".join(told)


def _files(folder: Folder, below: str = "") -> Iterator[tuple[str, str]]:
    for path in sorted([*folder.path.iterdir(), *folder.path.glob(f"{TEMPLATES}/*")]):
        if path.suffix in LOADED and path.is_file() and path.name not in OURS:
            inner = path.relative_to(folder.path).as_posix()
            yield below + _named(inner), file_digest(path)
    if folder.holds != "model" and folder.base is not None:
        yield from _files(inspect_folder(folder.base, fetch=False), f"{below}base/")


def _named(name: str) -> str:
    """A name as a certificate shows it."""
    if PLAIN.match(name):
        return name
    return f"other-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:32]}"
