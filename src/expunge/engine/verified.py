"""A change folder against its own manifest, and an ensemble against its ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from expunge.engine.change import load_change
from expunge.engine.exact.proof import prove


def verify_change(folder: Path) -> dict[str, Any]:
    """Hash what a change folder holds, and compare it with what its manifest says.

    Args:
        folder: The change.

    Returns:
        ``change`` (the folder), ``method``, ``parts`` (how many work at run time), ``verified``,
        and ``proof``: what was checked of an ensemble
        (`expunge.engine.exact.proof.Proof`), or None where there is none.

    Raises:
        ExpungeError: ``E-MODEL-009`` naming the first thing that does not hold, ``E-MODEL-002``
            where ``change.json`` is none.
    """
    change = load_change(folder)
    runtime, record = change.manifest["runtime"] or {}, change.manifest.get("record") or {}
    return {
        "change": str(folder),
        "method": change.manifest["method"],
        "parts": len(runtime.get("parts", ())),
        "verified": True,
        "proof": asdict(prove(folder)) if "ensemble" in record else None,
    }
