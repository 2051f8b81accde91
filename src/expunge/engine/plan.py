"""A request to forget, read and resolved, before any weights load (no torch)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge.core.canonical import digest
from expunge.core.families import GradientParams
from expunge.engine.levels import StopAt
from expunge.engine.wrappers import Wrapped
from expunge.lm.folder import Folder
from expunge.requests.rows import Row


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a run depends on.

    Attributes:
        folder: The model to change.
        method: Id of the method.
        params: Its parameters, resolved.
        rows: Role -> rows.
        retain_origin: ``given``, ``holdout`` or ``bundled``.
        reference: Folder of the retrained reference, for ``--stop-at reference``.
        wrappers: What is wrapped around the method, in order.
        adapter: ``lora`` or None.
        utility_budget: Largest relative fall of retain accuracy, or None.
        max_minutes: Longest training time, or None.
        stop_at: Level that ends the run.
        seed: Seed of the run.
        out: Folder of the change.
        base: The model before it saw any rows, for methods that train anew from it.
        anchor: What losses compare with, where that is not the model to change.
        carry: What earlier requests of a stream hand on to this one.
    """

    folder: Folder
    method: str
    params: GradientParams
    rows: Mapping[str, Sequence[Row]]
    retain_origin: str
    reference: Path | None
    wrappers: Sequence[Wrapped]
    adapter: str | None
    utility_budget: float | None
    max_minutes: float | None
    stop_at: StopAt
    seed: int
    out: Path
    base: Folder | None = None
    anchor: Folder | None = None
    carry: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def data(self) -> dict[str, dict[str, Any]]:
        """Role -> number of rows and hash of their content."""
        return {
            role: {"rows": len(rows), "digest": digest([row.as_dict() for row in rows])}
            for role, rows in self.rows.items()
            if rows
        }

    @cached_property
    def fingerprint(self) -> str:
        """Two runs with equal fingerprints give the same weights."""
        base: dict[str, Any] = {} if self.base is None else {"base": self.base.digest}
        base |= {} if self.anchor is None else {"anchor": self.anchor.digest}
        base |= {"carry": dict(self.carry)} if self.carry else {}
        parts = (self.folder.manifest or {}).get("runtime")
        base |= {"runtime": digest(parts)} if parts else {}
        return digest(
            base
            | {
                "parent": self.folder.digest,
                "method": self.method,
                "params": asdict(self.params),
                "data": self.data,
                "reference": str(self.reference) if self.reference else None,
                "wrappers": [wrapper.as_dict() for wrapper in self.wrappers],
                "adapter": self.adapter,
                "utility_budget": self.utility_budget,
                "stop_at": asdict(self.stop_at),
                "seed": self.seed,
            }
        )
