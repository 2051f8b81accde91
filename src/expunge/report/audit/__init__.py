"""The report of one audit, from the value of ``audit.json``.

What was not measured is named in one sentence; there is never an empty table or plot. Every number
of a plot is in the record or follows from it alone. Answers are masked unless the value says
``"redact": false``, since a report travels further than the model.
"""

from expunge.core.registry import metrics
from expunge.report import words
from expunge.report.audit.attacks import (
    AttackLine,
    Record,
    attack_lines,
    by_family,
    cost_chart,
    families,
    in_families,
    recovery_chart,
    summary_of,
)
from expunge.report.audit.dynamics import budget_charts, relearning_charts
from expunge.report.audit.examples import answers, asked, is_redacted
from expunge.report.audit.forgetting import risks, strip, truth_ratios
from expunge.report.audit.internal import layer_charts, numbers_of
from expunge.report.audit.kept import kept, scatter, worst_part
from expunge.report.audit.privacy import membership_chart, roc, score_chart
from expunge.report.audit.scope import coverage, gibberish, models, planned
from expunge.report.html import clean, page

__all__ = ["AttackLine", "attack_lines", "recovery_chart", "render_audit"]

INTERNAL = ("read-out", "compression")
"""Families that look inside the model."""
HONESTY = ("over-refusal", "refusal-quality", "refusal-stability", "rejection-rate")
"""Metrics of how a model declines, shown beside utility where they were measured."""


def render_audit(data: Record) -> str:
    """The page of one audit.

    Args:
        data: A value of ``audit.json`` (format ``unlearning-audit/1``).

    Returns:
        One HTML page that stands for itself.
    """
    told = clean(data)
    tested = attack_lines(told)
    decide = [one for one in tested if one.record["decides"]]
    return page(
        "audit",
        data=told,
        verdict=words.verdict(told["verdict"]),
        attacks=tested,
        undecided=[one for one in decide if one.is_open],
        outcomes=words.OUTCOMES,
        controls=words.CONTROLS,
        listing=words.listing,
        is_redacted=is_redacted(told),
        **_scope(told),
        **_forgetting(told),
        **_robustness(told, tested),
        **_privacy(told, tested),
        **_inside(told, tested),
        examples=[(one, asked(told, one), answers(told, one)) for one in told["examples"]],
    )


def _scope(told: Record) -> dict[str, object]:
    """Sections 2 and 3."""
    return {
        "coverage": coverage(told),
        "models": models(told),
        "planned": planned(told),
        "risks": risks(told),
    }


def _forgetting(told: Record) -> dict[str, object]:
    """Section 4."""
    return {
        "metrics": [(id, summary_of(metrics, id), of) for id, of in told["metrics"].items()],
        "strip": strip(told),
        "truth_ratio": truth_ratios(told),
    }


def _robustness(told: Record, tested: list[AttackLine]) -> dict[str, object]:
    """Section 5: what decides, and apart from it what is reported only."""
    recovering = [one for one in tested if one.statistic == "recovery"]
    counted = [one for one in recovering if one.record["decides"]]
    beside = [one for one in recovering if not one.record["decides"]]
    unit = told["request"]["unit"]
    costs = [one for one in tested if one.statistic == "cost"]
    return {
        "families": families(told),
        "recovery": recovery_chart(counted, unit),
        "grouped": by_family(counted),
        "reported": beside,
        "beside": recovery_chart(beside, unit, "Excess recovery, reported only"),
        "costs": costs,
        "cost": cost_chart(costs),
        "budgets": budget_charts(told, tested),
    }


def _privacy(told: Record, tested: list[AttackLine]) -> dict[str, object]:
    """Section 6."""
    members = [one for one in tested if one.statistic == "difference"]
    return {
        "members": members,
        "membership": membership_chart(told, members),
        "scores": [chart for one in members if (chart := score_chart(one))],
        "rocs": [chart for one in members if (chart := roc(told, one))],
        "games": [one for one in in_families(tested, "privacy") if one.statistic == "recovery"],
    }


def _inside(told: Record, tested: list[AttackLine]) -> dict[str, object]:
    """Sections 7 to 9."""
    return {
        "layers": layer_charts(told, tested),
        "internal": numbers_of(in_families(tested, *INTERNAL)),
        "kept": kept(told),
        "worst": worst_part(told),
        "gibberish": gibberish(told),
        "scatter": scatter(told),
        "honesty": [id for id in HONESTY if id in told["metrics"]],
        "curves": relearning_charts(told, tested),
    }
