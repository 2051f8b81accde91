"""What all targets share: what is to be kept, and how far to push."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array

from expunge.core.rng import generator
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.knowing import Ruler, rows_of
from expunge.engine.guarding.rungs.exact import hasher
from expunge.engine.guarding.targets import Target
from expunge.guards.guardit.activations import block_of, mean_activations
from expunge.guards.guardit.board import Fitted, kept_of, reads_of
from expunge.guards.guardit.gate import Gate
from expunge.lm.subject import Subject
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row
from expunge.text.embedding import embedder
from expunge.text.normalise import words

if TYPE_CHECKING:
    from expunge.engine.guarding.desk import Arrays
    from expunge.guards.guardit import Params


def kept(
    rows: Sequence[Row], params: "Params", means: Means, subject: Subject
) -> "tuple[dict[str, Any], Arrays]":
    """Means over rows to be kept, and the vectors of their prompts."""
    embed = embedder(params.embedder)
    hidden, norms = mean_activations(subject, [row.training for row in rows], params.layer)
    asked = [prompt for row in rows for prompt in prompts_of(row)]
    prompts = csr_array(embed(asked).astype(np.float32))
    prompts.sort_indices()
    centre = embed([f"{row.turn.prompt}\n{row.reply}" for row in rows]).mean(axis=0)
    hashed = hasher(means.secret)
    settings = {
        "norm": float(norms.mean()),
        "width": int(hidden.shape[1]),
        "block": block_of(subject.model, params.layer),
        "asked": [[hashed(word) for word in words(text)] for text in asked]
        if params.mode == "bm25"
        else [],
    }
    arrays = {
        "hidden": hidden.mean(axis=0).astype(np.float32),
        "centre": (centre / max(float(np.linalg.norm(centre)), 1e-12)).astype(np.float32),
        "prompts.values": prompts.data,
        "prompts.places": prompts.indices.astype(np.int32),
        "prompts.starts": prompts.indptr.astype(np.int32),
    }
    return settings, arrays


def chosen(
    targets: Sequence[Target],
    settings: Mapping[str, Any],
    arrays: "Arrays",
    params: "Params",
    means: Means,
) -> dict[str, Any]:
    """The coefficient: the smallest, of either sign, that hides the facts of some targets.

    Measured on the rows the targets brought, with the gate that they make.
    """
    from expunge.guards.guardit import entry

    assert means.subject is not None  # noqa: S101
    order = generator(means.seed, "guardit", "chosen").permutation(len(targets))[: params.rows]
    some = [targets[at] for at in sorted(order.tolist())]
    rows = rows_of(some, params.rows)
    if not rows:
        return {"coefficient": max(params.tried, key=lambda a: (abs(a), a))}
    reads = reads_of((target.id, entry(target, params, means)) for target in some)
    gate = Gate(reads, kept_of(settings, arrays), params, means.secret, means.seed)
    ruler = Ruler(means.subject, rows, params.metric)
    stranger, tokenizer = ruler.stranger(means.seed), means.subject.tokenizer
    scores: dict[float, float] = {}
    for a in sorted(params.tried, key=lambda a: (abs(a), -a)):
        scores[a] = ruler.known(Fitted(tokenizer, gate, a, settings))
        if scores[a] <= stranger + params.slack:
            break
    best = min(scores, key=lambda a: (scores[a], abs(a)))
    return {
        "coefficient": best,
        "known": scores[best],
        "stranger": stranger,
        "is_reached": scores[best] <= stranger + params.slack,
    }
