"""A change folder against its own manifest: weights, run-time parts, a guard, an ensemble."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge.engine.change import load_change
from expunge.engine.exact.proof import prove
from expunge.engine.guarding import stored


def verify_change(folder: Path) -> dict[str, Any]:
    """Hash what a change folder holds, and compare it with what its manifest says.

    Args:
        folder: The change.

    Returns:
        ``change`` (the folder), ``method``, ``guard`` (each None where there is none), ``parts``
        (how many of a method work at run time), ``verified``, and ``proof``: what was checked of an
        ensemble (`expunge.engine.exact.proof.Proof`), or None where there is none.

    Raises:
        ExpungeError: ``E-MODEL-009`` naming the first thing that does not hold, ``E-MODEL-002``
            where ``change.json`` is none, ``E-SERVE-007`` for a guard without its key.
    """
    change = load_change(folder)
    runtime, record = change.manifest["runtime"] or {}, change.manifest.get("record") or {}
    if "guard" in runtime:
        stored.read(folder, runtime)
    return {
        "change": str(folder),
        "method": change.manifest.get("method"),
        "guard": runtime.get("guard"),
        "parts": len(runtime.get("parts", ())),
        "verified": True,
        "proof": asdict(prove(folder)) if "ensemble" in record else None,
    }
