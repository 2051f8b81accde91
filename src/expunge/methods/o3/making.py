"""Everything that is settled before the first step: detector, adapter, random answers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.engine.linears import linears_in
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.hooks import evaluating
from expunge.lm.low_rank import LowRank
from expunge.methods.o3.board import Board, before, board_of, snapshots
from expunge.methods.o3.detector import Detector
from expunge.methods.o3.fitting import Texts, fitted
from expunge.methods.o3.reading import asked_for, masking, opened
from expunge.requests.rows import Row
from expunge.requests.scope import placebo

if TYPE_CHECKING:
    from expunge.methods.o3 import Params

STRANGERS = 20
"""Rows about invented subjects."""


TOLD = 200
"""Rows of a role whose weights are told."""


def made(task: Task, params: "Params") -> Board:
    """The adapter as it begins, with the detectors of all requests, this one's last.

    Raises:
        ExpungeError: ``E-USE-006`` when an earlier request has another adapter, ``E-MODEL-008``
            when no linear is to get one.
    """
    earlier = board_of(task.model)
    linears = continued(task, params, earlier)
    detectors = [*before(earlier), detector_of(task, params, before(earlier))]
    board = Board(linears, detectors, snapshots(earlier), learns=True, earlier=earlier)
    tell(task, board)
    return board


def continued(task: Task, params: "Params", earlier: Board | None) -> dict[str, LowRank]:
    """Name of a linear -> what stands beside it at the start of this request.

    Raises:
        ExpungeError: ``E-USE-006``, ``E-MODEL-008``.
    """
    names = linears_in(Slots(task.model), params.layers, params.lora_targets)
    if earlier is None:
        return {
            name: LowRank.new(
                task.model.get_submodule(name), params.lora_r, params.lora_alpha, at, task.seed,
                "o3", name,
            )
            for at, name in enumerate(names)
        }  # fmt: skip
    first = earlier.all[0]
    asked = (tuple(names), params.lora_r, params.lora_alpha / params.lora_r)
    if asked != (earlier.names, len(first.a), first.scale):
        raise ExpungeError(
            "E-USE-006",
            f"An adapter of rank {params.lora_r} on {len(names)} linears, and one of rank "
            f"{len(first.a)} on {len(earlier.names)} from the requests before.",
            "the adapter that is to be continued: the same lora_r, lora_alpha and linears.",
            "Give the settings of the first request.",
        )
    return {
        name: LowRank(one.a.detach().clone(), one.b.detach().clone(), one.scale, one.layer)
        for name, one in zip(names, earlier.all, strict=True)
    }


def detector_of(task: Task, params: "Params", others: Sequence[Detector]) -> Detector:
    """The detector of this request."""
    source = asked_for(task, params.encoder)
    with evaluating(task.model):
        encoder, vocabulary = opened(source, task.model, others)
        strangers = placebo(task.forget, STRANGERS, task.seed) if params.strangers else []
        texts = Texts(
            [prompts_of(task, row) for row in task.forget],
            [prompt for row in strangers for prompt in prompts_of(task, row)],
        )
        return fitted(encoder, vocabulary or masking(task), texts, params, task.seed)


def prompts_of(task: Task, row: Row) -> list[list[int]]:
    """What a row is asked by, in all its wordings; running text also as a whole."""
    asked = [task.encoder.prompt(turn.prompt, turn.running) for turn in row.turns]
    if row.text is not None:
        asked.append(task.encoder.encode(row.training).ids)
    return asked


def tell(task: Task, board: Board) -> None:
    """How much of the adapter the prompts get, for the record and whoever watches."""
    task.record["requests"] = len(board.detectors)
    for role in ("forget", "retain"):
        if rows := task.roles.get(role, ())[:TOLD]:
            weights = board.decide(
                [task.encoder.prompt(r.turn.prompt, r.turn.running) for r in rows]
            )
            task.record[f"{role}_weight"] = round(float(weights.mean()), 4)
    if (weight := task.record["forget_weight"]) < 0.5:
        note(
            f"o3: the prompts of the rows to be forgotten get {weight:.2f} of the adapter on "
            "average: the detector does not know them again.",
            weight=weight,
        )
