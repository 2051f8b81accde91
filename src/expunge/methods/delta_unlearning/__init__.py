"""Offset unlearning: a small model unlearns, and what that changed in it is added to a large one.

Objective:
    z = z_big + alpha ( z_a - z_o )
    L = gamma * FORGET( z ) + alpha_R * RETAIN( z )

    M_o is a small model with the vocabulary of the large one, M_a a copy of it, and M_a alone
    moves: of the large model only its logits are needed. At the start z_a = z_o, so the ensemble is
    the large model, which is also what losses compare with. ``loss`` chooses FORGET and, unless
    ``retain_term`` says otherwise, RETAIN, all of them on the logits of the ensemble:

    ga          -tokenmean( nll );              RETAIN none
    grad-diff   the same;                       RETAIN nll
    kl-min      the same;                       RETAIN KL( big || ensemble )
    npo         mean f( logp - logp_big );      RETAIN nll
    simnpo      mean f( mean logp + delta );    RETAIN nll
    idk-nll     tokenmean( nll of a refusal );  RETAIN nll
    idk-dpo     mean f( r_answer - r_refusal ); RETAIN nll
    with f(r) = -(2 / beta) log sigmoid( -beta r ),   r_x = logp_x - logp_big of x

    ``top_k``, in use: of a model that tells only its k likeliest tokens, these get the offset and
    share anew the probability they had together; all others keep theirs.

    Both small models are a run-time part of the change, and `expunge.load` attaches them. The
    weights of the change are the original's and remember everything; an audit runs with the part
    and past it. ``made/assistant`` of the change is M_a as a model of its own, for other servers.

Reference: Offset Unlearning for Large Language Models, 2024.

Departs from the paper:
    Read in an unofficial implementation; the official repository has no code. INFERRED: without
    ``small`` M_o is cut out of the large model (its first blocks with embedding, final norm and
    head), so the large one is then no black box; ``npo`` as the loss where none is named, and its
    retain term; the run stops at the level of rows never seen (``--stop-at``), at the latest, with
    the losses that have no floor, where forget rows are no likelier than a guess; what tokens
    beyond ``top_k`` get, whose probability a remote model does not tell. M_a moves as a whole, as
    in that code. ``lr=auto`` goes by the size of the large model.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.engine.assistants import Ensemble, ensemble_of
from expunge.engine.counts import Voices
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean
from expunge.engine.runtime import Attached, Part
from expunge.engine.slots.mask import all_trainable
from expunge.engine.slots.stop import Measured, at_guess
from expunge.engine.small_models import blocks_of, cut, fitting, size_beside, write
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.lm.arch import Slots
from expunge.lm.folder import Folder
from expunge.lm.load import load
from expunge.methods.delta_unlearning.losses import ASCENT, LOSSES, NEEDS
from expunge.methods.delta_unlearning.offset import (
    AFTER,
    BEFORE,
    Offset,
    ensemble_for,
    part_of,
    weights_in,
)

CARD = {
    "id": "delta-unlearning",
    "kind": "gradient",
    "summary": "Adds to a large model's logits what unlearning changed in those of a small one.",
    "paper": "Offset Unlearning for Large Language Models (2024)",
    "needs": ["forget", "retain", "refusal", "anchor"],
    "access": "logits",
    "cost": "1 forward of the large model and of the small one, and 1 forward and backward of its "
    "copy, over forget and retain rows per step; in use all three read every token",
    "maturity": "paper",
    "version": 1,
    "loss_of": "npo",
    "trains": "adapter",
}

RETAINED = {"ga": "none", "kl-min": "kl"}
"""What keeps the rest with a loss, where nothing is said; with all others it is ``nll``."""

FIXED = ("grad-diff", "kl-min")
"""Losses that are named after what keeps the rest."""

BETA, SIMNPO_BETA = 0.1, 4.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, the small models, the offset, and which loss it is made for."""

    loss: Literal["npo", "ga", "grad-diff", "kl-min", "simnpo", "idk-nll", "idk-dpo"] = param(
        "npo",
        help="what the ensemble is trained on",
        paper=["ga", "grad-diff", "kl-min", "idk-nll"],
        choices=("npo", "ga", "grad-diff", "kl-min", "simnpo", "idk-nll", "idk-dpo"),
    )
    retain_term: str = param(
        "auto",
        help="what keeps the rest in place; auto goes by the loss",
        choices=("auto", "none", "nll", "kl"),
    )
    beta: float | None = param(
        None, help="sharpness of npo, simnpo, idk-dpo; none takes .1, of simnpo 4.5", low=1e-6
    )
    delta: float = param(0.0, help="loss=simnpo: offset of the mean loss, nats a token")
    small: str | None = param(
        None,
        help="folder of a small model with the same vocabulary (M_o); none cuts one out of the "
        "large model",
        paper="Llama-2-7b beside Llama-2-13b",
    )
    blocks: int | None = param(
        None, help="blocks of one that is cut out; none takes 8, of less than 32 a quarter", low=1
    )
    alpha: float = param(1.0, help="factor of the offset", paper=1, low=0.0)
    top_k: int | None = param(
        None, help="in use: only so many of the likeliest tokens get the offset; none: all", low=1
    )
    max_forget_nll: float | Literal["auto"] | None = param(
        "auto",
        help="losses without a floor end where the forget rows cost this many nats a token; auto "
        "is ln V",
        low=0.0,
    )

    def __post_init__(self) -> None:
        """Settle what goes by the loss.

        Raises:
            ExpungeError: ``E-USE-003`` when a loss that is named after its retain term gets
                another one.
        """
        own, asked = RETAINED.get(self.loss, "nll"), self.retain_term
        if self.loss in FIXED and asked not in ("auto", own):
            raise ExpungeError(
                "E-USE-003",
                f"delta-unlearning: loss = {self.loss} with retain_term = {asked}.",
                f"{own}, which is what this loss is.",
                f"Leave retain_term out, or use --set loss=ga --set retain_term={asked}.",
            )
        if asked == "auto":
            object.__setattr__(self, "retain_term", own)
        if self.beta is None:
            sharp = SIMNPO_BETA if self.loss == "simnpo" else BETA
            object.__setattr__(self, "beta", sharp)


