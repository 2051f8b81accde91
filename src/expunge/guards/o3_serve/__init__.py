"""O3 at serving time: as much of one adapter as a prompt is like the prompts of a target.

Definition (e_l: token mean of hidden state l of one frozen encoder; targets r = 1 .. R):
    s_l  = z( max_j cos( e_l(x), e_l(x_j) ) ) - z( Mahalanobis_l(x) / 2 )        score=monotone
         = -1000 max_j cos( e_l(x), e_l(x_j) ) - Mahalanobis_l(x) / 2            score=official
    q_r  = one-class SVM (linear, nu) of ( s_1 .. s_L ), kept as arrays
    F    = the mixture of N(m1, sd) and N(m2, sd): scores of the target's prompts, and of such that
           are held out (sd is theirs);   x0 = (m1 + m2) / 2
    p(q) = 1 - | F(q) - F(2 x0 - q) |,    w_r = sigmoid( 10 p - 2 )
    w    = max_r w_r where that is above the cut, else 0
           official=true:  1.2 above .9, w in (.3, .4], else 0
    y    = W x + w (alpha / r) B A x      for every linear W of the blocks
    cut  = the (1 - false_triggers) quantile of max_r w_r over the prompts to be let through
           (`expunge.engine.guarding.calibration`), kept within [low, high]

    Far from everything w is sigmoid(-2) = .119, so without a cut every prompt would get an eighth
    of the adapter. The covariance is shrunk as Ledoit and Wolf have it and kept in the directions
    in which a target's prompts differ, so that a few of them are enough. All gates read one pass of
    the encoder: the cost of R targets is R small products. w is settled once a row, on its prompt,
    and kept with the row's cache; where it is 0 the logits are the model's, bit for bit.

    change=DIR takes the adapter of a change that ``expunge forget --method o3`` wrote, of a stream
    the latest; else it is trained on the targets' rows while the guard is fitted, by the same
    engine, anew whenever targets come or go. ``levels=true`` gives a row 0, 1/2 or all of it, as
    servers do that know whole adapters only (`expunge.guards.o3_serve.copies` writes the three).

    This suppresses, it does not delete: without the adapter the model knows what it knew, and
    prompts that are unlike a target's rows get no adapter. What is stored of a target are vectors
    of its prompts: whoever holds them can compare them with that of a guess. A target that comes
    while the guard works is not held back by an adapter that was trained without it: with
    change=DIR it is refused (E-SERVE-005), else prompts like it are answered by ``reply`` until the
    new adapter is trained, which takes as long as training.

Reference: On Large Language Model Continual Unlearning, 2024 (first named Practical Unlearning for
Large Language Models); the authors' code.

Departs from the paper: it trains an encoder for every request, and every prompt is read by all of
them; here one encoder is shared and stays as it is. The encoder is the model itself
(``encoder=self``) or a masked language model (``encoder=FOLDER``; the paper's is one). Weights are
soft, where the code has the table of official=true. Padding does not count in token means, nor,
with the model itself, the first position. Gates are kept as arrays of numbers, where the code
pickles. INFERRED: score=monotone, where both parts of a score grow with likeness and high scores
are not strange; rows held out a fifth at a time, each scored by the others; a floor from prompts
about invented subjects (``strangers``); the cut; how weights become levels; the question is judged
by itself beside the whole dialogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.engine.guarding import helped
from expunge.engine.guarding.desk import Desk, Means
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.helped import Help
from expunge.engine.guarding.inside import looked_at
from expunge.engine.guarding.ladder import Ladder
from expunge.engine.guarding.targets import Target
from expunge.guards.o3_serve.gates import GUARD, Likely

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.runtime import Attached

CARD = {
    "id": "o3-serve",
    "kind": "guard",
    "summary": "Suppress (not delete): as much of an adapter as a prompt is like a target's.",
    "paper": "On Large Language Model Continual Unlearning (2024)",
    "needs": ["forget", "retain"],
    "access": "weights",
    "cost": "one pass of the encoder over each prompt, small products for each target; without "
    "change= training of the adapter for every change of targets",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "fails": "closed",
    "stages": ["adapter"],
    "place": "model",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How prompts are known again, and how the adapter comes about."""

    change: str = param(
        "", help="folder of a change of o3 whose adapter is used; empty: one is trained"
    )
    encoder: str = param(
        "self",
        help="what reads prompts: self (the model), or the folder of a masked language model",
        paper="RoBERTa-large",
    )
    score: Literal["monotone", "official"] = param(
        "monotone",
        help="how cosine and distance add up: both for likeness and by deviations, or as the code",
        paper="official",
        choices=("monotone", "official"),
    )
    nu: float = param(
        0.1, help="share of prompts the separator leaves behind", paper=0.1, low=1e-3, high=1.0
    )
    official: bool = param(
        False, help="the table of the released evaluation in the place of w and its cut"
    )
    strangers: bool = param(
        True,
        help="prompts about invented subjects in the rows' own words set a score below which "
        "nothing gets the adapter",
    )
    false_triggers: float = param(
        0.01, help="share of the prompts to be let through that may get some", low=0.0, high=0.5
    )
    low: float = param(0.3, help="lowest cut: weights up to it are 0", low=0.12, high=1.0)
    high: float = param(0.9, help="highest cut", low=0.12, high=1.0)
    levels: bool = param(False, help="give 0, 1/2 or all of the adapter, and nothing between")
    lora_r: int = param(8, help="rank of the adapter", paper=8, low=1)
    lora_alpha: float = param(16.0, help="its scale: alpha / r", paper=16, low=0.0)
    lr: float | Literal["auto"] = param(
        "auto", help="rate of the adapter; auto picks it by the model's size", paper=3e-4, low=0.0
    )
    epochs: int = param(15, help="passes over the targets' rows", paper=15, low=1)
    reply: str = param(
        "I'm sorry, but I can't help with that.",
        help="what is said about targets that the adapter does not know yet",
    )

    def __post_init__(self) -> None:
        """Refuse ends that cross.

        Raises:
            ExpungeError: ``E-USE-003``.
        """
        if self.low > self.high:
            raise ExpungeError(
                "E-USE-003",
                f"o3-serve: low = {self.low:g} above high = {self.high:g}.",
                "ends in order.",
                "Exchange them.",
            )


