"""KLUE: forget in the neurons that hold the facts, with the rows that are still known.

Objective:
    L = -gamma * tokenmean( nll over forget rows still answered ) + alpha * RETAIN
    only the top ``share`` of all MLP neurons by S move: their input rows and output columns

    S_i = mean over facts (q, y) of  A_i(q, y) - discount_weight * mean_q' A_i(q', y)
    A_i(q, y) = sum over the positions that predict y of  h_i * dP(y|q) / dh_i

    P is the probability of the answer, h_i what neuron i hands to the output matrix of its MLP. q'
    are ``mismatched`` questions of other facts: a neuron that makes y likely whatever is asked
    holds the answer's words, not the fact. After each epoch the forget rows are asked again; only
    those answered rightly stay in the loss, and when none is left the run ends.

    discount=set-minus: the top ``share`` by mean A(q, y) without the top ``share`` by
    mean A(q', y)

Reference: FaithUn: Toward Faithful Forgetting in Language Models by Investigating the
Interconnectedness of Knowledge, 2025.

Departs from the paper:
    INFERRED, since only its abstract and notes of others were read: that mismatched attribution is
    subtracted, and with weight 1; 5 mismatched questions a fact; 5% of the neurons, over all blocks
    together; the mean of token probabilities as P; the mean over wordings and then over forget
    rows, so that all facts share one set of neurons; ascent as the forget term. A mismatched
    question never has the answer for one of its own, in any row. No bias moves: that of the output
    belongs to all neurons. A row counts as answered when every token of its ``answer`` (of its
    whole completion, where it names none) is the model's first choice; answered=choice asks whether
    its completion is likelier, by the mean over tokens, than each of the row's ``wrong`` ones.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.data.encode import Encoded, by_length
from expunge.engine.datasets import Datasets
from expunge.engine.known import known_items
from expunge.engine.mean import Mean, mean_of
from expunge.engine.saliency import top_share
from expunge.engine.slots.mask import Mask
from expunge.engine.slots.stop import Measured
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.mismatched import Mismatches
from expunge.lm.neurons import attributions, units_of, weights_of_units
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "klue",
    "kind": "gradient",
    "summary": "Ascent on the facts still known, in the MLP neurons that hold them and no others.",
    "paper": "FaithUn: Toward Faithful Forgetting in Language Models by Investigating the "
    "Interconnectedness of Knowledge (2025)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, 1 forward over the "
    "forget rows an epoch; before it 1 + mismatched forwards and backwards over the forget rows; a "
    "copy of the MLPs",
    "maturity": "paper",
    "version": 1,
    "loss_of": "grad-diff",
}

KNOWN, LEFT = "klue.known", "unforgotten"

Units = list[Tensor]
"""One tensor [units] for each block, bottom first."""

Weighted = list[tuple[Encoded, float]]
"""Turns as tokens, and how much each counts in a mean."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, how neurons are chosen, and which rows count as known."""

    share: float = param(
        0.05, help="share of all MLP neurons that moves", paper=0.05, low=1e-9, high=1.0
    )
    scope: Literal["global", "layer"] = param(
        "global",
        help="whether the share is taken of all blocks together or of each",
        choices=("global", "layer"),
    )
    mismatched: int = param(
        5, help="questions of other facts that each answer is set after (K)", low=1
    )
    discount: Literal["subtract", "set-minus"] = param(
        "subtract",
        help="how neurons that answer whatever is asked are left out",
        choices=("subtract", "set-minus"),
    )
    discount_weight: float = param(
        1.0, help="discount subtract: weight of the mismatched attribution (alpha)", low=0.0
    )
    probability: Literal["mean", "product"] = param(
        "mean",
        help="probability of an answer: mean or product of its tokens'",
        choices=("mean", "product"),
    )
    positions: Literal["answer", "all"] = param(
        "answer",
        help="positions attributed to: those that predict the answer, or all",
        paper="answer",
        choices=("answer", "all"),
    )
    only_known: bool = param(True, help="train on forget rows still answered only", paper=True)
    answered: Literal["exact", "choice"] = param(
        "exact",
        help="known: every token is the first choice, or likelier than the row's wrong answers",
        choices=("exact", "choice"),
    )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The weights of the chosen neurons; nothing else moves."""
    own, other = attributed(task, params)
    chosen = chosen_units(own, other, params, Slots(model))
    task.record["neurons"] = sum(int(units.sum()) for units in chosen)
    task.record["neurons_of_blocks"] = [int(units.sum()) for units in chosen]
    moves: dict[str, Tensor | bool] = {n: False for n, p in model.named_parameters()}
    for layer, units in enumerate(chosen):
        if units.any():
            moves |= weights_of_units(model, layer, units)
    return moves


def prepare(task: Task, params: Params) -> None:
    """Ask the original for every forget row."""
    refresh(task, params)
    if params.only_known and not task.state[KNOWN]:
        note(
            "klue: the model answers none of the forget rows as they stand, so there is nothing "
            "to forget by this measure (--set only_known=no trains on all of them)."
        )


def forget(step: Step, params: Params) -> Mean:
    """Negated token-mean negative log-likelihood of the forget rows still answered, nats."""
    view = step.forget
    if KNOWN not in step.state:
        return -view.nll
    known = torch.tensor(step.state[KNOWN], dtype=torch.long, device=view.row.device)
    step.report(LEFT, mean_of(torch.tensor([float(len(known))])))
    counts = torch.isin(view.row, known)[view.inputs.batch_row]
    return mean_of(view.token_logp, counts.to(view.token_logp.dtype))


def refresh(task: Task, params: Params) -> None:
    """Ask for the forget rows again, on the model as it is."""
    if params.only_known:
        task.state[KNOWN] = known_items(task, params.answered)


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Whether no forget row is answered any more."""
    return history[-1].terms.get(LEFT) == 0


