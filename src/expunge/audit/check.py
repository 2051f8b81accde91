"""Everything about an audit that can be known to be wrong before weights load, all at once."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from expunge.audit.plan import Plan, plan, plan_problems
from expunge.audit.utility import MOST_ROWS
from expunge.core.errors import ExpungeError
from expunge.core.results import Verdict
from expunge.data.encode import Encoded
from expunge.engine.check import Report, Rows, encode_roles, read_roles
from expunge.engine.estimate import BASE_BYTES, TRAIN_BYTES, matrix_speed, shape
from expunge.lm.folder import Folder, inspect_folder
from expunge.requests.rows import Row

AUDIT_FILES = frozenset({"audit.json", "report.html", "summary.json", "cache", ".lock"})
ANSWER_TOKENS = 24
BATCH = 32
START_SECONDS = 6.0
"""Importing the libraries and loading small models."""
EFFICIENCY = 0.3
"""Share of the speed of a large matrix product that generation in batches reaches."""
CALL_SECONDS = 0.0006
"""Calling a block's kernels once, forward."""
RECORD_BYTES = 600
"""What one row of one attack takes in ``audit.json`` and the report."""


def check_audit(
    model: str | Path,
    forget: Rows,
    retain: Rows | None = None,
    *,
    neighbour: Rows | None = None,
    holdout: Rows | None = None,
    original: str | Path | None = None,
    reference: str | Path | None = None,
    profile: str = "default",
    only: Sequence[str] | None = None,
    skip: Sequence[str] | None = None,
    require: Verdict | str | None = None,
    min_utility: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> Report:
    """Validate what an audit would be asked; the same arguments.

    Args:
        model: Folder of the model said to have forgotten.
        forget: File of the rows said to be forgotten, or the rows.
        retain: The same for rows to be kept.
        neighbour: The same for rows close to the forgotten ones.
        holdout: The same for rows nobody trained on.
        original: Folder of the model before forgetting; found through a change folder if absent.
        reference: Folder of a model trained without the forget rows.
        profile: Name of the profile.
        only: Ids of attacks to run instead of the profile's.
        skip: Ids of attacks to leave out.
        require: Class that a release needs.
        min_utility: Utility that a release needs, in [0, 1].
        seed: Seed of the audit.
        out: Folder for the result.

    Returns:
        The report: all problems, or the estimate of seconds, memory and disk.
    """
    report = Report()
    given = {"forget": forget, "retain": retain, "neighbour": neighbour, "holdout": holdout}
    rows = read_roles(report, given)
    has_messages = any(row.messages is not None for part in rows.values() for row in part)
    folder = inspect_folder(model, messages=has_messages)
    report.problems += folder.problems
    for other in (original, reference):
        report.problems += inspect_folder(other).problems if other is not None else ()
    report.problems += _wrong_options(folder, original, require, min_utility, out)
    report.problems += plan_problems(profile, only or None, skip or ())
    if report.problems:
        return report
    encoded = encode_roles(report, folder, rows)
    if not report.problems:
        chosen = plan(profile, only or None, skip or ())
        models = 3 if reference is not None else 2
        report.estimate = estimate(chosen, folder, encoded, rows, models)
        report.resolved = {
            "attacks": [entry.id for entry in chosen.entries],
            "metrics": list(chosen.metrics),
            "not_run": list(chosen.not_run),
            "control": "reference" if reference is not None else "placebo",
            "rows": {role: len(part) for role, part in rows.items()},
            "parameters": folder.parameters,
            "seed": seed,
        }
    return report


def _wrong_options(
    folder: Folder,
    original: str | Path | None,
    require: Verdict | str | None,
    min_utility: float | None,
    out: str | Path | None,
) -> Iterable[ExpungeError]:
    if original is None and not folder.problems and folder.kind == "model":
        yield ExpungeError(
            "E-USE-007",
            "There is no original to compare with.",
            "--original DIR, the model before forgetting, or a change folder, which names it.",
            "Give it: without it nobody can tell forgetting from never having known.",
        )
    if require is not None and require not in set(Verdict):
        yield ExpungeError(
            "E-USE-003",
            f"There is no verdict {require!r}.",
            "one of " + ", ".join(Verdict) + ".",
            "Correct the spelling.",
        )
    if min_utility is not None and not 0 <= min_utility <= 1:
        yield ExpungeError(
            "E-USE-003",
            f"The least utility is {min_utility}.",
            "a share of the original's, from 0 to 1.",
            "Give for instance 0.95.",
        )
    if out is not None:
        yield from _occupied(Path(out))


def _occupied(out: Path) -> Iterable[ExpungeError]:
    """The output folder may be new, empty, or that of an earlier audit."""
    here = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    if out.is_file() or here - AUDIT_FILES:
        found = f"holds {', '.join(sorted(here - AUDIT_FILES)[:3])}" if here else "is a file"
        yield ExpungeError(
            "E-USE-004",
            f"{out} {found}.",
            "a new or empty folder, or one that holds an earlier audit.",
            "Name another folder.",
        )


def estimate(
    chosen: Plan,
    folder: Folder,
    encoded: Mapping[str, Sequence[Encoded]],
    rows: Mapping[str, Sequence[Row]],
    models: int,
) -> dict[str, float]:
    """Time, memory and disk of an audit, from counts alone.

    Every attack runs on three sets of rows: the original's, the model's and the control's. A token
    costs two operations a weight when read or written, six when trained on.

    Args:
        chosen: Attacks and metrics.
        folder: The audited model, inspected.
        encoded: Role -> its encoded wordings.
        rows: Role -> its rows.
        models: Models held at once.

    Returns:
        ``seconds``, ``memory_bytes``, ``disk_bytes``.
    """
    n = len(rows["forget"])
    sizes = [len(item.ids) for part in encoded.values() for item in part]
    length = sum(sizes) / max(1, len(sizes))
    kept = sum(min(MOST_ROWS, len(rows.get(role, ()))) for role in ("retain", "neighbour"))
    answers = 3 * n * sum(e.runs * e.work.answers for e in chosen.entries) + 4 * kept
    forwards = 3 * n * sum(e.runs * e.work.forwards for e in chosen.entries) + 2 * kept + 30 * n
    updates = 3 * sum(e.runs * e.work.updates for e in chosen.entries)
    read = answers * (length + ANSWER_TOKENS) + forwards * length
    operations = folder.parameters * (2 * read + 6 * updates * length)
    blocks, width, vocabulary = shape(folder.config)
    calls = blocks * (answers * ANSWER_TOKENS + forwards + 3 * updates) / BATCH
    speed = 2 * matrix_speed() * EFFICIENCY
    copy = TRAIN_BYTES * folder.parameters if updates else 4 * folder.parameters
    longest = max(sizes, default=0) + ANSWER_TOKENS
    activations = 4 * BATCH * longest * (vocabulary + 34 * width * max(1, blocks))
    return {
        "seconds": round(START_SECONDS + operations / speed + CALL_SECONDS * calls, 1),
        "memory_bytes": float(BASE_BYTES + models * 4 * folder.parameters + copy + activations),
        "disk_bytes": float(3 * n * RECORD_BYTES * max(1, len(chosen.entries))),
    }
