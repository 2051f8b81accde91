"""Direct token optimisation: ascent on the tokens that carry an answer, the anchor on all others.

Objective:
    L = -gamma * mean_{t in T}( nll_t ) + lambda * mean_{t in M - T}( KL(anchor || model) )

    M are the answer tokens of the forget rows, T the target tokens among them, chosen once, on the
    original. selector=delta takes the top q of each answer by
        delta_r = N_suffix( row with token r replaced ) - N_suffix( row )
    N_suffix is the mean NLL of the last share s of the answer: a token counts for what comes after
    it, not for its own NLL. Tokens of the suffix are no targets; two_sided cuts the suffix once
    more and scores its first part by the second.

    selector=information:  log p0(token | prompt, ...) - log p0(token | ...); in place of delta for
                           answers of fewer than four tokens, which have no suffix to speak of
    selector=entity:       all tokens of names and figures
    selector=spans:        all tokens of the row's spans, else of its answer and aliases

    loss=npo puts -(2 / beta) * mean_i log sigmoid( -beta * r_i ) in the place of the ascent; r_i
    sums the log-probability less the anchor's over the targets of row i.

    orthogonal:  d = gamma * g_T + alpha * g_R + ( g_K - c * g_T ),   c = <g_K, g_T> / ||g_T||^2

    g_T, g_R, g_K are the gradients of a whole step, of the targets, of retain rows where there is
    a term for them, and of the weighted KL; d goes to the optimiser. What is held no longer slows
    the ascent, nor drives it: to first order the targets move as if there were no KL.

    No retain rows are needed: what is kept is kept by the rest of the very rows. Tokens after a
    target keep the true one in front of them, so the KL still sees the answer.

Reference: Direct Token Optimization: A Self-contained Approach to Large Language Model Unlearning,
2025.

Departs from the paper:
    INFERRED, since only its abstract, summaries and reviews were read: that the answer is cut and
    not the whole row; a token is replaced by a random one, s, q and lambda; the direction of the
    KL; what becomes of the suffix, of short answers, and of the end of an answer (never a target).
    Function words are no targets unless ``stop_list=false``. The ascent has no floor, so the run
    ends where the targets are no likelier than a guess (``max_forget_nll``), or at the level of
    ``--stop-at``. Gradients at right angles (``orthogonal``) are an ablation there; INFERRED are
    that the KL gives way to the ascent and not the other way round, and that it does by a plain
    projection over all weights, of gradients as they are before Adam. Adam divides each weight's
    gradient by a scale of its own, so that the update itself is not exactly at right angles. The
    KL is left as it is where ||g_T|| is below 1e-12, and the retain term in any case.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from statistics import fmean
from typing import Any, Literal

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.encode import IGNORED, Encoded
from expunge.engine.datasets import Datasets, wordings_of
from expunge.engine.flags import carrying, flagged, occurrences, only, spoken, touching
from expunge.engine.made import made_once
from expunge.engine.mean import Mean, mean_of
from expunge.engine.preference import preference
from expunge.engine.projection import coefficient
from expunge.engine.slots.combine import Gradients, weighted_sum
from expunge.engine.slots.select import Selection
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.hooks import evaluating
from expunge.lm.prefixes import Room, score_all
from expunge.lm.scoring import padding_id
from expunge.requests.rows import Row, Turn
from expunge.text.entities import entities
from expunge.text.stop import STOP_WORDS

CARD = {
    "id": "dto",
    "kind": "gradient",
    "summary": "Ascent on the few tokens that carry an answer; all others stay as they were.",
    "paper": "Direct Token Optimization: A Self-contained Approach to Large Language Model "
    "Unlearning (2025)",
    "needs": ["forget", "anchor-logits"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows per step (with orthogonal 2, and 3 gradients "
    "held); the anchor is cached; before training, for selector=delta, 1 forward for every token "
    "that is scored",
    "maturity": "paper",
    "version": 1,
}

TARGETS = "dto.targets"
"""Name in the state: the targets of every forget item."""

NLL, ENOUGH = "target_nll", 0.9
"""Mean NLL of the targets, none counted above ``max_forget_nll``; how much of that is enough."""

SHORT = 4
"""Answers of fewer tokens are scored by what the prompt tells of them."""

ROOM = Room(tokens=4096, stored=16384)
"""What a forward pass over changed copies of a row may hold."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, how targets are chosen, and what is done with them and the rest."""

    retain_term: str = param(
        "none",
        help="what keeps retain rows in place, where they are wanted",
        paper="none",
        choices=("none", "nll", "kl", "mse"),
    )
    rest_weight: float = param(
        1.0, help="weight of the KL on the answer tokens that are no targets (lambda)", low=0.0
    )
    orthogonal: bool = param(
        False,
        help="of the KL's gradient only what is at right angles to that of the targets",
        paper=[False, True],
    )
    loss: Literal["ga", "npo"] = param(
        "ga", help="what is done with the targets", paper="ga", choices=("ga", "npo")
    )
    beta: float = param(0.1, help="loss=npo: sharpness", low=1e-6, high=100.0)
    selector: Literal["delta", "information", "entity", "spans"] = param(
        "delta",
        help="by what targets are chosen",
        paper="delta",
        choices=("delta", "information", "entity", "spans"),
    )
    share: float = param(
        0.2, help="share of the scored tokens of an answer that are targets (q)", low=1e-6, high=1.0
    )
    suffix: float = param(
        0.5, help="share of an answer that its first tokens are scored by (s)", low=0.01, high=0.99
    )
    two_sided: bool = param(False, help="score the first part of the suffix by a second cut")
    replacements: int = param(1, help="random tokens tried in place of each", low=1)
    replace_by: Literal["random", "pad"] = param(
        "random", help="what a token is replaced by", choices=("random", "pad")
    )
    stop_list: bool = param(True, help="function words are no targets")
    max_forget_nll: float | Literal["auto"] | None = param(
        "auto",
        help="the run ends where the targets cost this many nats a token; auto is ln V",
        low=0.0,
    )


