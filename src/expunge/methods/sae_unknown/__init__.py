"""Known to unknown: move an entity to where a model keeps those it has never heard of.

Objective (z_S: latents S of h_l at the last token of a name):
    L = gamma * mean_T( ||z_S - m_N||^2 / D + eta relu( margin - (||z_S - m_K||^2
            - ||z_S - m_N||^2) / D ) )
        + alpha * mean_{R, K} KL( p0 || p ) + beta * mean_K( ||h_l - h0_l||^2 / d )
    S   = the n latents with the largest |r_j| / std_j,   r_j = E_K[ z_j ] - E_N[ z_j ]
    m_K, m_N = means of z_S over known and unknown entities,   D = ||m_K - m_N||^2

    T are templates with a name to be forgotten, K the same with names of known entities, N with
    names that the model does not know; R are retain rows. z is the code of a sparse autoencoder of
    block l that stays as it is: of top-k the ReLU before the largest are chosen, which has a slope
    where the code has none, of JumpReLU the code with the slope of the drive (straight through).
    The output matrices of the MLPs of blocks 0 to l move.

Reference: Sparse-Autoencoder-Guided Internal Representation Unlearning for Large Language Models,
2025.

Departs from the paper:
    INFERRED, since only its abstract was at hand: all formulas above, l (at 3/8 of the depth) and
    the templates: the rows' own prompts and a dozen of ours, of which every third is left for
    judging. Known entities are those of the retain rows of which the model answers a question;
    unknown ones those of hold-out rows that it does not answer, else invented names about which it
    is less sure than about half of the real ones. While the forget term rests the known states do
    so as well. At the end a linear probe on the original's states, judged in other templates, says
    how known the targets were and are; its numbers stand in the change. In small models that look
    facts up at the end of the question, answers may survive although the probe finds the name
    unknown: one of two seeds kept them.
"""

from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel

from expunge.core.families import CoderParams
from expunge.core.params import param
from expunge.data.jsonl import read_rows
from expunge.engine.features import coder_of, layer_of_file, unfit
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean, mean_of
from expunge.engine.slots import retain as shared
from expunge.engine.slots.mask import Mask, mlp_outputs_only
from expunge.engine.steering import at_depth, distance, wide
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.engine.view import View
from expunge.lm.arch import Slots
from expunge.methods.sae_unknown.entities import Entities, entities_of, names_to_forget, told
from expunge.methods.sae_unknown.recognition import (
    Probe,
    Recognition,
    entity_places,
    entity_states,
    probe,
    told_apart,
)
from expunge.requests.rows import Row, Turn

