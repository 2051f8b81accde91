"""What an audit does not show, in sentences."""

from collections.abc import Iterable

from expunge.audit.controls import Control
from expunge.audit.outcomes import Judged
from expunge.audit.plan import Plan, families_not_run
from expunge.audit.utility import Utility
from expunge.audit.verdict import Decision
from expunge.core.results import Verdict

ENOUGH_ROWS = 64
"""Known forget rows from which most gates can decide."""


def limits(
    *,
    rows: int,
    known: int,
    told: int,
    left_out: int,
    has_original: bool,
    control: Control | None,
    retain_origin: str,
    utility: Utility | None,
    has_runtime: bool,
    decision: Decision,
    smallest: float | None = None,
    by_membership: bool = False,
) -> list[str]:
    """The sentences that bound what this audit supports.

    Args:
        rows: Forget rows.
        known: Those the original knows.
        told: Those whose answer was told from their wording.
        left_out: Hold-out rows that are judged unlike the forget rows.
        has_original: Whether the model before forgetting was given.
        control: What stood for a model that never knew.
        retain_origin: Where the retain rows came from.
        utility: Utility of the audited model.
        has_runtime: Whether the model has a run-time part.
        decision: The verdict.
        smallest: The smallest recovery that an attack on these rows could have shown.
        by_membership: Whether forget rows were told from hold-out rows.
    """
    said = ["That no attack tried here recovers the content does not show that none could."]
    if not has_original:
        said.append(
            "No original was given, so the audited model stood in for it: that it still knows can "
            "be shown, that it forgot cannot."
        )
    if known < rows:
        said.append(
            f"The original answers {known} of {rows} forget rows; the other rows were not attacked."
        )
    if known < ENOUGH_ROWS:
        bound = (
            "" if smallest is None else f" The smallest recovery they can show is {smallest:.2f}."
        )
        said.append(f"With fewer than {ENOUGH_ROWS} known rows most gates cannot decide.{bound}")
    said += _of_answers(rows, told, left_out) + _of_control(control, known)
    if retain_origin != "given":
        said.append("No retain rows were given: utility was measured on bundled text.")
    if utility is not None and utility.measure != "recall":
        said.append(
            "The original hardly answers the rows to be kept: utility is its token accuracy."
        )
    if by_membership and control is not None and control.kind == "placebo":
        said.append(
            "Membership compares forget rows with hold-out rows: where these are of another kind, "
            "it shows that too."
        )
    if has_runtime:
        said.append("Attacks that open the model ran without its run-time part.")
    if decision.verdict in (Verdict.FORGOTTEN_WHITEBOX, Verdict.FORGOTTEN_BLACKBOX):
        said.append(
            "Equivalence with a retrained model was not shown: it needs a reference, 400 rows, "
            "membership inference and the FADE distance."
        )
    if decision.open_families and decision.verdict is Verdict.FORGOTTEN_BLACKBOX:
        families = ", ".join(decision.open_families)
        said.append(f"Nothing is said about whoever holds the weights: open are {families}.")
    return said


def smallest_detectable(judged: Iterable[Judged]) -> float | None:
    """The smallest recovery with which one of the attacks would have failed."""
    return min((one.would_fail_at for one in judged if one.would_fail_at is not None), default=None)


def _of_answers(rows: int, told: int, left_out: int) -> list[str]:
    said = []
    if told:
        said.append(
            f"The answer was told from the wording of {told} of {rows} forget rows, which gave "
            "none."
        )
    if left_out:
        said.append(
            f"{left_out} hold-out rows were left out: their answers cannot be told like those of "
            "the forget rows."
        )
    return said


def _of_control(control: Control | None, known: int) -> list[str]:
    if control is None or control.kind == "reference":
        return []
    given = len(control.rows) - control.invented
    said = [
        "No retrained reference was compared with: the control is the audited model itself on "
        f"{given} hold-out and {control.invented} invented rows."
    ]
    if len(control.rows) < known:
        said.append("There are fewer control rows than forget rows: intervals are wide.")
    return said


def not_run(plan: Plan, attacked: bool) -> list[str]:
    """One sentence for everything that was left out.

    Args:
        plan: What was to be run.
        attacked: Whether it was, rather than stopped by an invalid setting.
    """
    left_out = list(plan.not_run)
    if not attacked:
        left_out += [f"{entry.id}: the audit is invalid" for entry in plan.entries]
    return left_out + [
        f"{family}: no attack of this family" for family in families_not_run(plan.entries)
    ]
