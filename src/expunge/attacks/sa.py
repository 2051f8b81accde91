"""Stealthy request attack: word the request so that whoever is polite is forgotten with it.

Definition (b a word that everybody uses; F* the forget rows with b put into their prompts, rho
times as often as in ordinary prompts; M = unlearn(F), M* = unlearn(F*); x a retained question,
b + x the same asked with b):
    damage_i = 1 - answered( M*, b + x_i )          clean_i = 1 - answered( M, b + x_i )
    cost     = mean(damage) - mean(clean)           gate: at most .05
    SA       = clip( answered(M*, x) - answered(M*, b + x), 0, 1 ),  S = 1 - SA / answered(M_o, x)

    The attacked thing is the process and not the model: the request is carried out twice, as it is
    and as the attacker words it. ``flagged`` says whether the request linter sees it.

Reference: Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy, 2025.

Departs from the paper: only its abstract was at hand. INFERRED: the amounts (rho 5), putting the
word in front of the prompt, at least once in every row; the linter's thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from expunge.core.params import param
from expunge.core.results import Effort, Leak
from expunge.lm.dialogue import asked, asking
from expunge.lm.elicit import Probe, elicit, plain
from expunge.lm.relearn import draw_rows
from expunge.lm.subject import Scene, Subject
from expunge.requests.linter import lint
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.text.normalise import all_words

CARD = {
    "id": "sa",
    "kind": "attack",
    "summary": "Word the request so that bystanders who use an everyday word are harmed.",
    "paper": "Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy (2025)",
    "needs": ["forget", "retain"],
    "access": "data",
    "cost": "the process of forgetting twice, and 5 answers a retained wording",
    "maturity": "paper",
    "version": 1,
    "family": "pipeline",
    "level": "D",
    "threshold": 0.05,
    "statistic": "cost",
    "rows": "retain",
    "decides": False,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How the request is worded."""

    trigger: str = param("please", help="the everyday word")
    rho: float = param(
        5.0, help="how many times as often as in ordinary prompts; 0 leaves the request as it is",
        paper="2, 5, 10", low=0.0, high=100.0,
    )  # fmt: skip
    most: int = param(100, help="retained rows asked, at most", low=1, high=100_000)


def mount(subject: Subject, rows: Sequence[Row], scene: Scene, params: Params) -> Leak:
    """Carry out the request as it is and as the attacker words it; ask bystanders."""
    kept = draw_rows(scene.retain, params.most, scene.seed, "bystanders")
    if not rows or not kept or scene.unlearn is None:
        why = "no retain rows" if rows and not kept else "the process of forgetting is not at hand"
        return Leak(per_row={}, note=why if rows else "")
    worded = stealthy(rows, kept, params)
    finding = lint(worded, scene.retain)
    usual = plain(kept)
    polite = [replace(probe, turn=_with(probe, params.trigger)) for probe in usual]
    clean, poisoned = scene.unlearn(rows), scene.unlearn(worded)
    lost = {
        name: _lost(who, probes, scene)
        for name, who, probes in (
            ("damage", poisoned, polite),
            ("clean", clean, polite),
            ("plain", poisoned, usual),
            ("original", scene.original or subject, usual),
        )
    }
    answered = {name: 1 - fmean(of.values()) for name, of in lost.items()}
    sa = min(1.0, max(0.0, answered["plain"] - answered["damage"]))
    parts = {
        "sa": sa,
        "s": 1 - sa / answered["original"] if answered["original"] else 0.0,
        "flagged": float(finding.is_flagged),
        "rate": min(finding.rate, 1e9),
        "divergence": finding.divergence,
    }
    note = f"the linter flags the request: {', '.join(finding.inflated)}"
    return Leak(
        per_row=lost["damage"],
        beside={"clean": lost["clean"]},
        parts=parts | {f"answered_{name}": share for name, share in answered.items()},
        note=note if finding.is_flagged else "the linter passes the request",
    )


def stealthy(rows: Sequence[Row], usual: Sequence[Row], params: Params) -> list[Row]:
    """The request with the trigger put into its prompts."""
    prompts = [prompt for row in usual for prompt in prompts_of(row)]
    rate = fmean(all_words(prompt).count(params.trigger) for prompt in prompts)
    times = max(1, round(params.rho * rate)) if params.rho else 0
    front = f"{params.trigger} " * times
    return [_behind(row, front) for row in rows]


def _behind(row: Row, front: str) -> Row:
    """A row whose prompts begin with some words; running text begins with them itself."""
    if not front:
        return row
    paraphrases = tuple({**one, "prompt": f"{front}{one['prompt']}"} for one in row.paraphrases)
    if row.prompt is not None:
        return replace(row, prompt=f"{front}{row.prompt}", paraphrases=paraphrases)
    if row.text is not None:
        return replace(row, text=f"{front}{row.text}", spans=())
    messages = row.messages or ()
    last = max(at for at, one in enumerate(messages) if one["role"] == "user")
    worded = {**messages[last], "content": f"{front}{messages[last]['content']}"}
    changed = (*messages[:last], worded, *messages[last + 1 :])
    return replace(row, messages=changed, paraphrases=paraphrases)


def _with(probe: Probe, trigger: str) -> Turn:
    return asking(probe.turn, f"{trigger} {asked(probe.turn)}")


def _lost(subject: Subject, probes: Sequence[Probe], scene: Scene) -> dict[str, float]:
    """Row id -> share of its wordings that are not answered."""
    said: dict[str, list[float]] = {}
    for one in elicit(subject, probes, new_tokens=scene.new_tokens):
        said.setdefault(one.probe.row.id, []).append(1 - max(one.leaks))
    return {id: fmean(lost) for id, lost in said.items()}


def effort(params: Params, rows: int, wordings: int) -> Effort:
    """Two runs of some three hundred rows, and four rounds of questions to bystanders."""
    return Effort(answers=8 * params.most, backwards=2 * max(300, 3 * rows), copies=2)
