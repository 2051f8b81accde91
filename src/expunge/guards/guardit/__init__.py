"""GUARD-IT: on prompts near a target, the residual stream is pushed away from its direction.

Definition (texts "question, new line, answer"; e(x) a sentence vector of length 1; h(x) the mean
over content tokens of the output of block l = L/4; C_k the groups of a target's texts):
    groups     k-means on e, as many as the best silhouette says in [2, 20]
    mu_k, mu_r mean h over C_k, over what is to be kept;  rho_k, rho_r mean |h|
    direction  orthogonal       v = mu_k - (mu_k . mu_r) / (|mu_r|^2 + eps) mu_r
               diff_means       v = mu_k - mu_r
               orth_diff_means  both, one after the other
    scaling    activation_norm  v_k = v / (|v| + eps) (rho_k + rho_r) / 2
    score      s_k = cos(e(prompt), mean_{C_k} e)
    mode       threshold           A = {k : s_k > tau}, v = mean_A v_k; A empty: untouched
               weighted_threshold  v = sum_A s_k v_k / sum_A s_k
               best                v = v_argmax, whatever the score
               soft                v = sum_k s_k^+ v_k / sum_k s_k^+
               ratio               v = v_argmax where max_k s_k / cos(e(prompt), centre kept) > tau
               bm25                as threshold, s_k the share of the prompt's words' weight in C_k
    veto       nothing where cos(e(prompt), centre kept) > retain_veto
    push       h' = (h - a v) |h| / |h - a v| at every position of block l, decoding steps included
    tau        quantile: the (1 - q)-quantile of max_k s_k over prompts to be let through
               youden:   argmax over 200 values of recall_forget - lambda fpr_retain
    Each target brings groups of its own: one more is appended, one that goes takes its rows along,
    and nothing else is computed again but the threshold. Where the gate is silent, or a = 0, logits
    are bit for bit those of the model.

    This suppresses, it does not delete: the weights are untouched, and whoever runs them without
    the guard, or asks so that the gate stays silent, gets all of it.

Reference: Inference-Time Machine Unlearning via Gated Activation Redirection, 2026.

Departs from the paper:
    The push preserves norms and is no rotation by a set angle: the angle depends on |h|. Sentence
    vectors are hashed n-grams, or a static embedding model from a folder (``embedder=DIR``), in the
    place of MiniLM; with them tau must be calibrated, 0.55 is MiniLM's. The code scores bm25 by a
    softmax over groups, which is 1 wherever there is one group; here it is a share of the highest
    possible score. A group's score is its highest over the question and the whole dialogue.
    INFERRED: what a=none chooses, among both signs: the smallest |a| that makes the model score no
    higher on the targets' facts than on those of invented people, or, where none does, the one with
    the lowest score; a target of fewer than three different texts is one group; ``regroup``, after
    which groups of many targets are formed anew, since the mean over many active groups shrinks;
    without rows to be kept, sentences of general knowledge stand in.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.params import param
from expunge.core.rng import derive
from expunge.data.retain import choose_retain
from expunge.engine.guarding.fitting import Shared
from expunge.engine.guarding.targets import Target
from expunge.requests.rows import Row, Turn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.guarding.desk import Desk, Means
    from expunge.engine.guarding.exchange import Exchange
    from expunge.engine.guarding.ladder import Hit
    from expunge.engine.runtime import Attached
    from expunge.lm.subject import Subject

    Vector = npt.NDArray[np.float64]

CARD = {
    "id": "guardit",
    "kind": "guard",
    "summary": "Suppress (not delete): push the residual stream away from a target's direction on "
    "prompts near it.",
    "paper": "Inference-Time Machine Unlearning via Gated Activation Redirection (2026)",
    "needs": ["forget", "retain"],
    "access": "hidden states",
    "cost": "one sentence vector and one product with the centres of all groups a prompt, one sum "
    "a token; one forward pass over the texts of a target when it comes",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "stages": ["residual"],
    "place": "model",
    "fails": "closed",
}

MOST_KEPT = 512
"""Rows to be kept that are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """The groups, the gate, and the push."""

    layer: int | None = param(
        None,
        help="block whose output is pushed, negative from the top; none is a quarter of the depth",
        paper="L/4",
    )
    direction: Literal["orthogonal", "diff_means", "orth_diff_means"] = param(
        "orthogonal",
        help="which direction is a target's",
        paper="orthogonal",
        choices=("orthogonal", "diff_means", "orth_diff_means"),
    )
    scaling: Literal["activation_norm", "unit", "none"] = param(
        "activation_norm",
        help="length of the vectors",
        paper="activation_norm",
        choices=("activation_norm", "unit", "none"),
    )
    coefficient: float | None = param(
        None, help="how far it is pushed, of either sign (a); none chooses it", paper=[0, 1]
    )
    tried: tuple[float, ...] = param(
        (0.3, -0.3, 0.6, -0.6, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0, 3.0, -3.0),
        help="what coefficient=none chooses from",
    )
    metric: Literal["accuracy", "probability"] = param(
        "probability",
        help="what it is chosen by: first choices or probability of the facts' tokens",
        choices=("accuracy", "probability"),
    )
    slack: float = param(
        0.02, help="how far above facts of invented people a score may be", low=0.0, high=1.0
    )
    rows: int = param(64, help="most rows it is chosen on", low=1)
    mode: Literal["threshold", "weighted_threshold", "best", "soft", "ratio", "bm25"] = param(
        "threshold",
        help="which groups push, and how much each",
        paper="threshold",
        choices=("threshold", "weighted_threshold", "best", "soft", "ratio", "bm25"),
    )
    tau: float | None = param(
        None, help="score above which a group is active; none calibrates it", paper=0.55
    )
    calibrate: Literal["quantile", "youden"] = param(
        "quantile",
        help="how: by what is let through alone, or by recall against false alarms",
        paper=["youden", "quantile"],
        choices=("quantile", "youden"),
    )
    q: float = param(
        0.05, help="share of prompts to be let through that may fire", paper=0.05, low=0, high=1
    )
    false_weight: float = param(
        1.0, help="weight of false alarms for calibrate=youden (lambda)", paper=1.0, low=0.0
    )
    retain_veto: float = param(
        0.0,
        help="likeness to what is kept above which nothing is pushed; 0 switches it off",
        paper=0.0,
        low=0.0,
        high=1.0,
    )
    clusters: int = param(20, help="most groups of a target's texts", paper=20, low=1)
    regroup: int = param(
        0, help="groups of all targets above which they are formed anew; 0 never", low=0
    )
    embedder: str = param("hashing", help="sentence vectors: hashing, or a model's folder")


