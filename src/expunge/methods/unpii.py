"""UnPII: rows that expose more of a person are pushed harder.

Objective:
    L = L of the wrapped method, with the loss of forget row i multiplied by 1 + PRI_i

    ga     -mean_it( (1 + PRI_i) * nll_it )             its denominator stays the number of tokens
    npo    mean_i( (1 + PRI_i) * npo_i )
    PRI_i  risk of the kinds of personal data in the row, question and answer: a published table of
           kinds and combinations of them (`expunge.requests.risk`); 0 where there are none

Not every leak hurts alike: a name with a bank account weighs 1.665, a gender 1.173. What a row
tells is found by rules, or by presidio where that is installed; ``meta["pii"]``, a list of [kind,
value], decides where it is given, and ``meta["pri"]``, a number, overrides the index. The weight
multiplies the gradient that flows into the row, whatever the method makes of it, also in views
beside it (a refusal); reported values stay unweighted. PRI 0 everywhere is the method bit for bit.

    legacy_margin, around idk-dpo alone, in place of the weights:
    L = -(2 / beta) mean_i log sigmoid( beta * (m_i + delta_i) )
    delta_i = 5 * min( 1, progress / .3 ) * log( 1 + min( PRI_i, 2 ) )

Reference: UnPII: Unlearning Personally Identifiable Information with Quantifiable Exposure Risk,
2026.

Departs from the paper:
    Its code asks a remote model for the index in every step, and takes 0 when that fails; here
    kinds that the table cannot score are an error. Its ascent pairs each position with the token
    before the predicted one and averages over what is not supervised, and its NPO has the sign
    reversed, which rewards memorising: neither is offered. Its form for DPO lowers the forget
    log-probability by delta, which only shrinks the gradient of risky rows: the more dangerous
    a row, the less it is forgotten. So we weigh there too, and ``legacy_margin`` has the released
    form. It is refused around methods that compare nothing with a refusal: they have no margin.
    INFERRED: when several listed combinations are present, the highest counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log1p
from types import ModuleType
from typing import Any, Literal

from torch.nn.functional import logsigmoid

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.datasets import wordings_of
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots.select import Selection
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.requests.personal import details_of
from expunge.requests.risk import risk_index
from expunge.requests.rows import Row

CARD = {
    "id": "unpii",
    "kind": "wrapper",
    "summary": "Weighs each forget row by how dangerous the personal data in it are.",
    "paper": "UnPII: Unlearning Personally Identifiable Information with Quantifiable Exposure "
    "Risk (2026)",
    "needs": ["forget"],
    "access": "weights",
    "cost": "nothing a step; before it the personal data of the forget rows are found",
    "maturity": "paper",
    "version": 1,
    "value": "scheme",
}

MARGINS = "unpii.margins"
BETA = "unpii.beta"

META = "pri"
"""Key of ``meta`` that holds the index of a row, where somebody has decided it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What the risk is, who finds the personal data, and where the risk goes in."""

    scheme: Literal["pri", "pri_custom"] = param(
        "pri",
        help="pri: the published table; pri_custom: seven factors a kind, for kinds it lacks",
        paper="pri",
        choices=("pri", "pri_custom"),
    )
    finder: Literal["rules", "presidio"] = param(
        "rules",
        help="who finds personal data: rules, or presidio where it is installed",
        choices=("rules", "presidio"),
    )
    legacy_margin: bool = param(
        False, help="the released form for DPO: a margin in place of weights; idk-dpo only"
    )


def refuse(
    module: ModuleType, settings: GradientParams, params: Params, rows: Mapping[str, Sequence[Row]]
) -> None:
    """Say why this cannot go around a method, or over these rows.

    Raises:
        ExpungeError: ``E-USE-006`` for a margin where there is none; what `risks_of` raises.
    """
    if params.legacy_margin and module.CARD["id"] != "idk-dpo":
        raise ExpungeError(
            "E-USE-006",
            f"unpii:legacy_margin=yes around {module.CARD['id']}, which has no margin between a "
            "refusal and the answer.",
            "a method that has one.",
            "Use --method idk-dpo, or leave legacy_margin out: rows are then weighed.",
        )
    risks_of(rows.get("forget", ()), params)


def select(task: Task, params: Params) -> Selection:
    """All forget rows, each with its weight; the released form keeps margins instead."""
    risks = risks_of(task.forget, params)
    rows = list(zip(task.forget, risks, strict=True))
    task.record.update(pri={row.id: r for row, r in rows}, pri_mean=sum(risks) / len(risks))
    if params.legacy_margin:
        task.state[MARGINS] = [5 * log1p(min(r, 2.0)) for row, r in rows for _ in wordings_of(row)]
        task.state[BETA] = asdict(task.params)["beta"]
    weighs = any(risks) and not params.legacy_margin
    return Selection(range(len(risks)), [1 + risk for risk in risks] if weighs else None)


def term(step: Step, params: Params) -> Mean | None:
    """What a margin makes of the DPO loss, over what it is without one, nats / beta."""
    if not params.legacy_margin:
        return None
    beta, margins = step.state[BETA], step.state[MARGINS]
    won = step.refusal.logp - step.refusal.anchor.logp
    lost = step.forget.logp - step.forget.anchor.logp
    full = won.new_tensor([margins[item] for item in step.forget.row.tolist()])
    delta = min(1.0, step.progress / 0.3) * full
    with_margin = logsigmoid(beta * (won - lost + delta))
    return mean_of(-2 / beta * (with_margin - logsigmoid(beta * (won - lost))))


def risks_of(rows: Sequence[Row], params: Params) -> list[float]:
    """The index of each row.

    Raises:
        ExpungeError: ``E-DATA-015`` for personal data of a kind that cannot be told or scored;
            ``E-DATA-003`` for a ``meta["pri"]`` that is no number of at least 0.
    """
    unknown = [row for row in rows if META not in row.meta]
    details = details_of(unknown, params.finder)
    found = {id: {detail.kind for detail in them} for id, them in details.items()}
    return [
        _given(row, row.meta[META])
        if META in row.meta
        else risk_index(found[row.id], params.scheme)
        for row in rows
    ]


def _given(row: Row, risk: Any) -> float:
    if isinstance(risk, int | float) and not isinstance(risk, bool) and 0 <= risk < float("inf"):
        return float(risk)
    raise ExpungeError(
        "E-DATA-003",
        f"Row {row.id!r}: meta.pri is {risk!r}.",
        "a finite number of at least 0.",
        "Correct it, or leave it out: the index is then looked up.",
    )