def select(task: Task, params: Params) -> Selection:
    """All forget rows; with selector=spans the whole answer counts, not only the spans."""
    tokens = {
        index: [[(0, len(turn.completion))] for turn in wordings_of(row)]
        for index, row in enumerate(task.forget)
        if row.spans and params.selector == "spans"
    }
    return Selection(range(len(task.forget)), tokens=tokens or None)


def prepare(task: Task, params: Params) -> None:
    """Choose the targets on the original; a resumed run takes those it had."""

    def chosen() -> list[dict[str, Any]]:
        with evaluating(task.model):
            return [
                targets(task, params, row, wording, item)
                for row, items in zip(task.forget, Datasets(task).items("forget"), strict=True)
                for wording, item in enumerate(items)
            ]

    made = made_once(task, "targets", chosen)
    task.state[TARGETS] = [one["targets"] for one in made]
    task.record["target_tokens"] = sum(len(one["targets"]) for one in made)


def forget(step: Step, params: Params) -> Mean:
    """The negated mean NLL of the targets, nats; or their negative preference, nats / beta."""
    view = step.forget
    chosen = flagged(view, step.state.get(TARGETS, ()))
    logp, rows = view.token_logp[chosen], view.inputs.batch_row[chosen]
    limit = _limit(params, math.log(view.logits.shape[-1]))
    step.report(NLL, mean_of((-logp.detach()).clamp(max=limit)))
    if params.loss == "ga":
        return mean_of(logp)
    logp0 = -cross_entropy(view.anchor.logits[chosen], view.labels[chosen], reduction="none")
    ratio = logp.new_zeros(len(view.row)).index_add(0, rows, logp - logp0)
    has_targets = rows.bincount(minlength=len(view.row)) > 0
    return mean_of(preference(ratio[has_targets], params.beta))


def rest(step: Step, params: Params) -> Mean:
    """Mean over the other answer tokens of ``KL(anchor || model)``, nats, weighted."""
    view = step.forget
    others = ~flagged(view, step.state.get(TARGETS, ()))
    model = log_softmax(view.logits[others], -1)
    anchor = log_softmax(view.anchor.logits[others], -1)
    return params.rest_weight * mean_of(
        kl_div(model, anchor, reduction="none", log_target=True).sum(-1)
    )


BESIDE = {"rest": rest}


def combines(params: Params) -> bool:
    """Whether a step needs the gradients of its terms apart."""
    return params.orthogonal


def effort(params: Params) -> float:
    """How many plain steps a step takes: both parts of the answers take a pass of their own."""
    if not params.orthogonal:
        return 1.0
    return 2.0 if params.retain_term == "none" else 1.5


