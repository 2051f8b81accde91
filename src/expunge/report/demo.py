"""The page that ``expunge demo`` leaves behind: four models, the same questions, the same attacks.

All people on it are invented, so nothing is masked.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from expunge.report import words
from expunge.report.audit import AttackLine, attack_lines, recovery_chart
from expunge.report.audit.scope import units
from expunge.report.bounds import Range, wilson
from expunge.report.html import clean, page
from expunge.report.svg import Frame, Series, Words, figure, lines

Record = Mapping[str, Any]

RELEARN = "relearn-in"
"""The attack whose curves are shown."""
AWAKE = 0.5
"""Share of facts answered from which a model is said to know them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """One of the four models: its name, what it is, the tone of its colour."""

    name: str
    what: str
    tone: str


ROLES: Mapping[str, Role] = {
    "original": Role(
        name="original",
        what="Knows the eight people; nothing was done to it.",
        tone="original",
    ),
    "erased": Role(
        name="after forgetting",
        what="The original, its weights changed so that it forgets.",
        tone="model",
    ),
    "refuser": Role(
        name="refuser",
        what="The original, merely taught to decline these questions.",
        tone="contrast",
    ),
    "reference": Role(
        name="reference",
        what="Trained without the eight people: it never knew.",
        tone="reference",
    ),
}
"""Label of a model -> what it is; in the order in which they are shown."""


def render_demo(story: Record) -> str:
    """The page of the demonstration.

    Args:
        story: ``person`` {name, facts {attribute: value}}; ``request`` {people, rows}; ``method``,
            ``steps``; ``audits`` {label: value of ``audit.json``}, labels as in `ROLES`;
            ``placebo``, the audit of the changed model against people nobody taught it, or None;
            ``answers`` [{question, truth, before, after, refuser, reference}]; ``curves``
            {label: [[step, share of facts answered]]}; ``seconds``.

    Returns:
        One HTML page that stands for itself.
    """
    told = clean(story)
    audits = {label: told["audits"][label] for label in ROLES if label in told["audits"]}
    return page(
        "demo",
        story=told,
        models=[
            (ROLES[label], record, words.verdict(record["verdict"]), in_words(record))
            for label, record in audits.items()
        ],
        answers=[_answers(one) for one in told["answers"]],
        curves=_curves(told["curves"], told["audits"]),
        finding=_finding(told["curves"]),
        attacks=_attacks(audits),
        placebo=told["placebo"] and words.verdict(told["placebo"]["verdict"]),
        recovery=recovery_chart(attack_lines(audits["erased"])) if "erased" in audits else None,
        listing=words.listing,
    )


def in_words(record: Record) -> str:
    """What one audit found, in one or two plain sentences.

    Args:
        record: A value of ``audit.json``.
    """
    failing = [one for one in attack_lines(record) if one.record["outcome"] == "fail"]
    if record["verdict"] == "hidden" and failing:
        return f"Asked plainly it no longer answers; but {_back(failing, len(record['attacks']))}."
    return words.verdict(record["verdict"]).meaning


def _back(failing: Sequence[AttackLine], of: int) -> str:
    """How the knowledge comes back: by a little training where it does, else the worst first."""
    ranked = sorted(failing, key=lambda one: -(one.record["recovery"] or 0.0))
    names = [one.name for one in ranked if one.name != RELEARN]
    trained = next((one for one in failing if one.name == RELEARN and one.record["curve"]), None)
    if trained is None:
        return (
            f"{len(failing)} of {of} attacks get more out of it than out of a model that never "
            f"knew: {words.listing(names)}"
        )
    curve = trained.record["curve"]
    also = f". What it knows also shows in {words.listing(names)}" if names else ""
    return (
        f"{curve['steps'][-1]} steps of fine-tuning on a few of the facts bring "
        f"{words.percent(curve['model'][-1])} of the others back, where a model that never "
        f"knew them comes to {words.percent(curve['control'][-1])}{also}"
    )


def _answers(one: Record) -> Record:
    """A question with its answers, and which of them tell the truth."""
    said = {"before": "original", "after": "after forgetting"}
    said |= {who: who for who in ("refuser", "reference")}
    truth = one["truth"].lower()
    return {
        "question": one["question"],
        "truth": one["truth"],
        "said": [(who, one[key], truth in one[key].lower()) for key, who in said.items()],
    }


def _curves(curves: Record, audits: Record) -> Markup | None:
    """The relearning curves of all models, on one plot."""
    drawn = [(label, curves[label]) for label in ROLES if curves.get(label)]
    if not drawn:
        return None
    series = [
        Series(
            label=ROLES[label].name,
            points=points,
            tone=ROLES[label].tone,
            bounds=_bounds(points, audits.get(label)),
        )
        for label, points in drawn
    ]
    told = Words(
        title="What fine-tuning on a few of the facts brings back of the others",
        description="; ".join(
            f"{one.label}: {one.points[0][1]:.0%} before, {one.points[-1][1]:.0%} after "
            f"{one.points[-1][0]:g} steps"
            for one in series
        )
        + ".",
        x="steps of fine-tuning on a fifth of the facts",
        y="other facts answered",
        note="Lines: 95% Wilson intervals over the facts that were asked for.",
    )
    ticks = sorted({step for _, points in drawn for step, _ in points})
    return figure(lambda width: lines(series, told, Frame(x=ticks), width), told)


def _bounds(points: Sequence[Sequence[float]], audit: Record | None) -> list[Range] | None:
    """Interval of each point, by the facts that were asked for in its audit."""
    attack = (audit or {}).get("attacks", {}).get(RELEARN)
    if audit is None or not attack:
        return None
    n = units(audit, attack["per_row"]["model"])
    return [bound for _, share in points if (bound := wilson(share, n))] or None


def _finding(curves: Record) -> str:
    """What the plot shows, in a sentence."""
    ends = {label: points[-1][1] for label, points in curves.items() if points}
    if not {"erased", "refuser", "reference"} <= ends.keys():
        return ""
    told = [f"{ROLES[label].name} {words.percent(ends[label])}" for label in ROLES if label in ends]
    start = curves["refuser"][0][1]
    wakes = start < AWAKE < ends["refuser"]
    return f"At the end they answer: {words.listing(told)}." + (
        " The refuser had only been asleep." if wakes else ""
    )


def _attacks(audits: Mapping[str, Record]) -> list[tuple[AttackLine, list[tuple[str, Any]]]]:
    """Every attack with its leak on each model."""
    first: Iterable[AttackLine] = next((attack_lines(one) for one in audits.values()), [])
    return [
        (
            line,
            [
                (ROLES[label].tone, record["attacks"].get(line.name))
                for label, record in audits.items()
            ],
        )
        for line in first
    ]
