"""What helps a guard inside a model: a run-time part of a method, from a change or made for it.

    change given    the parts of a change folder, checked by their hashes, made for the served model
    none given      the method is run on the targets' rows, as ``expunge forget`` would

A part that is read from a change is fixed: it helps with the rows it was made for, of which it
keeps keyed hashes, and with no other. A target whose rows are not among them is refused.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.core.errors import ExpungeError
from expunge.engine.covered import COVERS, content_of, hashes_of, is_covered
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.inside import needed
from expunge.engine.guarding.ladder import Hit
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.engine.guarding.desk import Arrays
    from expunge.engine.runtime import Part

PLAIN = {"bfloat16": "uint16"}
"""Types that numpy lacks -> those their bits are kept in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Help:
    """Where a guard's help comes from.

    Attributes:
        guard: Whose it is.
        method: The method that makes it.
        change: The change folder it is read from; empty: it is made of the targets' rows.
        params: The method's parameters, for then.
    """

    guard: str
    method: str
    change: str
    params: Mapping[str, Any]


def admitted(target: Target, help: Help, means: Means) -> dict[str, Any]:
    """What is stored of a target; refuses one that the help does not reach.

    Args:
        target: The target.
        help: What helps.
        means: What the guard may use.

    Raises:
        ExpungeError: ``E-SERVE-005``; ``E-SERVE-003`` when there is no model in this process; of
            the change as `parts_in`.
    """
    needed(means, help.guard)
    if not target.rows:
        raise _out_of_reach(
            f"The guard {help.guard} learns a target from its rows, and this one has none.",
            "rows that hold what must not come out.",
            "Give rows, or add the target to a guard that goes by names, such as lexical.",
        )
    if help.change and not is_covered(target.rows, _told_in(help)):
        raise _out_of_reach(
            f"The help of the guard {help.guard} was made without some of this target's rows: it "
            "would not hold them back.",
            f"a target whose rows are among those that {help.change} was made for.",
            f"Run expunge forget --method {help.method} with these rows and serve its change, or "
            "add the target to a guard that goes by names until then.",
        )
    return {"rows": len(target.rows)}


def shared(targets: Sequence[Target], help: Help, means: Means) -> Shared:
    """The help for all targets.

    Args:
        targets: The targets.
        help: What helps.
        means: What the guard may use.

    Raises:
        ExpungeError: As `parts_in`; as ``expunge forget`` where it is made.
    """
    ids = sorted(target.id for target in targets)
    if not targets:
        return Shared({"targets": ids, "parts": []})
    parent = _name_of(means, help.guard)
    if help.change:
        parts = parts_in(help.change, help.method, parent)
        told = {
            "change": str(Path(help.change).resolve()),
            "parts": [part.digest for part in parts],
        }
        return Shared({"targets": ids, "parent": parent, **told})
    parts = _made(targets, help, means)
    heads, arrays = _packed(parts)
    return Shared({"targets": ids, "parent": parent, "parts": heads}, arrays)


def read(desk: Desk, guard: str, method: str) -> "list[Part]":
    """The parts a desk holds, or names.

    Raises:
        ExpungeError: ``E-MODEL-009`` when they are not those that were stored, or made for another
            model.
    """
    told, arrays = desk.shared, desk.arrays
    if not told.get("parts"):
        return []
    if told["parent"] != _name_of(desk.means, guard):
        raise _of_another(guard, str(told["parent"]), _name_of(desk.means, guard))
    if "change" in told:
        parts = parts_in(told["change"], method, told["parent"])
        expected = list(told["parts"])
    else:
        parts = _unpacked(told["parts"], arrays)
        expected = [head["digest"] for head in told["parts"]]
    if [part.digest for part in parts] != expected:
        raise ExpungeError(
            "E-MODEL-009",
            f"What helps the guard {guard} is not what was stored.",
            "the parts the guard was fitted with.",
            "Somebody changed them: fit the guard again.",
        )
    return parts


def waiting(desk: Desk, hits: Iterable[Hit]) -> list[str]:
    """Targets that fired and were taken in after the help was made, which it does not reach yet."""
    reached = set(desk.shared.get("targets", ()))
    return [hit.target for hit in hits if hit.target not in reached]


def parts_in(change: str | Path, method: str, parent: str) -> "list[Part]":
    """The parts of a method in a change folder, the oldest first, checked by their hashes.

    Args:
        change: The folder.
        method: The method.
        parent: Digest of the model they are to be put into.

    Raises:
        ExpungeError: ``E-MODEL-001``, ``E-MODEL-002`` for what is no such change, ``E-MODEL-009``
            when the parts are not those that were written, or made for another model.
    """
    from expunge.engine.part_files import read_parts

    manifest = _manifest(change)
    parts = [part for part in read_parts(Path(change), manifest) if part.method == method]
    if not parts:
        raise _no_such_change(change, method)
    known = manifest["parent"]["digest"]
    if known != parent:
        raise _of_another(str(change), str(known), parent)
    return parts