def combine(gradients: Gradients, state: Mapping[str, Any], params: Params) -> list[Tensor]:
    """The weighted sum, less what the KL, which the step adds to it, has along the ascent."""
    share = coefficient(gradients.beside["rest"], gradients.forget)
    summed = weighted_sum(gradients, state, params)
    return [d - share * f for d, f in zip(summed, gradients.forget, strict=True)]


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether the targets of the latest step are as unlikely as was asked for, or as a guess."""
    now = history[-1]
    return now.terms.get(NLL, 0.0) >= ENOUGH * _limit(params, now.guessing)


def _limit(params: Params, guessing: float) -> float:
    """Nats at which a target counts as gone."""
    if params.max_forget_nll is None:
        return math.inf
    return guessing if params.max_forget_nll == "auto" else float(params.max_forget_nll)


def targets(task: Task, params: Params, row: Row, wording: int, item: Encoded) -> dict[str, Any]:
    """The targets of one wording of a row: which of its supervised tokens, counted from 0.

    ``by`` is the selector that gave them, ``scores`` holds [token, score] where tokens were scored.
    """
    turn, by = wordings_of(row)[wording], params.selector
    scores: dict[int, float] = {}
    found: list[int] = []
    if by == "delta" and len(spoken(item)) >= SHORT:
        scores = influence(task, params, item)
    elif by == "entity":
        found = touching(item, occurrences(turn.completion, entities(turn.completion)))
    elif by == "spans":
        found = touching(item, carrying(row, wording))
    if not (scores or found):
        scores, by = told(task, turn, item), "information"
    found = found or _best(scores, turn, item, params)
    rounded = [[at, round(score, 6)] for at, score in sorted(scores.items())]
    return {"id": row.id, "wording": wording, "by": by, "targets": found, "scores": rounded}


def influence(task: Task, params: Params, item: Encoded) -> dict[int, float]:
    """Delta of every token of the prefix: how much less likely the suffix is without it, nats."""
    words, end = len(spoken(item)), len(item.spans)
    cut = _cut(0, words, params.suffix)
    found = _deltas(task, params, item, (0, cut, end))
    if params.two_sided and words - cut > 1:
        again = _cut(cut, words, params.suffix)
        found |= _deltas(task, params, item, (cut, again, end))
    return found


def told(task: Task, turn: Turn, item: Encoded) -> dict[int, float]:
    """How much likelier the prompt makes every token of an answer, nats."""
    whole = task.encoder.encode(turn)
    first = next(at for at, label in enumerate(whole.labels) if label != IGNORED)
    opener = item.ids[:1]
    if opener[0] not in task.tokenizer.all_special_ids:
        opener = [padding_id(task.tokenizer)]
    bare = replace(item, ids=opener + item.ids[first:], labels=[IGNORED, *item.labels[first:]])
    asked, unasked = score_all(task.model, [item, bare], padding_id(task.tokenizer), ROOM)
    return {place: float(asked.logp[place] - unasked.logp[place]) for place in spoken(item)}


def _deltas(
    task: Task, params: Params, item: Encoded, parts: tuple[int, int, int]
) -> dict[int, float]:
    """Delta of the tokens from the first to the second place, by those from there to the third."""
    start, cut, end = parts
    said = [at for at, label in enumerate(item.labels) if label != IGNORED]
    asked = only(item, range(cut, end))
    copies = [
        replace(asked, ids=[*item.ids[: said[place]], other, *item.ids[said[place] + 1 :]])
        for place in range(start, cut)
        for other in _others(task, params, item.row, place, item.ids[said[place]])
    ]
    plain, *changed = (
        float(-scored.logp.mean())
        for scored in score_all(task.model, [asked, *copies], padding_id(task.tokenizer), ROOM)
    )
    tries = len(copies) // (cut - start)
    return {
        place: fmean(changed[number * tries : (number + 1) * tries]) - plain
        for number, place in enumerate(range(start, cut))
    }


def _cut(start: int, end: int, suffix: float) -> int:
    """Where the suffix of some tokens begins; both parts have at least one."""
    return min(max(end - round(suffix * (end - start)), start + 1), end - 1)


def _others(task: Task, params: Params, item: int, place: int, own: int) -> list[int]:
    """What a token is replaced by: ordinary tokens, and not itself."""
    if params.replace_by == "pad":
        return [padding_id(task.tokenizer)]
    barred = {own, *task.tokenizer.all_special_ids}
    draw = generator(task.seed, "dto", item, place)
    drawn = (int(draw.integers(len(task.tokenizer))) for _ in count())
    return list(islice((id for id in drawn if id not in barred), params.replacements))


def _best(scores: Mapping[int, float], turn: Turn, item: Encoded, params: Params) -> list[int]:
    """The tokens with the highest scores; function words only where there is nothing else."""
    most = max(1, round(params.share * len(scores)))
    able = list(scores)
    if params.stop_list:
        content = {*touching(item, _content(turn.completion))}
        able = [place for place in scores if place in content] or able
    return sorted(sorted(able, key=lambda place: (-scores[place], place))[:most])


def _content(text: str) -> list[tuple[int, int]]:
    """Character ranges of all words but function words."""
    words = (found for found in _WORD.finditer(text) if found[0].casefold() not in STOP_WORDS)
    return [found.span() for found in words]
