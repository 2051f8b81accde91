"""Mounting attacks on models, each once: results are kept under what they depend on.

A kept result is found again only by the same weights, attack, version, parameters, rows, scene and
seed, so it never passes from one model to another. What a gate makes of an answer has no hash, so
nothing is kept for a model with a gate.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.audit.plan import Entry
from expunge.audit.statistics import FloatArray
from expunge.core.atomic import write_json
from expunge.core.canonical import digest
from expunge.core.events import note
from expunge.core.registry import attacks
from expunge.core.results import Leak
from expunge.core.rng import derive
from expunge.lm.subject import Scene, Subject
from expunge.requests.rows import Row

FORMAT = "leak-cache/2"
NUMBERED = ("curve", "layers")
"""Fields of a leak whose keys are numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mounter:
    """Mounts attacks in one scene.

    Attributes:
        scene: Retain and neighbour rows, the original, the seed of the audit.
        folder: Where results are kept from one audit to the next, or None to keep none.
        memory: Results of this audit, so that a model that is the original is attacked once.
        digests: Hashes of row sets already met, each beside the set itself.
    """

    scene: Scene
    folder: Path | None = None
    memory: dict[str, Leak] = field(default_factory=dict)
    digests: dict[int, tuple[Sequence[Row], str]] = field(default_factory=dict)

    def mount(self, subject: Subject, rows: Sequence[Row], entry: Entry) -> list[Leak]:
        """Mount an attack as often as its entry says.

        Args:
            subject: The attacked model.
            rows: The attacked rows.
            entry: The attack, its parameters and the number of runs.

        Returns:
            One leak a run.
        """
        return [self._run(subject, rows, entry, run) for run in range(entry.runs)]

    def _run(self, subject: Subject, rows: Sequence[Row], entry: Entry, run: int) -> Leak:
        scene = replace(self.scene, seed=derive(self.scene.seed, "attack", entry.id, run))
        params = attacks.params(entry.id, entry.params)
        if subject.gate is not None:
            return _mounted(subject, rows, scene, entry.id, params)
        key = self._key(subject, rows, scene, entry.id, asdict(params))
        name = digest(key)
        if name not in self.memory:
            path = self.folder / f"{name}.json" if self.folder else None
            kept = _read(path, key) if path else None
            self.memory[name] = kept or _mounted(subject, rows, scene, entry.id, params)
            if path and kept is None:
                _write(path, key, self.memory[name])
        return self.memory[name]

    def _key(
        self,
        subject: Subject,
        rows: Sequence[Row],
        scene: Scene,
        id: str,
        params: Mapping[str, Any],
    ) -> dict[str, Any]:
        return {
            "model": subject.digest,
            "original": scene.original.digest if scene.original else None,
            "attack": id,
            "version": attacks.card(id).version,
            "params": json.loads(json.dumps(params)),
            "rows": self._digest(rows),
            "retain": self._digest(scene.retain),
            "neighbour": self._digest(scene.neighbour),
            **self._looked_at(id, scene),
            "new_tokens": scene.new_tokens,
            "seed": str(scene.seed),
        }

    def _looked_at(self, id: str, scene: Scene) -> dict[str, Any]:
        """What only some attacks look at, by what their cards say they need."""
        needs = attacks.card(id).needs
        reference = scene.reference.digest if scene.reference else None
        found = {"holdout": self._digest(scene.holdout), "reference": reference}
        return {name: value for name, value in found.items() if name in needs}

    def _digest(self, rows: Sequence[Row]) -> str:
        """The hash of ``rows``; the set is kept beside it, so that its identity stays taken."""
        if id(rows) not in self.digests:
            self.digests[id(rows)] = (rows, rows_digest(rows))
        return self.digests[id(rows)][1]


def _mounted(subject: Subject, rows: Sequence[Row], scene: Scene, id: str, params: Any) -> Leak:
    leak: Leak = attacks.load(id).mount(subject, rows, scene, params)
    return leak


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows, ids and order included."""
    return digest([row.as_dict() for row in rows])


def _read(path: Path, key: Mapping[str, Any]) -> Leak | None:
    """A kept result, or None when there is none or the file is not the one that was written."""
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        if kept["format"] == FORMAT and kept["key"] == key:
            return _from_json(kept["leak"])
    except (ValueError, KeyError, TypeError) as error:
        note(f"A kept attack result is unreadable and is made again: {path.name} ({error}).")
    return None


def _write(path: Path, key: Mapping[str, Any], leak: Leak) -> None:
    numbered = {name: _named(getattr(leak, name)) for name in NUMBERED}
    kept = {**asdict(leak), **numbered}
    write_json(path, {"format": FORMAT, "key": key, "leak": kept}, indent=None)


def _from_json(kept: Mapping[str, Any]) -> Leak:
    return Leak(
        **{
            **kept,
            "transcript": tuple(kept["transcript"]),
            **{name: {int(at): x for at, x in kept[name].items()} for name in NUMBERED},
        }
    )


def _named(table: Mapping[int, float]) -> dict[str, float]:
    """Numbers as keys, as JSON has them."""
    return {str(at): value for at, value in table.items()}


def table(runs: Sequence[Leak], rows: Sequence[Row]) -> FloatArray:
    """Leaks [runs, rows] of repeated runs, NaN where a run did not test a row."""
    return values_table([leak.per_row for leak in runs], rows)


def values_table(runs: Sequence[Mapping[str, float]], rows: Sequence[Row]) -> FloatArray:
    """Values [runs, rows] by row id, NaN where there is none."""
    nothing = float("nan")
    found = [[values.get(row.id, nothing) for row in rows] for values in runs]
    return np.array(found, dtype=np.float64).reshape(len(runs), len(rows))


def mean_per_row(runs: Sequence[Leak]) -> dict[str, float]:
    """Row id -> mean leak over the runs that tested it."""
    return mean_of([leak.per_row for leak in runs])


def mean_beside(runs: Sequence[Leak]) -> dict[str, dict[str, float]]:
    """Name -> row id -> what stands beside the leaks, mean over runs."""
    names = dict.fromkeys(name for leak in runs for name in leak.beside)
    return {name: mean_of([leak.beside.get(name, {}) for leak in runs]) for name in names}


def mean_of(tables: Sequence[Mapping[Any, float]]) -> dict[Any, float]:
    """Key -> mean over the tables that have it."""
    keys = dict.fromkeys(key for each in tables for key in each)
    return {key: float(np.mean([each[key] for each in tables if key in each])) for key in keys}


def mean_parts(runs: Sequence[Leak]) -> dict[str, float]:
    """Named secondary numbers, mean over runs; with several runs also the worst run's leak."""
    names = dict.fromkeys(name for leak in runs for name in leak.parts)
    parts = {
        name: float(np.mean([leak.parts[name] for leak in runs if name in leak.parts]))
        for name in names
    }
    means = [float(np.mean(list(leak.per_row.values()))) for leak in runs if leak.per_row]
    return {**parts, "worst_run": max(means)} if len(means) > 1 else parts


def mean_curve(runs: Sequence[Leak]) -> dict[int, float]:
    """Step -> mean leak over runs, at the steps all runs measured."""
    steps = set.intersection(*(set(leak.curve) for leak in runs)) if runs else set()
    return {step: float(np.mean([leak.curve[step] for leak in runs])) for step in sorted(steps)}
