"""O3: for streams of requests without data to keep: an adapter, and detectors of who gets it.

Objective (request t):
    y     = W x + w(prompt) * (alpha / r) * B_t A_t x             for every linear W of the blocks
    L     = tokenmean( nll of all tokens of forget rows with random answers )
            + lambda * sum_{s < t} sum_linears || A_s A_t^T ||_F^2
    w     = max over the detectors of requests 1 .. t

    One adapter goes on over the requests: A_t and B_t begin where request t - 1 left them, A_s is
    what A was after request s. The random answer may be the true one. W does not move.

    detector (e_i: token mean of hidden state i of the encoder; j: the prompts of the request):
    s_i   = z( max_j cos( e_i(x), e_i(x_j) ) ) - z( Mahalanobis_i(x) / 2 )      score=monotone
          = -1000 max_j cos( e_i(x), e_i(x_j) ) - Mahalanobis_i(x) / 2          score=official
    g     = one-class SVM (linear, nu) of ( s_1 .. s_L )
    q     = 1 - max( F(g), F(2 x0 - g) ) + min( F(g), F(2 x0 - g) ),   w = sigmoid( 10 q - 2 )

    F is a mixture of N(mu1, sd2) and N(mu2, sd2): scores of the request's prompts, and of such that
    are held out; x0 is halfway. Before that the encoder learns the request's prompts
    (`expunge.methods.o3.fitting`). Mahalanobis is the squared distance, its covariance shrunk as
    Ledoit and Wolf have it.

    w is settled once a row, on its prompt, before the first block reads it, and kept with the cache
    while the answer is written (`expunge.engine.decisions`). A row of weight 0 is answered by W
    alone, bit for bit. The adapter and the detectors are a run-time part: in the weights of the
    change nothing is forgotten. A change on top of another one takes its detectors over and puts
    its own adapter in the place of the other's.

    A row ends about as likely to get its true answer as that is drawn: where k answers are drawn,
    the true one is the first choice of one row in k, by chance. Later requests train the same
    adapter on other rows. What that does to the rows of earlier ones nothing rules but the
    orthogonal term: of a tiny model with k = 4 the true answer's probability, .98 before and .25
    after its own request, was .01 to .35 after later ones, and .5 to .9 of what the four answers
    had together. ``own_answer=false`` never draws the true one (ours): on the testbed, whose rows
    have six options, a token of the answer ends at .81 of .96 on average, and at .48 without it.

    Whoever holds the change holds a vector of every forgotten prompt, and can compare them with
    that of a guess.

Reference: On Large Language Model Continual Unlearning, 2024 (first named Practical Unlearning for
Large Language Models); the authors' code.

Departs from the paper:
    The encoder is the model itself, without the adapter (``encoder=self``); the paper's is a small
    masked language model, which ``encoder=FOLDER`` names. INFERRED for the model itself: it sees no
    text behind a token, so instead of a mask a random token stands in the text and the true one is
    predicted from the position before; the first position is left out of token means. It reads the
    weights as they are: a method that moves them later blinds earlier detectors.
    ``score=official`` and ``gate=official_hard`` are the code's. There the two parts of a score
    work against each other, and a table sends weights from .4 to .9 to 0. Ours, INFERRED: both
    parts count what held-out texts score, in deviations, so that a score grows with likeness and
    only low ones are strange; the origin of the separator is six deviations away; weights up to
    ``low`` are 0 and above ``high`` 1. Held out are the request's own rows, a fifth at a time, each
    scored by the others, where the code has a test set. Of few rows that says little, and another
    subject in the same words may be as near: prompts about invented subjects set a floor, unless
    ``strangers=false``. Padding does not count in token means.
    INFERRED, since neither says it: 15% of the tokens are masked, eight in ten of them by the mask;
    where there are no options, the answer is that of any forget row, as the row's own reply with
    the other's value where the value can be told; it is drawn anew in every epoch, or a row could
    be taught its own for good (``redraw=false``). The detector looks at prompts alone: at nothing
    else can it be asked. Dropout is a function of seed, step and place. Both rates are those of
    models of half a billion parameters and more; ``auto`` raises them for small ones.
"""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from expunge.core.errors import ExpungeError
from expunge.core.families import GradientParams
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.engine.finish import Finishing
from expunge.engine.mean import Mean, mean_of
from expunge.engine.runtime import Attached, Part
from expunge.engine.step import Step
from expunge.engine.task import Task
from expunge.engine.view import View
from expunge.lm.encoders import SELF, inspect_encoder
from expunge.lm.low_rank import Dropout, position_keys
from expunge.methods.o3.answers import random_answers
from expunge.methods.o3.board import NAME, Board, Continued, Dropping, board_of
from expunge.methods.o3.making import made

CARD = {
    "id": "o3",
    "kind": "gradient",
    "summary": "For streams without rows to keep: an adapter that only prompts like the forgotten "
    "ones get, as detectors tell.",
    "paper": "On Large Language Model Continual Unlearning (2024)",
    "needs": ["random"],
    "access": "weights",
    "cost": "1 forward and backward over forget rows per step; before training 2 passes over them "
    "with the encoder; in use 1 pass of the encoder over the prompt for each request so far",
    "maturity": "paper",
    "version": 1,
    "trains": "adapter",
}

