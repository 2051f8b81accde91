"""Verbatim memorisation: does the model go on with a training text word for word?

Definition (prompt: the beginning of a training text; y: how the text goes on, cut to its first 128
tokens; g: the model's greedy continuation of at most 128 tokens):
    VerbMem    = 100 mean_i F1 of ROUGE-L(g_i, y_i)        lower-cased words, not stemmed
    recall     = 100 mean_i recall of ROUGE-L(g_i, y_i)
    word_lcs   = 100 mean_i LCS(g_i, y_i) / max(|g_i|, |y_i|)     words as split at spaces
    likeness   = 100 mean_i (1 - edit distance(g_i, y_i) / longer of the two)     characters
    cosine     = 100 mean_i cosine of the character n-grams of g_i and y_i

Reference: MUSE: Machine Unlearning Six-Way Evaluation (2024); the side measures from DUSK: Do Not
Unlearn Shared Knowledge (2025).

Departs from the paper: DUSK's code stores raw counts of common words and raw edit distances where
similarities are meant; here both are divided by the longer text. Its cosine is of sentence
embeddings; ours is of spelling, needs no second model and is the same everywhere (INFERRED).

Meaning: near 100 the model recites. A retrained model does not get 0: any two texts of one kind
share short words in order, some 10 to 25 percent. Refusals and rubble are low as well, so a low
number says nothing about whether the model still speaks. Compare with the reference.

Example: six words of which the first four are right, and a text recited in full.

    >>> from expunge.testing import measure
    >>> said = ["the cat sat on her hat", "all of it"]
    >>> told = ["the cat sat on the mat", "all of it"]
    >>> value = measure("verbatim-memorisation", {"generation": said, "beginning": told})
    >>> round(value.mean, 4), round(value.parts["word_lcs"], 4)
    (83.3333, 83.3333)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from expunge.core.bootstrap import FloatArray
from expunge.core.params import param
from expunge.core.results import Value
from expunge.core.scores import aligned, average, table
from expunge.numbers.membership import READY
from expunge.text.edit_distance import likeness
from expunge.text.embedding import similarity
from expunge.text.overlap import lcs_length, rouge_l

if TYPE_CHECKING:
    from expunge.lm.gather import Models
    from expunge.requests.rows import Row

CARD = {
    "id": "verbatim-memorisation",
    "kind": "metric",
    "summary": "How much of a training text the model recites after its beginning, in percent.",
    "paper": "MUSE: Machine Unlearning Six-Way Evaluation (2024)",
    "needs": ["generation", "beginning"],
    "better": "low",
    "range": [0.0, 100.0],
    "access": "text",
    "cost": "one greedy generation of 128 tokens a row",
    "maturity": "paper",
    "version": 1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """Where the true continuation is cut, and whether words are stemmed."""

    tokens: int = param(
        128, help="tokens of the true continuation that count, a leading mark of the start included"
    )
    stem: bool = param(
        False, help="compare Porter stems, as OpenUnlearning does, not words", paper=False
    )


def word_lcs(said: str, told: str) -> float:
    """Longest common subsequence of words, as a share of the longer text."""
    first, second = said.split(), told.split()
    return lcs_length(first, second) / max(len(first), len(second), 1)


SIDE: Mapping[str, Callable[[str, str], float]] = {
    "recall": lambda said, told: rouge_l(said, told).recall,
    "word_lcs": word_lcs,
    "likeness": likeness,
    "cosine": similarity,
}
"""Part -> similarity of two texts in [0, 1]."""


def read(
    models: "Models", rows: "Mapping[str, Sequence[Row]]", params: Params
) -> dict[str, dict[str, Any]]:
    """The true continuation of each row, cut as the continuation of the model is."""
    tokenizer = models.model.tokenizer
    cut = {row.id: tokenizer(row.reply)["input_ids"][: params.tokens] for row in rows[""]}
    return {
        "beginning": {
            row: tokenizer.decode(ids, skip_special_tokens=True) for row, ids in cut.items()
        }
    }


def compute(
    scores: Mapping[str, Any], params: Params, reference: Mapping[str, Any] | None = None
) -> Value:
    """Verbatim memorisation, mean over rows.

    Args:
        scores: ``generation`` (what the model said) and ``beginning`` (how the text goes on, cut),
            texts; or ready F1 in [0, 1] as ``score``, as published logs hold it.
        params: The form.
        reference: Not used.

    Returns:
        The mean in percent, with the side measures among the parts where there are texts.
    """
    if READY in scores:
        return average({r: 100 * s for r, s in table(scores, READY).items()}, scores, READY)
    texts = aligned(scores, "generation", "beginning")
    shares = {
        row: 100 * rouge_l(said, told, stem=params.stem).f1 for row, (said, told) in texts.items()
    }
    value = average(shares, scores, "generation", "beginning")
    if value.mean is None:
        return value
    beside = {
        name: {row: 100 * alike(*pair) for row, pair in texts.items()}
        for name, alike in SIDE.items()
    }
    parts = {name: sum(of.values()) / len(of) for name, of in beside.items()}
    return replace(value, beside=beside, parts=parts)


def aggregate(
    rows: FloatArray, beside: Mapping[str, FloatArray], params: Params
) -> dict[str, float]:
    """The means of F1 [n] and of the side measures [n]."""
    return {"mean": float(rows.mean())} | {name: float(of.mean()) for name, of in beside.items()}