def chosen_units(own: Units, other: Units, params: Params, slots: Slots) -> list[Tensor]:
    """Which neurons move.

    Args:
        own: Mean attribution of each block's neurons, question and answer of one fact.
        other: The same with questions of other facts.
        params: Of them ``share``, ``scope``, ``discount`` and ``layers``.
        slots: Of the model, for the numbers of blocks.

    Returns:
        For each block [units] bool.

    Raises:
        ExpungeError: ``E-USE-003`` when the discount leaves none.
    """
    within = {slots.index(layer) for layer in params.layers or range(len(slots))}
    if params.discount == "subtract":
        pairs = zip(own, other, strict=True)
        scores = [a - params.discount_weight * b for a, b in pairs]
        chosen = _best(scores, within, params)
    else:
        tops = (_best(scores, within, params) for scores in (own, other))
        chosen = [mine & ~others for mine, others in zip(*tops, strict=True)]
    if not any(bool(units.any()) for units in chosen):
        raise ExpungeError(
            "E-USE-003",
            "Every neuron of the top share also answers mismatched questions: none is left.",
            "neurons that answer their own questions more than others'.",
            "Use --set discount=subtract, or raise --set share.",
        )
    return chosen


def attributed(task: Task, params: Params) -> tuple[Units, Units]:
    """Mean attribution of each neuron to the forget answers: after their own questions, and others.

    Raises:
        ExpungeError: ``E-USE-006`` when there is no question of another fact for an answer.
    """
    own: Weighted = []
    other: Weighted = []
    rows = task.forget
    pool = Mismatches(row for part in task.roles.values() for row in part)
    for row in rows:
        for wording, turn in enumerate(row.turns):
            weight = 1 / (len(rows) * len(row.turns))
            keep = row.spans if wording == 0 and row.text is None else ()
            encode = partial(task.encoder.encode, keep=keep)
            own.append((encode(turn), weight))
            drawn = pool.of(row, wording, seed=task.seed)
            asked = list(islice(_that_fit(drawn, encode), params.mismatched))
            if not asked:
                raise _nothing_else_to_ask(row)
            other += [(item, weight / len(asked)) for item in asked]
    return _mean(task, params, own), _mean(task, params, other)


def _best(scores: Units, within: set[int], params: Params) -> list[Tensor]:
    """[units] bool for each block: the top share of the blocks that may move."""
    asked = {str(layer): scores[layer].clone for layer in sorted(within)}
    if params.scope == "global":
        best = top_share(asked, params.share)
    else:
        best = {}
        for name, give in asked.items():
            best |= top_share({name: give}, params.share)
    none = [torch.zeros_like(one, dtype=torch.bool) for one in scores]
    return [best.get(str(layer), none[layer]) for layer in range(len(scores))]


def _mean(task: Task, params: Params, items: Weighted) -> Units:
    """The weighted sum of the items' attributions."""
    model, datasets = task.model, Datasets(task, device=str(task.model.device))
    total = [torch.zeros(width, dtype=torch.float64) for width in units_of(model)]
    with evaluating(model):
        for places in by_length([len(item.ids) for item, _ in items], task.params.batch_size):
            batch = datasets.tensors([items[place][0] for place in places])
            weights = torch.tensor([items[place][1] for place in places], dtype=torch.float64)
            found = attributions(
                model,
                batch,
                product=params.probability == "product",
                everywhere=params.positions == "all",
            )
            for whole, part in zip(total, found, strict=True):
                whole.add_(weights @ part.double().cpu())
    return total


def _that_fit(turns: Iterable[Turn], encode: Callable[[Turn], Encoded]) -> Iterator[Encoded]:
    """Those that the model has positions for, as tokens."""
    for turn in turns:
        with suppress(ExpungeError):
            yield encode(turn)


def _nothing_else_to_ask(row: Row) -> ExpungeError:
    return ExpungeError(
        "E-USE-006",
        f"klue finds no question that row {row.id!r} does not answer.",
        "forget or retain rows with other questions and other answers.",
        "Give --retain rows of the same kind, or use another method.",
    )