def _told_in(help: Help) -> list[Mapping[str, Any]]:
    """What the parts of a change say of their rows; the tensors are not read for that."""
    from expunge.core.paths import inside
    from expunge.engine.part_files import entries_of
    from expunge.lm.headers import read_json

    entries = [one for one in entries_of(_manifest(help.change)) if one["method"] == help.method]
    if not entries:
        raise _no_such_change(help.change, help.method)
    heads = [read_json(inside(Path(help.change), one["file"])) for one in entries]
    told = [head["settings"].get(COVERS) for head in heads if isinstance(head, dict)]
    return [one for one in told if isinstance(one, Mapping)]


def _manifest(change: str | Path) -> dict[str, Any]:
    from expunge.engine.change import read_manifest

    manifest = read_manifest(Path(change))
    if manifest is None:
        raise ExpungeError(
            "E-MODEL-001",
            f"There is no change in {change}.",
            "a change folder written by expunge forget.",
            "Check --set change.",
        )
    return manifest


def _made(targets: Sequence[Target], help: Help, means: Means) -> "list[Part]":
    """Run the method on the rows of the targets, on a copy of the served model's weights."""
    from expunge.engine.part_files import read_parts
    from expunge.engine.run import forget
    from expunge.engine.runtime import without_parts
    from expunge.lm.load import quiet

    bare = without_parts(needed(means, help.guard))
    gone = [row for target in targets for row in target.rows]
    with tempfile.TemporaryDirectory(prefix="expunge-") as place:
        model, out = Path(place) / "model", Path(place) / "change"
        with quiet():
            bare.model.save_pretrained(model)
            bare.tokenizer.save_pretrained(model)
        forget(
            model, _numbered(_each_once(gone), "forget"),
            _numbered(_others(means.retain, gone), "retain") or None,
            method=help.method, params=dict(help.params), stop_at="none", seed=means.seed, out=out,
        )  # fmt: skip
        return read_parts(out, _manifest(out))


def _each_once(rows: Sequence[Row]) -> list[Row]:
    return list({content_of(row): row for row in rows}.values())


def _others(rows: Sequence[Row], gone: Sequence[Row]) -> list[Row]:
    """Rows that say nothing of what is to be gone."""
    hidden = hashes_of(gone, "others")
    return _each_once([row for row in rows if not hashes_of([row], "others") & hidden])


def _numbered(rows: Sequence[Row], role: str) -> list[Row]:
    """Rows of different targets may have equal ids; so none is kept."""
    return [replace(row, id=f"{role}-{number}", role=role) for number, row in enumerate(rows)]


def _name_of(means: Means, guard: str) -> str:
    from expunge.engine.runtime import without_parts

    return without_parts(needed(means, guard)).digest


def _packed(parts: "Sequence[Part]") -> "tuple[list[dict[str, Any]], Arrays]":
    """Parts as plain values and numbers."""
    import torch

    heads, arrays = [], {}
    for number, part in enumerate(parts):
        types = {}
        for name, tensor in part.tensors.items():
            plain = tensor.detach().cpu().contiguous()
            types[name] = str(plain.dtype).removeprefix("torch.")
            if types[name] in PLAIN:
                plain = plain.view(getattr(torch, PLAIN[types[name]]))
            arrays[f"{number}/{name}"] = plain.numpy().copy()
        heads.append({**part.head, "types": types, "digest": part.digest})
    return heads, arrays


def _unpacked(heads: Sequence[Mapping[str, Any]], arrays: "Arrays") -> "list[Part]":
    """What `_packed` gave."""
    import torch

    from expunge.engine.runtime import Part

    parts = []
    for number, head in enumerate(heads):
        tensors: dict[str, Tensor] = {}
        for name, kind in head["types"].items():
            plain = torch.from_numpy(arrays[f"{number}/{name}"].copy())
            tensors[name] = plain.view(getattr(torch, kind)) if kind in PLAIN else plain
        names = ("settings", "moves", "method", "version")
        parts.append(Part(tensors=tensors, **{name: head[name] for name in names}))
    return parts


def _out_of_reach(found: str, expected: str, remedy: str) -> ExpungeError:
    return ExpungeError("E-SERVE-005", found, expected, remedy)


def _no_such_change(change: str | Path, method: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-002",
        f"{change} holds no run-time part of {method}.",
        f"a change folder written by expunge forget --method {method}.",
        "Check --set change.",
    )


def _of_another(what: str, made_for: str, served: str) -> ExpungeError:
    return ExpungeError(
        "E-MODEL-009",
        f"{what} is made for the model {made_for[:16]}, and {served[:16]} is served.",
        "one and the same model.",
        "Serve the model that expunge forget was given, or make the change for this one.",
    )
