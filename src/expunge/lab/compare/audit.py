"""Runs of ``expunge audit`` and ``expunge forget``.

Definition (of an audit; XR: recovery beyond the control, see `expunge.audit.statistics`):
    forgetting    1 - max XR over the attacks that decide and can tell    the least out of reach
    interval      1 - the largest upper bound to 1 - the largest lower bound, so rather too wide
    utility       as the audit measured it

Definition (of a change without an audit):
    forgetting    negative log-likelihood of the forget rows, in nats a token
    utility       1 - utility_drop
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expunge.audit.schema import check_record
from expunge.core import registry
from expunge.core.bootstrap import FloatArray, Units
from expunge.core.errors import ExpungeError
from expunge.core.measuring import aggregate_of
from expunge.lab.compare.attacks import attack_numbers, recovered, summaries, telling
from expunge.lab.compare.files import AUDIT, CHANGE, Manifest, read_change, read_object
from expunge.lab.compare.runs import ORIGINAL, REFERENCE, RUN, Draw, Number, Origin, Run, redrawn

FORGETTING, UTILITY = "forgetting", "utility"
MOST_BESIDE = 50
"""Folders beside a change in which its audit is looked for."""

Record = Mapping[str, Any]


def audit_run(folder: Path, entities: Mapping[str, str | None]) -> Run:
    """One audit.

    Args:
        folder: What ``expunge audit --out`` wrote.
        entities: Row id -> entity, where the rows are at hand.

    Raises:
        ExpungeError: E-DATA-002, E-DATA-003 for a broken ``audit.json``.
    """
    record = read_object(folder / AUDIT)
    check_record(record)
    return _audited(folder, record, entities, _maker(folder, record))


def change_run(folder: Path, entities: Mapping[str, str | None]) -> Run:
    """One change: by its audit where there is one inside or beside it, else by its summary.

    Args:
        folder: What ``expunge forget --out`` wrote.
        entities: Row id -> entity, where the rows are at hand.

    Raises:
        ExpungeError: E-DATA-002, E-DATA-003 for a broken ``change.json``.
    """
    manifest = read_change(folder / CHANGE)
    found = list(_audits_of(manifest, folder))
    if not found:
        return _summarised(folder, manifest)
    at, record = found[0]
    origin = Origin(manifest.method, manifest.seed, manifest.key)
    several = f"{folder.name} has {len(found)} audits here; {at.name} is shown"
    return _audited(at, record, entities, origin, (several,) if len(found) > 1 else ())


def _audits_of(manifest: Manifest, folder: Path) -> Iterable[tuple[Path, Record]]:
    """Audits of exactly these weights: inside the folder first, then beside it."""
    inside = [folder, *sorted(path.parent for path in folder.glob(f"*/{AUDIT}"))]
    beside = sorted(path.parent for path in folder.resolve().parent.glob(f"*/{AUDIT}"))
    for at in [*inside, *beside[:MOST_BESIDE]]:
        try:
            record = read_object(at / AUDIT)
            check_record(record)
        except ExpungeError:
            continue  # nobody asked for this one
        if record["models"]["model"]["digest"] == manifest.result.digest:
            yield at, record


def _audited(
    folder: Path,
    record: Record,
    entities: Mapping[str, str | None],
    origin: Origin | None,
    notes: tuple[str, ...] = (),
) -> Run:
    numbers = {
        FORGETTING: _forgetting(record),
        UTILITY: _utility(record["utility"]),
        **attack_numbers(record),
        **{
            name: _metric(name, of["model"])
            for name, of in record["metrics"].items()
            if of["model"] is not None
        },
    }
    digests = {who: of and of["digest"] for who, of in record["models"].items()}
    anchor = [who for who in (ORIGINAL, REFERENCE) if digests[who] == digests["model"]]
    rows = _rows(record, numbers)
    known = {**record["request"]["entities"], **entities}
    told = {row: known[row] for row in rows["forget"] if known.get(row)}
    if rows["forget"] and not told:
        notes = (*notes, f"{folder.name}: its rows name no subject, so rows are resampled")
    return Run(
        path=folder.resolve(),
        kind="audit",
        setting=_setting(record),
        numbers=numbers,
        forgetting=FORGETTING,
        utility=UTILITY,
        rows=rows,
        entities=told,
        role=anchor[0] if anchor else RUN,
        origin=origin,
        verdict=record["verdict"],
        attacks=summaries(record),
        families=record["families"],
        erasure=Number(
            value=record["erasure_score"], interval=_pair(record["interval"]), better="high"
        ),
        notes=notes,
    )


def _setting(record: Record) -> dict[str, Any]:
    """What two audits must agree in."""
    return {
        "profile": record["profile"],
        "control": record["control"] and record["control"]["kind"],
        "attacks": sorted(record["attacks"]),
        "versions": {one["id"]: one["version"] for one in record["plan"]},
    }


def _rows(record: Record, numbers: Mapping[str, Number]) -> dict[str, frozenset[str]]:
    """Rows to be forgotten, and apart from them those that attacks on the process look at."""
    costs = {
        row
        for attack in record["attacks"].values()
        if attack["statistic"] == "cost"
        for row in attack["per_row"]["model"]
    }
    named = {row for number in numbers.values() for row in number.rows}
    rows = {"forget": frozenset(named - costs)}
    return rows | {"bystanders": frozenset(costs)} if costs else rows


def _forgetting(record: Record) -> Number:
    tested = telling(record)
    if not tested:
        note = "not measurable: no attack could tell this model from its control"
        return Number(value=None, better="high", note=note)
    bounds = [attack["interval"] for attack in tested if attack["interval"] is not None]
    interval = None
    if len(bounds) == len(tested):
        interval = (1 - max(high for _, high in bounds), 1 - max(low for low, _ in bounds))
    return Number(
        value=1 - max(attack["recovery"] for attack in tested),
        interval=interval,
        rows=frozenset().union(*(attack["per_row"]["model"] for attack in tested)),
        better="high",
        draw=lambda units: _unrecovered(tested, units),
    )


def _unrecovered(attacks: Iterable[Record], units: Units) -> FloatArray | None:
    """1 - max XR in every replicate, from the leaks of the rows."""
    recoveries = []
    for attack in attacks:
        drawn = recovered(attack, units)
        if drawn is None:
            return None
        recoveries.append(drawn)
    worst: FloatArray = np.fmax.reduce(recoveries)
    return 1 - worst


def _utility(utility: Record | None) -> Number:
    if utility is None:
        note = "not measurable: the audit had no rows to be kept"
        return Number(value=None, better="high", note=note)
    return Number(value=utility["value"], interval=_pair(utility["interval"]), better="high")


def _metric(name: str, stored: Record) -> Number:
    return Number(
        value=stored["mean"],
        interval=_pair(stored["interval"]),
        rows=frozenset(stored["per_row"]),
        better=str(registry.metrics.card(name).extra["better"]),
        draw=_drawn(name, stored),
        note=stored["note"],
    )


def _drawn(name: str, stored: Record) -> Draw:
    def draw(units: Units) -> FloatArray | None:
        aggregate = aggregate_of(name, registry.metrics.params(name))
        return redrawn(stored["per_row"], stored["beside"], units, aggregate).get("mean")

    return draw


def _pair(bounds: Any) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])


def _maker(folder: Path, record: Record) -> Origin | None:
    """How the audited model was made, where the change with exactly its weights is found."""
    model = record["models"]["model"]
    named = [Path(model["path"])] if model["path"] else []
    for at in [*named, folder.resolve().parent, folder.resolve()]:
        if not (at / CHANGE).is_file():
            continue
        manifest = read_change(at / CHANGE)
        if manifest.result.digest == model["digest"]:
            return Origin(manifest.method, manifest.seed, manifest.key)
    return None


def _summarised(folder: Path, manifest: Manifest) -> Run:
    """A change by what it says of itself; it kept no values of rows."""
    reached, forget = manifest.summary, manifest.data.get("forget")
    drop = reached.utility_drop
    return Run(
        path=folder.resolve(),
        kind="change",
        setting={"original": manifest.parent.digest[:12]},
        numbers={
            "forget_nll": Number(value=reached.forget_nll, better="high"),
            UTILITY: Number(value=None if drop is None else 1 - drop, better="high"),
            "retain_nll": Number(value=reached.retain_nll),
            "utility_drop": Number(value=drop),
        },
        forgetting="forget_nll",
        utility=UTILITY,
        rows={"forget": frozenset({forget.digest} if forget else ())},
        origin=Origin(manifest.method, manifest.seed, manifest.key),
        notes=(f"{folder.name}: only a summary, so no intervals; expunge audit gives them",),
    )
