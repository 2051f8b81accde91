"""ECO: on prompts about a target, noise on the embeddings of the tokens that name it.

Definition (prompt x of L tokens, e its input embeddings, sigma the strength, n dimensions):
    gate     fires iff p(x) > max(tau, 1/2), p a classifier of the wording of forget prompts against
             prompts to be let through; or, named=true, iff the ladder finds a target's name in x
    mask     m_i = 1 for the tokens of people's names; where none stand in x, and for tokens=all,
             for all tokens but the last
    noise    e_i[:n] += sigma g,  g ~ N(0, I_n),  where m_i = 1               (operator=noise-first)
    operator noise-random (n dimensions drawn for x), noise-top / zero-top / flip-top (the n largest
             |e_ij|), zero-first / flip-first / plus-first / minus-first (0, -e, e + sigma,
             e - sigma), replace-first (sigma g), reverse and shuffle (the tokens of the mask change
             places)
    sigma    S(s) = |metric of the corrupted model - surrogate|,
             g = (S(s + e) - S(max(s - e, 1e-8))) / 2e,  s <- max(s - eta g, s_min),  e = .999 s_0;
             vector=true: one strength for each of the n dimensions, along a random unit direction
    tau      the (1 - q)-quantile of p on prompts to be let through, each judged by a classifier
             that did not see it; tau=X fixes it
    g is drawn by a keyed hash of the targets and the words of x, so asking again gives the same
    noise. Only tokens of the prompt are ever touched, in whatever pieces it is read; where nothing
    fires logits are bit for bit those of the model.

    This suppresses, it does not delete: the weights are untouched and whoever runs them without the
    guard, or asks so that the gate stays silent, gets all of it. Nothing of a target is stored but
    the weights of the gate; they can be tested with guesses, so keep them as secret as the targets.

Reference: Large Language Model Unlearning via Embedding-Corrupted Prompts, 2024.

Departs from the paper:
    The classifier is a logistic regression on hashed n-grams in the place of RoBERTa: it is learnt
    anew in a moment whenever targets come or go, and knows wording, not meaning. Names of people
    are found by presidio, or by a rule that takes every run of two capitalised words for one. Noise
    is fixed for a prompt and computed in float32; values are held below what the embeddings' own
    type can hold through the first scaling of the model. The hook of the paper's code takes every
    call of more than one token for a prompt; here what the prompt is lies in the cache with the
    row. A row of which everything is predicted has no prompt but its opening token, and that is
    left alone.
    INFERRED: beside the prompts to be let through stand the targets' own about invented people, so
    that names decide and not the words around them, and sentences of general knowledge; names alone
    are learnt as prompts; tau set on held-out ones of all these; the ladder of names as a second
    gate; the surrogate's score measured as what the model makes of such facts of invented people
    (``surrogate=X`` fixes it); ``slack`` above it ends the tuning (0.27 for four options, in the
    paper's code); where the slope is 0 the strength is doubled; where no strength was enough the
    best is taken; without rows to tune on sigma is the width of the model, as on TOFU; a prompt of
    one token is corrupted itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.rng import generator
from expunge.data.retain import neutral_rows
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.targets import Target
from expunge.requests.names import prompts_of
from expunge.requests.scope import placebo
from expunge.text.classifier import fit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.guarding.desk import Desk, Means
    from expunge.engine.guarding.exchange import Exchange
    from expunge.engine.guarding.ladder import Hit
    from expunge.engine.runtime import Attached

    Vector = npt.NDArray[np.float64]

CARD = {
    "id": "eco",
    "kind": "guard",
    "summary": "Suppress (not delete): noise on the embeddings of prompts about a target.",
    "paper": "Large Language Model Unlearning via Embedding-Corrupted Prompts (2024)",
    "needs": ["forget", "retain"],
    "access": "embeddings",
    "cost": "one pass of an n-gram classifier a prompt, at any number of targets; it is learnt "
    "anew, and the strength tuned by some 20 scorings, whenever targets change",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "stages": ["embeddings"],
    "place": "model",
    "fails": "closed",
}

PREFIX = "gate."
"""Of the classifier's arrays."""

NEUTRAL = 139
"""Sentences of general knowledge that stand beside the prompts to be let through."""

STRANGERS = 400
"""Rows at most that are told of invented people, to be let through."""

FEWEST = 60
"""Such rows at least, where the targets have fewer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The gate, the corruption, and how its strength is found."""

    tau: float | None = param(
        None,
        help="probability above which the gate fires; none sets it on prompts to be let through",
        paper=[0.99, 0.995, 0.999, 0.9999],
        low=0.0,
        high=1.0,
    )
    q: float = param(
        0.02,
        help="share of prompts to be let through that may fire, for tau=none",
        low=0.0,
        high=0.5,
    )
    named: bool = param(True, help="whether a target's name in the prompt fires as well")
    operator: str = param(
        "noise-first",
        help="what is done to the embeddings",
        paper="noise-first",
        choices=(
            "noise-first",
            "noise-random",
            "noise-top",
            "zero-top",
            "flip-top",
            "zero-first",
            "flip-first",
            "plus-first",
            "minus-first",
            "replace-first",
            "reverse",
            "shuffle",
        ),
    )
    n: int = param(1, help="dimensions of an embedding that are changed", paper=1, low=1)
    tokens: Literal["people", "all"] = param(
        "people",
        help="which tokens: those of people's names where there are any, or all but the last",
        paper=["people", "all"],
        choices=("people", "all"),
    )
    finder: Literal["rules", "presidio"] = param(
        "rules", help="what finds people's names", choices=("rules", "presidio")
    )
    sigma: float | None = param(
        None, help="strength; none tunes it", paper=[5.0, 50.0, 1e6], low=0.0, high=1e30
    )
    vector: bool = param(False, help="whether each of the n dimensions has a strength of its own")
    metric: Literal["accuracy", "probability"] = param(
        "probability",
        help="what the strength is tuned by: first choices or probability of the facts' tokens",
        paper="accuracy",
        choices=("accuracy", "probability"),
    )
    surrogate: float | None = param(
        None,
        help="what a model that never knew scores; none measures it on invented people",
        paper=0.25,
        low=0.0,
        high=1.0,
    )
    slack: float = param(
        0.02, help="how far above that a score may be", paper=0.02, low=0.0, high=1.0
    )
    start: float = param(0.1, help="first strength that is tried", paper=0.1, low=1e-6)
    least: float = param(0.1, help="smallest strength", paper=0.1, low=0.0)
    eta: float = param(100.0, help="step size of the tuning", paper=100, low=0.0)
    steps: int = param(10, help="most steps of the tuning", paper=10, low=0)
    rows: int = param(64, help="most rows it is tuned on", low=1)