CARD = {
    "id": "sae-unknown",
    "kind": "gradient",
    "summary": "Moves entities, in sparse latents, to where the model keeps those it never met.",
    "paper": "Sparse-Autoencoder-Guided Internal Representation Unlearning for Large Language "
    "Models (2025)",
    "needs": ["forget", "target", "known", "retain", "anchor-logits", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over retain rows and templates with known names per step, and "
    "up to block l over templates with names to be forgotten; before training an autoencoder, and "
    "answers about invented names; the anchor is cached",
    "maturity": "paper",
    "version": 1,
}

__all__ = [
    "BESIDE", "CARD", "Params", "finish", "forget", "mask", "prepare", "refuse", "retain", "unfit",
]  # fmt: skip

LAYER, ENTITIES, PROBE = "sae-unknown.layer", "sae-unknown.entities", "sae-unknown-probe"

DEPTH = 3 / 8
"""Where the block is, when none is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(CoderParams):
    """The autoencoder, the names, and how far they are moved."""

    retain_term: str = param(
        "kl",
        help="what keeps retain rows; kl keeps templates with known names as well",
        paper="kl",
        choices=("none", "nll", "kl", "mse"),
    )
    retain_weight: float = param(1.0, help="weight of that (alpha)", paper=1, low=0.0)
    beta: float = param(
        1.0, help="weight of the states at known names staying where they are", paper=1, low=0.0
    )
    eta: float = param(1.0, help="weight of the push away from the known", paper=1, low=0.0)
    margin: float = param(
        0.5, help="by how much the unknown is to be nearer than the known, in D", paper=0.5
    )
    max_steps: int | None = param(
        200, help="most optimiser steps; none leaves it to epochs", paper=[100, 300], low=1
    )
    features: int = param(64, help="latents that tell the known (n)", paper=[50, 200], low=1)
    templates: str | None = param(
        None, help="file of texts with {} where a name stands; none takes prompts and our own"
    )
    known: str | None = param(None, help="file of rows about known entities; none: retain rows")
    unknown: str | None = param(
        None, help="file of rows about entities nobody knows; none: hold-out rows, or invented ones"
    )

    def __post_init__(self) -> None:
        """Read the files once, so that a bad one is found before weights load.

        Raises:
            ExpungeError: ``E-DATA-001`` to ``E-DATA-012``, see `expunge.data.jsonl.read_rows`.
        """
        files = (self.templates, "probe"), (self.known, "retain"), (self.unknown, "holdout")
        for file, role in files:
            if file is not None:
                read_rows(file, role)


def refuse(rows: Any, params: Params) -> None:
    """Refuse forget rows whose subject has no name, before weights load.

    Raises:
        ExpungeError: ``E-DATA-003``.
    """
    names_to_forget(rows["forget"])


def prepare(task: Task, params: Params) -> None:
    """Find names, templates and latents; put templates beside forget and retain rows."""
    layer = settle(task, params)
    who = entities_of(task, params)
    coder = coder_of(task, params, layer)
    known, unknown = (
        entity_states(task, _turns(who.training, names), layer).to(coder.centre)
        for names in (who.trained, who.unknown)
    )
    found = told_apart(coder, known, unknown, params.features)
    task.tensors.update(found.kept())
    task.record.update(
        layer=layer, latents=len(found.known), known_names=len(who.known),
        unknown_names=len(who.unknown), templates=len(who.training),
    )  # fmt: skip
    fitted = probe(known, unknown)
    task.state[ENTITIES], task.tensors[PROBE] = asdict(who), fitted.kept()
    task.record["target_known_before"] = _share_known(task, who, fitted, layer)["target"]
    pairs = _turns(who.training, who.trained)

    def target(row: Row, wording: int, candidate: int) -> Turn:
        names = who.targets[places[row.id]]
        template, name = candidate % len(who.training), candidate // len(who.training)
        return told(who.training[template], names[name % len(names)])

    places = {row.id: at for at, row in enumerate(task.forget)}
    most = max(map(len, who.targets))
    task.paired["target"] = Paired(target, count=len(who.training) * most)
    task.paired["known"] = Paired(lambda *at: pairs[at[2]], count=len(pairs), beside="retain")


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The MLP output matrices of the block and all below it (or of ``layers``)."""
    return mlp_outputs_only(model, params.layers or range(settle(task, params) + 1))


def forget(step: Step, params: Params) -> Mean:
    """How far names to be forgotten are from the unknown, and how near to the known."""
    view = step.target if "target" in step else step.forget
    states = wide(view.hidden(_layer(step, view, params))[entity_places(view)])
    known = Recognition.of(step.tensors) or Recognition.plain(states.shape[-1], states)
    return mean_of(known.to(states).loss(states, params.margin, params.eta))


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term, of retain rows and of templates with known names together."""
    kept = shared.by_term(step, params)
    if kept is None or params.retain_term != "kl" or "known" not in step:
        return kept
    return kept + shared.kl(Step({"retain": step.known}), params)


def states(step: Step, params: Params) -> Mean | None:
    """How far states at known names have moved, squared, per channel."""
    if not params.beta or "known" not in step:
        return None
    view = step.known
    layer = _layer(step, view, params)
    return params.beta * distance(
        view.hidden(layer), wide(view.anchor.hidden(layer)), entity_places(view)
    )


BESIDE = {"states": states}


def finish(change: Finishing, params: Params) -> None:
    """Ask the probe, in other templates, how known everybody is now."""
    task = change.task
    who = Entities.of(task.state[ENTITIES])
    found = _share_known(task, who, Probe.of(task.tensors[PROBE]), task.state[LAYER])
    change.record.update(
        target_known_after=found["target"], known_still_known=found["known"],
        unknown_known=found["unknown"],
    )  # fmt: skip


def settle(task: Task, params: Params) -> int:
    """The block, from the bottom."""
    slots = Slots(task.model)
    if LAYER not in task.state:
        has_own = params.sae is not None or params.layer is not None
        layer = layer_of_file(params) if has_own else at_depth(DEPTH, len(slots))
        task.state[LAYER] = slots.index(layer)
    return int(task.state[LAYER])


def _layer(step: Step, view: View, params: Params) -> int:
    default = at_depth(DEPTH, view.blocks) if params.layer is None else params.layer
    return int(step.state.get(LAYER, default))


def _turns(templates: Any, names: Any) -> list[Turn]:
    return [told(template, name) for name in names for template in templates]


def _share_known(task: Task, who: Entities, fitted: Probe, layer: int) -> dict[str, float]:
    """For each kind of names how likely, in the mean, the probe finds them known."""
    kinds = {"target": who.all_targets, "known": who.judged or who.known, "unknown": who.unknown}
    found = {}
    for kind, names in kinds.items():
        likely = fitted(entity_states(task, _turns(who.judging, names), layer))
        found[kind] = float((likely > 0.5).mean() if kind == "known" else likely.mean())
    return found
