"""What is edited where: associations, and the place and block where values are found most easily.

Where in a prompt a model looks a fact up differs from model to model: large ones at the subject,
small ones often only where the answer is asked for. So a few associations are searched for at every
candidate, and the candidate with the smallest objective wins. Of candidates that are equally good
(within `TIE`) the subject comes before the last token, and then the block nearest the depth that
the paper's models had theirs at. INFERRED as a rule; its need was measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import nn

from expunge.core.errors import ExpungeError
from expunge.core.events import progress
from expunge.core.families import EditParams
from expunge.core.rng import generator
from expunge.data.encode import Encoded
from expunge.data.jsonl import read_rows
from expunge.engine.datasets import Datasets
from expunge.engine.editing.associations import Association, Place, associations
from expunge.engine.editing.sizes import REACHED, limits_of
from expunge.engine.editing.values import ENOUGH, Goal, Search, unlikely, wanted
from expunge.engine.editing.wording import targets_of
from expunge.engine.finish import Finishing
from expunge.engine.task import Task
from expunge.lm.arch import Slots

Build = Callable[[Place], Sequence[Association]]
"""Place -> all associations, their prompts edited there."""

PLACES: tuple[Place, ...] = ("subject_last", "last")

TRIED = 4
"""Associations that are searched for at every candidate."""

CANDIDATES = 8
"""Blocks that are tried at most."""

TIE = 0.1
"""Nats within which candidates are equally good."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a method is to edit, and where.

    Attributes:
        asked: The associations.
        search: How their values are looked for, at the block that was chosen.
        datasets: Makes batches.
    """

    asked: Sequence[Association]
    search: Search
    datasets: Datasets

    @property
    def layer(self) -> int:
        """The block, from the bottom."""
        return self.search.layer


def planned(
    change: Finishing,
    params: EditParams,
    *,
    slot: str,
    layer: int | None,
    depth: float,
    build: Build,
    goal: Goal = unlikely,
    enough: float | None = ENOUGH,
) -> Plan:
    """Turn forget rows into associations, and settle where they are edited; both are recorded.

    Args:
        change: What is edited.
        params: What is to be said, and how values are looked for.
        slot: The part of a block whose output gets the value.
        layer: The block, or None to look for it.
        depth: Share of the blocks below the one the paper edits.
        build: Place -> all associations with their prompts edited there.
        goal: What a value is to make small.
        enough: Objective at which a value is good enough, or None.
    """
    task, slots, where = change.task, Slots(change.task.model), params.fact_token
    datasets = Datasets(task, device=str(task.model.device))
    limits = limits_of(params) if goal is unlikely else limits_of(params)[:1]
    for decay, clamp in limits:
        search = Search(
            layer=0, slot=slot, steps=params.v_num_grad_steps, lr=params.v_lr, weight_decay=decay,
            kl_factor=params.kl_factor, clamp=clamp, goal=goal, enough=enough,
        )  # fmt: skip
        place, at, tried = located(
            task.model, datasets, build, search, aim=depth * len(slots), seed=task.seed,
            places=PLACES if where == "auto" else (where,),
            layers=candidates(slots, params) if layer is None else [slots.index(layer)],
            is_settled=len(limits) == 1,
        )  # fmt: skip
        if min((one["loss"] for one in tried), default=0.0) <= REACHED:
            break
    asked = build(place)[: params.max_steps]
    change.record |= {
        "place": place, "layer": at, "edits": len(asked), "tried": tried,
        "v_weight_decay": search.weight_decay, "clamp_norm_factor": search.clamp,
    }  # fmt: skip
    return Plan(asked, replace(search, layer=at), datasets)


def rewriting(task: Task, params: EditParams, contexts: Sequence[str]) -> Build:
    """The forget rows, each to be led to what is to be said instead.

    Args:
        task: Whose rows.
        params: What is to be said, and how many prompts share an edit.
        contexts: Texts to put in front of prompts.
    """
    targets, merge = targets_of(task, params), params.merge

    def build(place: Place) -> list[Association]:
        return associations(
            task.forget, targets, task.encoder, place=place, contexts=contexts, merge=merge
        )

    return build


def texts_of(task: Task, params: EditParams) -> list[Encoded]:
    """The rows that second moments of keys are taken over: those of ``corpus``, or retain rows.

    Raises:
        ExpungeError: ``E-USE-007`` when there is neither.
    """
    rows = task.retain if params.corpus is None else read_rows(params.corpus, "retain")
    if not rows:
        raise ExpungeError(
            "E-USE-007",
            f"{task.method} without rows to keep and without a corpus.",
            "some text that tells which keys are common.",
            "Give --retain FILE, or --set corpus=FILE.",
        )
    return [task.encoder.encode(row.training) for row in rows]


def located(
    model: nn.Module,
    datasets: Datasets,
    build: Build,
    search: Search,
    *,
    places: Sequence[Place],
    layers: Sequence[int],
    aim: float,
    seed: int,
    is_settled: bool = True,
) -> tuple[Place, int, list[dict[str, Any]]]:
    """The place and the block to edit at.

    Args:
        model: The model as it now is.
        datasets: Makes batches.
        build: Place -> all associations with their prompts edited there.
        search: How values are looked for; its block is put in.
        places: Candidates.
        layers: Candidate blocks, from the bottom.
        aim: The block at the paper's depth, not rounded.
        seed: Decides which associations are tried.
        is_settled: Whether a single candidate needs no trial.

    Returns:
        Place, block, and what was found of each candidate: ``place``, ``layer``, ``loss`` in nats.
    """
    if len(places) == len(layers) == 1 and is_settled:
        return places[0], layers[0], []
    tried: list[dict[str, Any]] = []
    with progress("places", len(places) * len(layers)) as bar:
        for place in places:
            asked = build(place)
            chosen = generator(seed, "located").permutation(len(asked))[:TRIED]
            few = [asked[int(at)] for at in sorted(chosen)]
            for layer in layers:
                found = wanted(model, datasets, few, replace(search, layer=layer))
                loss = float(found.loss.mean())
                tried.append({"place": place, "layer": layer, "loss": loss})
                bar.advance(1)
    least = min(one["loss"] for one in tried)
    best = min(
        (one for one in tried if one["loss"] <= least + TIE),
        key=lambda one: (places.index(one["place"]), abs(one["layer"] - aim), one["layer"]),
    )
    return cast(Place, best["place"]), int(best["layer"]), tried


def candidates(slots: Slots, params: EditParams) -> list[int]:
    """Blocks that are tried: those of ``layers``, or some over the depth."""
    if params.layers is None:
        return spread(len(slots))
    return sorted({slots.index(layer) for layer in params.layers})


def spread(blocks: int) -> list[int]:
    """At most `CANDIDATES` blocks, evenly over the depth, without the last one of several.

    A value put out by the last block is read by the head alone: whatever it says is easy there.
    """
    usable = max(blocks - 1, 1)
    if usable <= CANDIDATES:
        return list(range(usable))
    return sorted({round(at * (usable - 1) / (CANDIDATES - 1)) for at in range(CANDIDATES)})