def entry(target: Target, params: Params, means: "Means") -> dict[str, Any]:
    """Nothing: all that is known of a target lies in the weights of the gate.

    Raises:
        ExpungeError: ``E-SERVE-005`` for a target that says neither what is asked nor a name.
    """
    if not any(text.strip() for text in _prompts(target)):
        raise ExpungeError(
            "E-SERVE-005",
            "A target without a prompt or a name, of which the gate can learn nothing.",
            "rows that ask something, or names.",
            "Give rows with prompts, or aliases.",
        )
    return {}


def shared(targets: Sequence[Target], params: Params, means: "Means") -> Shared:
    """Learn the gate, set its threshold, tune the strength."""
    if not targets:
        return Shared()
    forget = list(dict.fromkeys(text for one in targets for text in _prompts(one)))
    keep = _kept(targets, set(forget), means)
    gate = fit([*forget, *keep], [1] * len(forget) + [0] * len(keep))
    settings = {"tau": _tau(forget, keep, params), **_strength(targets, params, means)}
    return Shared(settings, gate.arrays(PREFIX))


def enter(exchange: "Exchange", desk: "Desk") -> "Exchange":
    """Let every exchange pass; what the ladder said of it is remembered for the model."""
    from expunge.engine.guarding.inside import looked_at

    if desk.params.named:
        looked_at(exchange, desk)
    return exchange


def attach(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", desk: "Desk"
) -> "Attached":
    """Put the corruption into a model."""
    from expunge.engine.runtime import Attached
    from expunge.guards.eco.serving import Serving

    return Attached(Serving(tokenizer, desk).put_in(model))


def fired(exchange: "Exchange", desk: "Desk") -> "list[Hit]":
    """What makes the guard fire for an exchange: targets that are named, and the classifier."""
    from expunge.guards.eco.serving import hits

    return hits(exchange.texts, desk)


def _prompts(target: Target) -> tuple[str, ...]:
    """What the gate learns a target by."""
    return (*target.questions, *target.names)


def _kept(targets: Sequence[Target], forget: set[str], means: "Means") -> list[str]:
    """What the gate learns to let through.

    Questions in the very words of the targets' about people nobody knows are among it: else the
    gate would take the words for what is to be kept back, and not the names.
    """
    rows = [row for target in targets for row in target.rows if row.text is None]
    drawn = generator(means.seed, "eco", "strangers").permutation(len(rows))[:STRANGERS]
    some = [rows[place] for place in sorted(drawn.tolist())]
    strangers = placebo(some, max(len(some), FEWEST), means.seed)
    neutral = [row.text or "" for row in neutral_rows(NEUTRAL)]
    told = [text for row in (*means.retain, *strangers) for text in prompts_of(row)]
    names = [name for row in strangers for name in row.names]
    return [text for text in dict.fromkeys([*told, *names, *neutral]) if text not in forget]


def _tau(forget: Sequence[str], keep: Sequence[str], params: Params) -> float:
    """The threshold, on prompts to be let through that the classifier has not seen."""
    if params.tau is not None:
        return params.tau
    import numpy as np

    halves = [keep[0::2], keep[1::2]]
    if not all(halves):
        return 0.5
    scores = []
    for seen, other in (halves, halves[::-1]):
        gate = fit([*forget, *seen], [1] * len(forget) + [0] * len(seen))
        scores.append(gate.probability(other))
    return float(np.quantile(np.concatenate(scores), 1 - params.q, method="higher"))


def _strength(targets: Sequence[Target], params: Params, means: "Means") -> dict[str, Any]:
    """The strength, and what it was tuned by.

    Raises:
        ExpungeError: ``E-USE-007`` when it is to be tuned and there is no model.
    """
    from expunge.engine.guarding.knowing import rows_of
    from expunge.guards.eco.operators import STRONG

    if params.sigma is not None or params.operator not in STRONG:
        return {"sigma": [params.sigma or 0.0]}
    rows = rows_of(targets, params.rows)
    if not rows:
        return {"sigma": None}
    if means.subject is None:
        raise ExpungeError(
            "E-USE-007",
            "eco is to tune its strength, and the model is not in this process.",
            "the model it is to be tuned on, or a strength.",
            "Fit it in front of a local model, or give --set sigma=X.",
        )
    from expunge.guards.eco.serving import tuned_on

    return tuned_on(rows, targets, params, means)
