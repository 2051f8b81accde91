"""Everything about an audit that can be known to be wrong before weights load, all at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from expunge.audit.plan import plan, plan_problems
from expunge.audit.work import estimate
from expunge.core.errors import ExpungeError
from expunge.core.results import Verdict
from expunge.engine.check import Report, Rows, encode_roles, read_roles
from expunge.engine.room import too_large
from expunge.lm.folder import Folder, inspect_folder
from expunge.lm.vocabulary import other_tokens

SMALLER = "Leave out the attacks that copy the model (--skip), or use a larger machine."
AUDIT_FILES = frozenset({"audit.json", "report.html", "summary.json", "cache", ".lock"})


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
        if other is not None:
            report.problems += _unfit(folder, inspect_folder(other))
    report.problems += _wrong_options(require, min_utility, out)
    report.problems += plan_problems(profile, only or None, skip or ())
    if report.problems:
        return report
    encoded = encode_roles(report, folder, rows)
    if not report.problems:
        chosen = plan(profile, only or None, skip or ())
        models = 3 if reference is not None else 2
        report.estimate = estimate(chosen, folder, encoded, rows, models)
        if out is not None:
            report.problems += too_large(report.estimate, Path(out), SMALLER)
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


def _unfit(folder: Folder, other: Folder) -> Iterable[ExpungeError]:
    """What is wrong with a model to compare with, or why it cannot be compared."""
    if folder.problems or other.problems:
        return other.problems
    different = other_tokens(folder, other)
    return () if different is None else (different,)


def _wrong_options(
    require: Verdict | str | None, min_utility: float | None, out: str | Path | None
) -> Iterable[ExpungeError]:
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
