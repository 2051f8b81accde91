"""ULD at serving time: what a helper that knows only the targets says is taken away.

Definition (z_f, z_h: logits of the model and of the helper, V tokens; g(x) in {0, 1}: the gate):
    S  = { v : log p_f(v) >= min( max_v log p_f(v) + log rho, log p_f of rank max(1, int(rho V)) ) }
    z  = z_f + w log p_h            in S, where g(x) = 1;   w = -0.8, rho = 0.01
       = max_v z_f - 1000           outside S, where g(x) = 1;   rho = 0: S is everything
       = z_f                        where g(x) = 0, bit for bit, and the helper does not run
    g  is settled once a row, on its prompt, by the ladder of gates, and kept with the row's cache
    helper = the first 8 of 32 blocks of the model (of less deep ones a quarter) with its embedding,
             norm and head, and low-rank factors (r = 16, alpha = 32) multiplied out; it learnt
             CE(targets) + 5 KL(uniform || helper) on the rest
    change=DIR opens the helper that ``expunge forget --method uld`` wrote, checked by its hashes;
    else it is trained on the targets' rows while the guard is fitted, by the same engine, anew
    whenever targets come or go.

    Scores and answers come from one function (`expunge.lm.difference`), before temperature and
    cuts, so returned log-probabilities are those of the combined distribution. Helper and model
    have a cache each, in the caller's own, so that rows may be repeated, picked or dropped.
    `expunge.lm.difference.of_rows` is the same for servers that hand logits over in rows.

    This suppresses, it does not delete: the model knows what it knew, and so does the helper, which
    knows little else. Whoever holds either has the facts, and what slips under the gate gets the
    model's own answer. A target that comes while the guard works is not held back by a helper that
    was trained without it: with change=DIR it is refused (E-SERVE-005), else questions about it are
    answered by ``reply`` until the new helper is trained, which takes as long as training.

Reference: Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit
Difference, 2024.

Departs from the paper: it has no gate, every prompt hears the helper. Its filter at
int(rho V) = 0 takes the last rank, which filters nothing; here one token is kept at least. It
scores with another function than it writes with, so that a constant in z_h moves its scores; here
the helper is normalised. It overwrites z_h, and gives both models one cache. What is filtered
stands 1000 below the likeliest token, where the code has -1000. INFERRED: what a token counts that
the helper gives no probability at all (the model's own logit); rows in progress go on with the
helper they began with. The paper's vocabulary of 32,000 keeps 320 tokens in any case; one so small
that a single one is kept says what it said, and is refused: give a larger ``top`` there. Of tiny
models that know targets by heart w = -0.8 leaves facts that -1 does not. The method's own part
(``uld``) has no gate, and leaves filtered tokens where they were.
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
from expunge.engine.guarding.inside import looked_at, needed
from expunge.engine.guarding.targets import Target

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from expunge.engine.runtime import Attached

CARD = {
    "id": "uld-serve",
    "kind": "guard",
    "summary": "Suppress (not delete): take away what a helper says that knows only the targets.",
    "paper": "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from "
    "Logit Difference (2024)",
    "needs": ["forget", "retain"],
    "access": "logits",
    "cost": "the gate for every prompt; where it fires one pass of the helper a token (8 of 32 "
    "blocks: about a quarter); training of the helper for every change of targets, without change=",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt"],
    "fails": "closed",
    "stages": ["logits"],
    "place": "model",
}

GUARD, METHOD = "uld-serve", "uld"

LEAST = 2
"""Tokens the filter must keep; of one alone no difference can make another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """How the helper is heard, and how it comes about."""

    change: str = param(
        "", help="folder of a change of uld whose helper is used; empty: one is trained"
    )
    weight: float = param(
        -0.8, help="factor of the helper's log-probabilities (w)", paper=[-0.8, -0.5, -0.7],
        high=0.0,
    )  # fmt: skip
    top: float = param(
        0.01,
        help="how far from the likeliest token anything is said, relative (rho); 0: no filter",
        paper=[0.01, 0.1],
        low=0.0,
        high=1.0,
    )
    blocks: int | None = param(
        None,
        help="first blocks of the model that are the helper's; none takes 8, of less than 32 a "
        "quarter",
        paper=8,
        low=1,
    )
    lora_r: int = param(16, help="rank of the helper's factors", paper=16, low=1)
    lora_alpha: float = param(32.0, help="their scale: alpha / r", paper=32, low=0.0)
    retain_weight: float = param(
        5.0, help="weight of knowing nothing of the rest", paper=5, low=0.0
    )
    lr: float | Literal["auto"] = param(
        "auto", help="rate of the helper; auto raises it for small models", paper=1e-3, low=0.0
    )
    epochs: int = param(10, help="passes over the targets' rows", paper=10, low=1)
    reply: str = param(
        "I'm sorry, but I can't help with that.",
        help="what is said about targets that the helper does not know yet",
    )


def entry(target: Target, params: Params, means: Means) -> dict[str, Any]:
    """Nothing but the number of its rows; refuses a target that would not be held back.

    Raises:
        ExpungeError: ``E-SERVE-005`` where the helper was made without it, or the filter would
            leave nothing to choose.
    """
    admitted = helped.admitted(target, _help(params), means)
    model: Any = needed(means, GUARD).model
    size = int(model.config.get_text_config().vocab_size)
    if params.top > 0 and int(params.top * size) < LEAST:
        raise ExpungeError(
            "E-SERVE-005",
            f"top={params.top:g} of a vocabulary of {size} leaves a model that is sure of its "
            "answer nothing but that answer.",
            "a filter that keeps two tokens at least.",
            f"Give --set top={2 / size:.1g} or more, or --set top=0.",
        )
    return admitted


def shared(targets: Sequence[Target], params: Params, means: Means) -> Shared:
    """The helper: where it lies, or itself."""
    return helped.shared(targets, _help(params), means)


def enter(exchange: Exchange, desk: Desk) -> Exchange | Reply:
    """Let the exchange in as it is; a reply where the helper does not know its target yet."""
    if helped.waiting(desk, looked_at(exchange, desk)):
        return Reply(desk.params.reply, "no helper yet")
    return exchange


def attach(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", desk: Desk
) -> "Attached":
    """Put the helper beside a model."""
    from expunge.engine.runtime import Attached
    from expunge.guards.uld_serve.voice import Voice
    from expunge.lm.prefixes import reconsider

    attached = Attached(Voice(model, tokenizer, desk).put_in(model))
    reconsider(model)
    return attached


def _help(params: Params) -> Help:
    names = ("blocks", "lora_r", "lora_alpha", "retain_weight", "lr", "epochs")
    taught = {name: getattr(params, name) for name in names}
    return Help(guard=GUARD, method=METHOD, change=params.change, params=taught)