SEED = "o3.seed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Params(GradientParams):
    """The shared parameters, those of the adapter, and those of the detector."""

    retain_term: str = param(
        "none",
        help="what keeps the retain rows while the adapter is trained, if there are any",
        paper="none",
        choices=("none", "nll", "kl", "mse"),
    )
    lr: float | Literal["auto"] = param(
        "auto", help="learning rate; auto picks it by the size of the model", paper=3e-4, low=0.0
    )
    epochs: int | None = param(
        None, help="passes over the forget set; none leaves it to max_steps", paper=15, low=1
    )
    batch_size: int = param(16, help="forget rows of each part of a step", paper=128, low=1)
    lora_alpha: float = param(16.0, help="scale of the adapter: alpha / r", paper=16, low=0.0)
    dropout: float = param(
        0.05,
        help="share of what goes into the adapter that is left out",
        paper=0.05,
        low=0,
        high=0.9,
    )
    orthogonal_weight: float = param(
        0.1, help="weight of what A reads in common with earlier ones (lambda)", paper=0.1, low=0.0
    )
    redraw: bool = param(True, help="draw random answers anew in every epoch")
    own_answer: bool = param(
        True, help="whether the random answer of a row may be its own, the true one", paper=True
    )
    encoder: str = param(
        "self",
        help="what reads prompts: self (the model), or the folder of a masked language model",
        paper="RoBERTa-large",
    )
    detector_r: int = param(8, help="rank beside the encoder's q, k and v", paper=8, low=1)
    detector_alpha: float = param(32.0, help="its scale: alpha / r", paper=32, low=0.0)
    detector_lr: float | Literal["auto"] = param(
        "auto", help="rate of the encoder; auto picks it by its size", paper=1e-5, low=0.0
    )
    detector_epochs: int = param(2, help="passes of the encoder over the prompts", paper=2, low=0)
    detector_batch: int = param(8, help="prompts of a step of the encoder", paper=8, low=1)
    detector_weight_decay: float = param(
        0.01, help="decoupled weight decay of the encoder", paper=0.01, low=0.0
    )
    detector_warmup: float = param(
        0.06, help="share of its steps over which the rate rises", paper=0.06, low=0.0, high=1.0
    )
    masked: float = param(0.15, help="share of tokens the encoder predicts", low=0.0, high=1.0)
    contrast: float = param(1.0, help="weight of the contrastive entropy", paper=1, low=0.0)
    score: Literal["monotone", "official"] = param(
        "monotone",
        help="how cosine and distance add up: both for likeness and by deviations, or as the code",
        paper="official",
        choices=("monotone", "official"),
    )
    nu: float = param(
        0.1, help="share of prompts the separator leaves behind", paper=0.1, low=1e-3, high=1.0
    )
    gate: Literal["soft", "official_hard"] = param(
        "soft",
        help="the weight itself, ended by low and high, or the table of the released evaluation",
        paper="soft",
        choices=("soft", "official_hard"),
    )
    strangers: bool = param(
        True,
        help="prompts about invented subjects in the rows' own words set a score below which "
        "nothing gets the adapter",
    )
    low: float = param(0.3, help="gate=soft: weights up to this are 0", low=0.0, high=1.0)
    high: float = param(0.9, help="gate=soft: weights above this are 1", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        """Refuse ends that cross, and an encoder that is none.

        Raises:
            ExpungeError: ``E-USE-003``; of the encoder as `inspect_encoder`.
        """
        if self.low > self.high:
            raise ExpungeError(
                "E-USE-003",
                f"o3: low = {self.low:g} above high = {self.high:g}.",
                "ends in order.",
                "Exchange them.",
            )
        if self.encoder != SELF:
            inspect_encoder(self.encoder)


mask = "nothing"
"""What is trained stands beside the model."""


def prepare(task: Task, params: Params) -> None:
    """Fit the detector of this request, and put the adapter beside the linears.

    Raises:
        ExpungeError: ``E-USE-006`` when an earlier request has another adapter, ``E-USE-007`` when
            a row has no answer but its own, ``E-MODEL-008`` when no linear is to get an adapter.
    """
    task.paired["random"] = random_answers(task, redraw=params.redraw, own=params.own_answer)
    task.state[SEED] = derive(task.seed, "o3", "dropout")
    board = made(task, params)
    if board.earlier is not None:
        board.earlier.take_out(task.model)
    board.put_in(task.model)
    task.model.add_module(NAME, board)


def forget(step: Step, params: Params) -> Mean:
    """Likelihood of rows with random answers, all tokens; what A reads in common with earlier."""
    view = step.random.over("whole")
    dropping = Dropping(dropout_of(view, step, params.dropout))
    mean = view.changed(dropping).nll
    if dropping.board is None or (shared := dropping.board.orthogonal()) is None:
        return mean
    step.report("overlap", mean_of(shared.detach()[None]))
    return Mean(mean.num + params.orthogonal_weight * shared * mean.den, mean.den)


def dropout_of(view: View, step: Step, share: float) -> Dropout | None:
    """Which channels are dropped: a function of seed, step, row and position."""
    if not share or view.is_counted:
        return None
    real = view.inputs.attention_mask.bool()
    keys = position_keys(view.row, real.shape[1], step.state.get(SEED, 0), step.index)
    return Dropout(keys[real][None] if view.inputs.packing else keys, share)


def finish(change: Finishing, params: Params) -> None:
    """Take the adapter out of the model: it is the run-time part of the change."""
    model = change.task.model
    board = board_of(model)
    assert board is not None  # noqa: S101
    change.runtime = board.part(change.task.forget, change.task.seed)
    board.take_out(model)
    if board.earlier is not None:
        board.earlier.put_in(model)


def attach(model: PreTrainedModel, part: Part) -> Attached:
    """Put an adapter and its detectors into a model, in the place of what they continue.

    Raises:
        ValueError: When they are not made for it.
    """
    earlier = board_of(model)
    return Continued(model, Board.of(model, part, earlier), earlier)