def entry(target: Target, params: Params, means: "Means") -> dict[str, Any]:
    """The groups of a target's texts: centres, mean activations and their norms; all of it sealed.

    Raises:
        ExpungeError: ``E-SERVE-005`` for a target without texts, ``E-USE-007`` without a model.
    """
    import numpy as np

    from expunge.guards.guardit.activations import mean_activations
    from expunge.guards.guardit.packed import packed
    from expunge.text.clusters import clustered
    from expunge.text.embedding import embedder

    turns, prompts = _turns(target), target.questions or target.names
    texts = [_text(turn) for turn in turns]
    if not any(text.strip() for text in texts):
        raise ExpungeError(
            "E-SERVE-005",
            "A target without any text: nothing to find its direction by.",
            "rows, or names.",
            "Give rows or aliases.",
        )
    embed = embedder(params.embedder)
    points = embed(texts)
    labels = clustered(points, params.clusters, derive(means.seed, "guardit", target.id))
    member = [labels == number for number in range(int(labels.max()) + 1)]
    hidden, norms = mean_activations(_subject(means), turns, params.layer)
    words = [_hashed(text, params, means) for text in texts]
    return {
        "sealed": {
            "counts": [int(own.sum()) for own in member],
            "centres": packed([points[own].mean(axis=0) for own in member]),
            "hidden": packed([hidden[own].mean(axis=0) for own in member]),
            "norms": [float(norms[own].mean()) for own in member],
            "terms": [
                dict(Counter(word for at in np.flatnonzero(own) for word in words[at]))
                for own in member
            ],
            "prompts": packed(embed(prompts)),
            "asked": [_hashed(prompt, params, means) for prompt in prompts],
        }
    }


def shared(targets: Sequence[Target], params: Params, means: "Means") -> Shared:
    """What is to be kept: mean activation and vectors; and the coefficient."""
    from expunge.guards.guardit.fitted import chosen, kept

    rows, origin = choose_retain(means.retain, ())
    subject = _subject(means)
    own, arrays = kept(rows[:MOST_KEPT], params, means, subject)
    settings = {**own, "retain": origin, "model": subject.digest}
    coefficient = params.coefficient
    if coefficient is not None or not targets:
        return Shared({**settings, "coefficient": coefficient or 0.0}, arrays)
    return Shared({**settings, **chosen(targets, settings, arrays, params, means)}, arrays)


def attach(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", desk: "Desk"
) -> "Attached":
    """Put the push into a model.

    Raises:
        ExpungeError: ``E-MODEL-011`` for a model of another width than the guard was fitted to.
    """
    from expunge.engine.runtime import Attached
    from expunge.guards.guardit.board import Serving

    return Attached(Serving(tokenizer, desk).put_in(model))


def fired(exchange: "Exchange", desk: "Desk") -> "list[Hit]":
    """The targets whose groups are active for an exchange, the nearest first."""
    from expunge.guards.guardit.board import hits

    return hits(exchange.texts, desk)


def _turns(target: Target) -> list[Turn]:
    """What is said of a target, in all wordings; of one without rows its names."""
    turns = [turn for row in target.rows for turn in _wordings(row)]
    return turns or [Turn("", name, running=True) for name in target.names]


def _wordings(row: Row) -> Sequence[Turn]:
    return (row.training,) if row.text is not None else row.turns


def _text(turn: Turn) -> str:
    asked = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    return f"{asked.strip()}\n{turn.completion.strip()}".strip()


def _hashed(text: str, params: Params, means: "Means") -> list[str]:
    """The words of a text by keyed hash, for mode=bm25."""
    if params.mode != "bm25":
        return []
    from expunge.engine.guarding.rungs.exact import hasher
    from expunge.text.normalise import words

    hashed = hasher(means.secret)
    return [hashed(word) for word in words(text)]


def _subject(means: "Means") -> "Subject":
    if means.subject is None:
        raise ExpungeError(
            "E-USE-007",
            "guardit looks into the model, and the model is not in this process.",
            "the model that is to be guarded.",
            "Fit the guard in front of a local model.",
        )
    return means.subject