def ladder(params: Params, means: Means) -> Ladder:
    """The gate: prompts known again by their hidden states."""
    return Ladder([Likely(params, means)])


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """Nothing but the number of its rows; refuses a target that the adapter was made without."""
    return helped.admitted(target, _help(params), means)


def shared(targets: Sequence[Target], params: Params, means: Means) -> Shared:
    """The adapter: where it lies, or itself."""
    return helped.shared(targets, _help(params), means)


def settled(desk: Desk) -> None:
    """Set the cut by what is to be let through, where that is at hand."""
    for rung in desk.ladder.rungs:
        if isinstance(rung, Likely):
            rung.calibrate(desk.means.retain)


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Let the exchange in as it is; a reply where the adapter does not know its target yet."""
    if helped.waiting(desk, looked_at(exchange, desk)):
        return Reply(desk.params.reply, "no adapter yet")
    return exchange


def attach(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", desk: Desk
) -> "Attached":
    """Put the adapter into a model."""
    from expunge.engine.runtime import Attached
    from expunge.guards.o3_serve.board import Board
    from expunge.lm.prefixes import reconsider

    attached = Attached(Board(model, tokenizer, desk).put_in(model))
    reconsider(model)
    return attached


def _help(params: Params) -> Help:
    taught: dict[str, Any] = {
        name: getattr(params, name) for name in ("lora_r", "lora_alpha", "lr", "epochs")
    }
    taught["detector_epochs"] = 0  # its own detector is not used here
    return Help(guard=GUARD, method="o3", change=params.change, params=taught)
