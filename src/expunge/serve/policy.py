"""The policy: what holds here, in a form that two people can compare. It names no target."""

from dataclasses import asdict
from typing import Any

from expunge.core.canonical import digest
from expunge.engine.guarding.fitting import Working
from expunge.engine.guarding.pipeline import Pipeline
from expunge.serve.backends import Backend
from expunge.serve.holding import Holding
from expunge.serve.live import plain

FORMAT = "expunge-policy/1"


def policy(
    pipeline: Pipeline, backend: Backend, holding: Holding, settings: dict[str, Any]
) -> dict[str, Any]:
    """What ``GET /admin/policy`` says.

    Args:
        pipeline: The guards, in the order in which a question passes them.
        backend: The model.
        holding: The targets; only their number is said.
        settings: What else decides how requests are answered.

    Returns:
        The policy with ``digest`` over all of it, and beside it ``errors``: how often each guard
        broke, and closed, since the start.
    """
    told = {
        "format": FORMAT,
        "backend": {**backend.about, "offers": sorted(backend.offers)},
        "guards": [
            {
                "id": guard.id,
                "version": int(guard.card["version"]),
                "place": guard.card["place"],
                "stages": list(guard.card["stages"]),
                "fails": guard.card["fails"],
                "params": plain(asdict(guard.desk.params)),
                "thresholds": {
                    f"{name}/{rung.name}": float(rung.threshold)
                    for name, ladder in (
                        ("asked", guard.desk.ladder),
                        ("drafted", guard.desk.drafts),
                    )
                    for rung in ladder.rungs
                },
            }
            for guard in pipeline.guards
        ],
        "settings": settings,
        "targets": holding.store.count,
    }
    return {**told, "digest": digest(told), "errors": dict(pipeline.errors)}


def _guard(guard: Working) -> dict[str, Any]:
    ladders = {"asked": guard.desk.ladder, "drafted": guard.desk.drafts}
    return {
        "id": guard.id,
        "version": int(guard.card["version"]),
        "place": guard.card["place"],
        "stages": list(guard.card["stages"]),
        "fails": guard.card["fails"],
        "params": plain(asdict(guard.desk.params)),
        "thresholds": {
            f"{name}/{rung.name}": float(rung.threshold)
            for name, ladder in ladders.items()
            for rung in ladder.rungs
        },
    }
