"""That no remaining parameter has met a deleted row, by hashes alone.

From the base model on, the file of every stage names the hash of the file before it and of every
row it was trained on. So the proof walks each sequence of the ensemble and hashes its files anew:

    1. the state of the ensemble and the last line of the ledger are those that ``change.json`` has
    2. every line of the ledger follows the line before it
    3. every file has the hash that the state has, and follows the file before it; the first
       follows the base model
    4. every row that a file names is one of the ensemble's; none of them was deleted
    5. the adapters that are served are those of the files
    6. the weights of the folder are the base model's

It holds for a folder as it was written by this project. Somebody who can write all of its files
can make another history that is as consistent: who must exclude that signs ``change.json``. Two
gaps that no such proof closes: parameters of the recipe that were chosen by looking at what is now
deleted, and a base model or tokenizer that was made from it.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from expunge.core.canonical import digest, file_digest
from expunge.core.errors import ExpungeError
from expunge.engine.exact.ledger import Ledger
from expunge.engine.exact.serving import adapters_of
from expunge.engine.exact.stages import Seen, check_file, read_seen
from expunge.engine.exact.state import FILE, Ensemble
from expunge.engine.made import FOLDER as MADE
from expunge.engine.runtime import Part
from expunge.lm.digest import tensors_digest, untied
from expunge.lm.scoring import at_least_float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was checked.

    Attributes:
        files: Checkpoints hashed anew.
        rows: Rows that they name, all different.
        deleted: Deleted rows of the ledger; none of them is among those.
        voices: Adapters that are served, compared with the files.
        ledger: Hash of the ledger's last line.
    """

    files: int
    rows: int
    deleted: int
    voices: int
    ledger: str


def prove(folder: str | Path) -> Proof:
    """Check the folder of a change that was made by a method of this kind.

    Raises:
        ExpungeError: ``E-MODEL-009`` naming the first thing that does not hold, ``E-MODEL-002``
            where there is no ensemble.
    """
    from expunge.engine.change import load_change
    from expunge.engine.part_files import read_parts
    from expunge.lm.load import load

    change = load_change(folder)
    made, told = change.folder / MADE, change.manifest["record"]
    if "ensemble" not in told:
        raise ExpungeError(
            "E-MODEL-002",
            f"{folder} holds no ensemble.",
            "a change that was made by a method that trains one.",
            "Name such a folder.",
        )
    if file_digest(made / FILE) != told["ensemble"]["state"]:
        raise _broken(f"{made / FILE} is not the one that change.json names")
    ensemble = Ensemble.read(made)
    parts = [part for part in read_parts(change.folder, change.manifest)]
    ours = [part for part in parts if part.method == ensemble.method]
    base = weights_digest(load(change.folder).model)
    return checked(ensemble, made, ours[0], base, told["ledger"]["head"])


def checked(ensemble: Ensemble, folder: Path, part: Part, base: str, head: str) -> Proof:
    """Check an ensemble whose files lie in a folder.

    Args:
        ensemble: Its state.
        folder: Where ledger and files lie.
        part: What is served.
        base: `weights_digest` of the weights it is served with.
        head: Hash of the last line of the ledger.

    Raises:
        ExpungeError: ``E-MODEL-009``.
    """
    ledger = Ledger.read(folder)
    if ledger.head != head:
        raise _broken("the ledger does not end with the line that change.json names")
    if base != ensemble.base:
        raise _broken("the weights are not those of the base model")
    alive = {member.key for member in ensemble.members}
    if again := sorted(alive & ledger.deleted):
        raise _broken(f"the row {again[0][:16]} was deleted, and is in the ensemble")
    files, rows = 0, set[str]()
    for shard, chains in enumerate(ensemble.shards):
        for sequence, chain in enumerate(chains):
            parent = ensemble.base
            for stage, hash in enumerate(chain.files):
                seen = _seen(ensemble, folder, (shard, sequence, stage), parent, hash)
                rows |= set(seen.rows)
                parent, files = hash, files + 1
    if strange := sorted(rows - alive):
        raise _broken(f"a checkpoint was trained on the row {strange[0][:16]}, which is gone")
    _compare_served(folder, part, ensemble)
    return Proof(
        files=files,
        rows=len(rows),
        deleted=len(ledger.deleted),
        voices=len(part.settings["voices"]),
        ledger=head,
    )


def weights_digest(model: object) -> str:
    """Names the weights of a model, whatever precision holds them."""
    state = untied(model)  # type: ignore[arg-type]
    return tensors_digest({n: at_least_float32(t) for n, t in state.items()})


def expected_seen(ensemble: Ensemble, shard: int, sequence: int, stage: int, parent: str) -> Seen:
    """What the file of a stage must say of itself."""
    slices = ensemble.shards[shard][sequence].order[: stage + 1]
    rows = [member.key for member in ensemble.behind(shard, slices)]
    return Seen(shard, sequence, stage, list(slices), rows, parent, digest(ensemble.recipe))


def _seen(
    ensemble: Ensemble, folder: Path, place: tuple[int, int, int], parent: str, hash: str
) -> Seen:
    expected = expected_seen(ensemble, *place, parent)
    check_file(folder / expected.file, hash)
    seen = read_seen(folder / expected.file)
    if seen.parent != parent:
        raise _broken(f"{expected.file} does not come from the checkpoint before it")
    if seen != expected:
        raise _broken(f"{expected.file} was trained on other rows than stand behind it")
    return seen


def _compare_served(folder: Path, part: Part, ensemble: Ensemble) -> None:
    """The tensors that are served are those of the files, and none beside."""
    expected: dict[str, Tensor] = {}
    for number, voice in enumerate(part.settings["voices"]):
        shard, sequence, files = voice["shard"], voice["sequence"], voice["stages"]
        if tuple(files) != ensemble.shards[shard][sequence].files:
            raise _broken(f"what is served of shard {shard} is not what is left of it")
        found = adapters_of(folder, shard, sequence, files)
        expected |= {f"{number}/{name}": tensor for name, tensor in found.items()}
    if tensors_digest(expected) != tensors_digest(part.tensors):
        raise _broken("the adapters that are served are not those of the checkpoints")


def _broken(found: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-009",
        f"The exactness does not hold: {found}.",
        "files, ledger and served adapters as they were written together.",
        "Take the folder from a backup, or build the ensemble again.",
    )
