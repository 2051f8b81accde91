"""Texts as vectors: how much two texts resemble one another in wording.

Definition (g runs over the 3-, 4- and 5-grams of characters of each word, its edges marked):
    count_d(t) = #{g in t : hash(g) mod D = d}        D = 16384
    e(t)       = sqrt(count(t)) / |sqrt(count(t))|
    cosine     = e(a) . e(b)                          in [0, 1]; 1 for the same words, any order

No weights, no download, the same on every machine. It knows spelling and not meaning: "physician"
and "doctor" are as far apart as any two words. Where meaning counts, `embedder` takes a static
embedding model from a local folder.

Reference: Feature Hashing for Large Scale Multitask Learning (2009); Enriching Word Vectors with
Subword Information (2017).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from expunge.core.errors import ExpungeError
from expunge.text.normalise import all_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]
    Embedder = Callable[[Sequence[str]], Vector]

DIMENSIONS = 1 << 14
"""Enough that two different sentences hardly ever share a place by accident."""

GRAMS = (3, 4, 5)
"""Lengths of the pieces of a word."""

HASHING = "hashing"
"""Name of the embedder of this file."""


def embed(text: str) -> "Vector":
    """The vector of a text.

    Args:
        text: Any text; case, punctuation and the order of the words make no difference.

    Returns:
        [16384], of length 1; all zeros for a text without words.
    """
    import numpy as np

    counts = Counter(crc32(gram.encode()) % DIMENSIONS for gram in _grams(text))
    vector = np.zeros(DIMENSIONS)
    vector[list(counts)] = np.sqrt(list(counts.values()))
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def similarity(a: str, b: str) -> float:
    """Cosine of two texts, in [0, 1].

    Example:
        >>> round(similarity("Mira was born in Paris.", "In Paris Mira was born"), 6)
        1.0
        >>> similarity("alder", "birch")
        0.0
    """
    return min(1.0, float(embed(a) @ embed(b)))


def embedder(source: str = HASHING) -> "Embedder":
    """What makes vectors of texts.

    Args:
        source: ``hashing``, or the local folder of a static embedding model (``model2vec``).

    Returns:
        Texts -> [n, d] with rows of length 1.

    Raises:
        ExpungeError: ``E-MODEL-001`` when there is no such folder, ``E-REQ-001`` when the package
            that reads it is not installed.
    """
    if source == HASHING:
        return _hashed
    if not Path(source).is_dir():
        raise ExpungeError(
            "E-MODEL-001",
            f"{source!r} as a model of sentences.",
            f"{HASHING!r}, or the folder of a static embedding model.",
            "Give the folder the model was saved to.",
        )
    return _static(source)


def _hashed(texts: Sequence[str]) -> "Vector":
    import numpy as np

    return np.array([embed(text) for text in texts]).reshape(-1, DIMENSIONS)


def _static(folder: str) -> "Embedder":
    import numpy as np

    try:
        package = import_module("model2vec")
    except ImportError as error:
        raise ExpungeError(
            "E-REQ-001",
            "A folder with a model of sentences, and no package that reads it.",
            "the package model2vec.",
            "Install it with: pip install model2vec",
        ) from error
    model = package.StaticModel.from_pretrained(folder)

    def embed_all(texts: Sequence[str]) -> "Vector":
        vectors = np.asarray(model.encode(list(texts)), dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / lengths.clip(1e-12), dtype=np.float64)

    return embed_all


def _grams(text: str) -> Iterator[str]:
    for word in all_words(text):
        marked = f"<{word}>"
        for size in GRAMS:
            yield from (marked[at : at + size] for at in range(len(marked) - size + 1))
