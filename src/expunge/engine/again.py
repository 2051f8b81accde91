"""The process that made a change, carried out again on another request.

Attacks on the process of forgetting need it: what would the same operator, with the same method and
settings, have done to the model if the request had been another one?
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.engine.run import forget
from expunge.requests.rows import Row


def is_repeatable(manifest: Mapping[str, Any] | None) -> bool:
    """Whether a change says how it was made (a guard changes no weights)."""
    return manifest is not None and "method" in manifest


def how_it_was_made(manifest: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Kind, method, parameters, wrappers and seed of a change; None for anything else."""
    if manifest is None or not is_repeatable(manifest):
        return None
    told = ("kind", "method", "params", "wrappers", "seed")
    return {name: manifest[name] for name in told}


def carry_out(
    manifest: Mapping[str, Any], rows: Sequence[Row], retain: Sequence[Row], out: Path
) -> None:
    """Forget other rows in the way a change was made, from the same parent.

    Args:
        manifest: ``change.json`` of that change.
        rows: The rows to forget now.
        retain: The rows to keep.
        out: Folder of the new change.

    Raises:
        ExpungeError: As `expunge.engine.run.forget` does; for instance when the parent is gone.
    """
    forget(
        manifest["parent"]["path"],
        rows,
        retain or None,
        method=manifest["method"],
        params=manifest["params"],
        wrappers=[_typed(wrapper) for wrapper in manifest["wrappers"]],
        adapter="lora" if manifest["kind"] == "adapter" else None,
        stop_at=_stop(manifest["stop"]),
        seed=manifest["seed"],
        out=out,
    )


def _typed(wrapper: Mapping[str, Any]) -> str:
    """A wrapper as ``--with`` takes it."""
    given = ",".join(f"{name}={value}" for name, value in wrapper["params"].items())
    return f"{wrapper['id']}:{given}" if given else str(wrapper["id"])


def _stop(stop: Mapping[str, Any]) -> str:
    """The level as ``--stop-at`` takes it; a reference's is known by now."""
    kind = str(stop["at"]["kind"])
    if kind in ("nll", "reference") and stop["level"]:
        return f"nll={stop['level']['nll']}"
    return kind
