"""What a change tells of its ensemble: in ``change.json``, and in the summary of the run."""

from collections.abc import Mapping
from typing import Any

from expunge.engine.exact.planner import outlook
from expunge.engine.exact.scheme import Scheme
from expunge.engine.exact.serving import speakers
from expunge.engine.exact.state import Ensemble


def record_of(ensemble: Ensemble, scheme: Scheme) -> dict[str, Any]:
    """What ``change.json`` tells of an ensemble.

    Returns:
        ``rows`` (hash of the content of each), ``ensemble`` (what there is of it), ``plan`` (what
        is left, and what the next deletion costs, in row-epochs).
    """
    chains = [chain for shard in ensemble.shards for chain in shard]
    return {
        "rows": sorted(member.key for member in ensemble.members),
        "ensemble": {
            "shards": len(ensemble.shards),
            "slices": ensemble.slices,
            "sequences": len(ensemble.shards[0]),
            "sequences_left": sum(bool(chain.files) for chain in chains),
            "stages_left": sum(len(chain.files) for chain in chains),
            "voices": len(speakers(ensemble)),
            "rows_of_slices": ensemble.sizes,
            "passes": ensemble.passes,
            "head": ensemble.head,
        },
        "plan": outlook(ensemble, scheme).as_dict(),
    }


def details_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary tells of an ensemble."""
    plan, request = record["plan"], record["request"]
    left, following = plan["deletions_left"], plan["next_deletion"]
    return {
        "voices": record["ensemble"]["voices"],
        "deleted": request["deleted"],
        "row_epochs": request.get("row_epochs", plan["rebuilding"]),
        "row_epochs_of_retraining": plan["retraining"],
        "deletions_left": left["expected"],
        "deletions_left_worst": left["worst"],
        "next_deletion_row_epochs": following["mean"],
        "ledger": record["ledger"]["head"][:16],
        **{f"known_{name}": told for name, told in (record["known"] or {}).items()},
    }