def needs(params: Params) -> Sequence[str]:
    """What is looked at, by the loss; the retain term adds its own."""
    return NEEDS.get(params.loss, ["forget"])


def unfit(params: Params, folder: Folder) -> Sequence[ExpungeError]:
    """Why a model cannot have such a small one beside it, known before weights load."""
    return fitting(folder, params.small, params.blocks)


def voices(params: Params, folder: Folder) -> Voices:
    """What an estimate has to know of the pair: M_a is a copy, M_o one where it is no cut."""
    size = size_beside(folder, params.small, params.blocks)
    own = size.parameters * (1 if params.small is None else 2)
    return Voices(sizes=(size, size), trained=size.parameters, own=own)


mask = "nothing"
"""What is trained stands beside the large model."""


def prepare(task: Task, params: Params) -> None:
    """Put the small model and its copy beside the large one."""
    model = task.model
    own: dict[str, nn.Module] = {}
    if params.small is None:
        before = cut(model, blocks_of(params.blocks, len(Slots(model))))
        task.record["blocks"] = len(Slots(before))
    else:
        loaded = load(params.small, dtype=model.dtype, device=str(model.device))
        before = loaded.model
        task.record["small"] = loaded.digest
        own[BEFORE] = before
    before.requires_grad_(False)
    own[AFTER] = after = copy.deepcopy(before)
    after.requires_grad_(True)
    for name, moves in all_trainable(after, task, params).items():
        after.get_parameter(name).requires_grad_(bool(moves))
    voices = {AFTER: after, BEFORE: before}
    rule = Offset(params.alpha, params.top_k)
    Ensemble(model, voices, rule, own=own, learns={AFTER}).put_in(model, named=True)


def forget(step: Step, params: Params) -> Mean:
    """The chosen loss on what the ensemble says, nats."""
    return LOSSES[params.loss](step, params)


def stop(history: Sequence[Measured], params: Params) -> bool:
    """Losses without a floor end at a guess."""
    return params.loss in ASCENT and at_guess(history, params)


def finish(change: Finishing, params: Params) -> None:
    """Take the small models out of the model: they are the run-time part of the change."""
    ensemble = ensemble_of(change.model)
    assert ensemble is not None  # noqa: S101
    change.runtime = part = part_of(ensemble)
    write(change.task, AFTER, part.settings[AFTER], weights_in(part, AFTER))
    ensemble.take_out(change.model)


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Add the offset of two small models to the logits of a model.

    Raises:
        ValueError: When they are not made for it.
    """
    return Attached(ensemble_for(model, part).put_in(model))
