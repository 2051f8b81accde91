"""RMU under attack: push activations onto a random vector while an adversary pulls them back.

Objective:
    L = gamma * mean_F( ||h_l(x; delta) - c u||^2 / d ) + alpha * mean_R( ||h_l - h0_l||^2 / d )
    delta(x) = argmin over ||delta_t|| <= eps of   tokenmean nll(x; delta)
                                                 + tokenmean -log( 1 - p(partner of x; delta) )

    delta [tokens of x, d] is added to what the MLP of block ``attack_layer`` puts out. It starts at
    0 and takes ``attack_steps`` steps of AdamW, each followed by a cut to length eps, token by
    token; then ``repeats`` steps of the model are made against the same delta, on the same rows.
    The partner is a retain row that the same vectors are to make unlikely, so an attack that only
    makes the model certain of everything is none. Retain rows are never shifted in L. All else is
    rmu's: u of the row's topic, h0_l the anchor's, only the MLP outputs of blocks l-2 to l move.
    eps = 0 is rmu, with ``repeats`` steps for each batch.

Reference: Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs,
2024; rmu as in The WMDP Benchmark, 2024.

Departs from the paper:
    Its code draws a new u for every batch; ours has one for each topic, as rmu (``u_per_batch``
    brings the other back). There the attack also falls on padding, where rows are short; ours
    falls on the tokens of the row alone. The two means of the attack are taken row by row, so that
    no row's attack depends on which rows share its step. The decay of its AdamW is the library's
    0.01. As in rmu, neither padding nor the first position is pushed (``include_bos``), and the
    weight of the retain term is the one that small models take; at 1200, the paper's, they forget
    nothing. For other depths than 32 blocks the attacked one is at 7/32, the steered one above it
    (INFERRED). An epoch passes every row ``repeats`` times. Where several processes share a step
    and a run stops between two steps on one delta, the resumed run searches anew in all processes
    but the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.families import SteeringParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine import misdirection
from expunge.engine.adversary import Search, shifted
from expunge.engine.mean import Mean
from expunge.engine.misdirection import DEPTH, lengths, steered
from expunge.engine.slots.mask import Mask
from expunge.engine.slots.sample import Draw, OneToOne, one_to_one
from expunge.engine.steering import SEED, at_depth, directions, distance, remember_topics
from expunge.engine.step import Step
from expunge.engine.task import Paired, Task
from expunge.lm.arch import Slots

CARD = {
    "id": "rmu-lat",
    "kind": "gradient",
    "summary": "Misdirection that holds while hidden states are shifted to bring the rows back.",
    "paper": "Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in "
    "LLMs (2024)",
    "needs": ["forget", "retain", "partner", "anchor-hidden"],
    "access": "weights",
    "cost": "1 forward and backward over forget and retain rows per step, not above the steered "
    "block; every fourth step 16 whole ones over forget rows and their partners; the anchor's "
    "outputs of the steered block are cached",
    "maturity": "paper",
    "version": 1,
    "passes": "repeats",
}

HELD = "rmu-lat.delta"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(SteeringParams):
    """The shared parameters, the attack, and how far activations are pushed."""

    retain_weight: float = param(1.0, help="weight of the retain term (alpha)", paper=1200, low=0.0)
    max_steps: int | None = param(
        None, help="most optimiser steps; none leaves it to epochs", paper=800, low=1
    )
    layer: int | None = param(
        None,
        help="steered block (l), negative from the top; none takes the one above the attacked one",
        paper=8,
    )
    steering: float = param(
        6.5, help="length of the vector activations are pushed onto (c)", paper=6.5, low=0.0
    )
    u_per_batch: bool = param(
        False, help="a new vector u for every batch, as in the paper's code", paper=True
    )
    attack_layer: int | None = param(
        None,
        help="block whose MLP output is shifted, negative from the top; none takes the one below "
        "the steered one, or at 7/32 of the depth",
        paper=7,
    )
    eps: float = param(2.0, help="longest shift of a token; 0 is no attack", paper=2, low=0.0)
    attack_steps: int = param(16, help="optimiser steps of an attack", paper=16, low=1)
    attack_lr: float = param(0.05, help="learning rate of an attack", paper=0.05, low=0.0)
    repeats: int = param(4, help="steps of the model against one attack", paper=4, low=1)

    def __post_init__(self) -> None:
        """Refuse an attack above what is steered, where that needs no depth to be seen.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        attacked, steered = self.attack_layer, self.layer
        if attacked is not None and steered is not None and (attacked < 0) == (steered < 0):
            _refuse_above(attacked, steered)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Every draw of another sampler several times in a row.

    Attributes:
        each: That sampler.
        repeats: How often.
    """

    each: OneToOne
    repeats: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps that pass all forget rows ``repeats`` times."""
        return self.each.steps_per_epoch * self.repeats

    def draw(self, step: int) -> Draw:
        """The global draw of ``step``."""
        return replace(self.each.draw(step // self.repeats), step=step)


def sample(task: Task, params: Params) -> Repeated:
    """The same rows for all steps against one attack."""
    return Repeated(one_to_one(task, params), params.repeats)


def effort(params: Params) -> float:
    """How many plain steps a step takes: its own, and its share of an attack."""
    return 1 + (params.attack_steps / params.repeats if params.eps else 0.0)


def prepare(task: Task, params: Params) -> None:
    """Note the topics, put a retain row beside every forget row, look at the vector's length."""
    remember_topics(task)
    if task.retain:
        beside = [row.training for row in task.retain]
        task.paired["partner"] = Paired(lambda _, __, other: beside[other], count=len(beside))
    own = _placed(params, len(Slots(task.model)))
    natural = max(lengths(task, own).values())
    if params.steering < natural:
        note(
            f"rmu-lat: activations of block {own.layer} have length {natural:.1f}, steering is "
            f"{params.steering:g}: too short to forget with. Raise it (--set steering=...).",
            natural=natural,
        )


def mask(model: PreTrainedModel, task: Task, params: Params) -> Mask:
    """The MLP output matrices of the steered block and the two below it (or of ``layers``)."""
    slots = Slots(model)
    for layer in (params.attack_layer, params.layer):
        slots.index(layer or 0)
    _refuse_above(*blocks_of(params, len(slots)))
    return misdirection.mask(model, task, _placed(params, len(slots)))


def forget(step: Step, params: Params) -> Mean:
    """Mean squared distance of the attacked activations to the control vector, per channel."""
    view = step.forget
    if params.eps and not view.is_counted:
        view = shifted(view, blocks_of(params, view.blocks)[0], attack(step, params))
    hidden, positions = steered(view, _placed(params, view.blocks))
    state = step.state
    if params.u_per_batch:
        state = {**state, SEED: derive(int(state.get(SEED, 0)), "batch", _batch(step, params))}
    target = params.steering * directions(view, state, hidden.shape[-1])
    return distance(hidden, target, positions)


def retain(step: Step, params: Params) -> Mean | None:
    """The shared retain term; ``mse`` compares the steered block."""
    return misdirection.retain(step, _placed(params, step.retain.blocks))


def attack(step: Step, params: Params) -> Sequence[Tensor]:
    """[n, d] for each forget row: what was found at the first step on this batch, and is held."""
    partner = step.partner if "partner" in step else None
    pairs = zip(step.forget.row, partner.row if partner else step.forget.row, strict=True)
    held = f"{HELD}.{_batch(step, params)}."
    names = [f"{held}{int(row)}.{int(other)}" for row, other in pairs]
    if not all(name in step.tensors for name in names):
        for old in [n for n in step.tensors if n.startswith(HELD) and not n.startswith(held)]:
            del step.tensors[old]
        layer, _ = blocks_of(params, step.forget.blocks)
        search = Search(layer, params.eps, params.attack_steps, params.attack_lr)
        step.tensors.update(zip(names, search(step.forget, partner), strict=True))
    return [step.tensors[name] for name in names]


def blocks_of(params: Params, blocks: int) -> tuple[int, int]:
    """The attacked and the steered block of a model with so many, from the bottom."""
    if params.layer is None:
        default = at_depth(DEPTH, blocks)
        attacked = default if params.attack_layer is None else params.attack_layer % blocks
        return attacked, min(attacked + 1, blocks - 1)
    top = params.layer % blocks
    return max(0, top - 1) if params.attack_layer is None else params.attack_layer % blocks, top


def _refuse_above(attacked: int, steered: int) -> None:
    if attacked > steered:
        raise ExpungeError(
            "E-USE-003",
            f"rmu-lat attacks block {attacked} and steers block {steered}, which lies below.",
            "an attack that reaches what is steered.",
            "Give an attack_layer that is not above layer.",
        )


def _placed(params: Params, blocks: int) -> Params:
    """The parameters with the steered block settled."""
    return replace(params, layer=blocks_of(params, blocks)[1])


def _batch(step: Step, params: Params) -> int:
    """Which batch a step is on: several steps share one."""
    return step.index // params.repeats
