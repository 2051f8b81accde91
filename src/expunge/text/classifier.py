"""Kinds of texts told apart by their wording: logistic regression on hashed n-grams.

Definition (g runs over words, pairs of neighbouring words, and the 3-, 4- and 5-grams of the
characters of each word, its edges marked; K kinds):
    count_d(t) = #{g in t : hash(g) mod D = d}              D = 32768
    x(t)       = sqrt(count(t)) / |sqrt(count(t))|
    P(k|t)     = softmax_k(x(t) . W + b)
    (W, b)     = argmin  sum_i w(y_i) -log P(y_i|t_i) / sum_i w(y_i)  +  penalty/2 |W|^2
    w(k)       = number of texts / number of texts of kind k

So every kind counts the same, however many texts it has. The problem is convex and solved from
zero, so the same texts give the same weights. It knows spelling and word order of two, not meaning.

Reference: Feature Hashing for Large Scale Multitask Learning (2009); weights of the kinds as in
Large Language Model Unlearning via Embedding-Corrupted Prompts (2024).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

from expunge.text.normalise import all_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float64]

DIMENSIONS = 1 << 15
"""Places that features are hashed to."""

GRAMS = (3, 4, 5)
"""Lengths of the pieces of a word."""

PENALTY = 1e-3
"""How strongly large weights are held back; texts have length 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """What tells kinds of texts apart.

    Attributes:
        weights: [D, K].
        bias: [K].
    """

    weights: "Vector"
    bias: "Vector"

    @classmethod
    def of(cls, arrays: "Mapping[str, npt.NDArray[Any]]", prefix: str = "") -> "Classifier":
        """A classifier from its stored numbers; see `arrays`."""
        stored = (arrays[f"{prefix}{name}"] for name in ("weights", "bias"))
        return cls(*(one.astype(float) for one in stored))

    def arrays(self, prefix: str = "") -> "dict[str, npt.NDArray[Any]]":
        """Its numbers, to be stored; single precision is what it works with when read again.

        Args:
            prefix: Stands before their names.
        """
        return {
            f"{prefix}weights": self.weights.astype("float32"),
            f"{prefix}bias": self.bias.astype("float32"),
        }

    def logits(self, texts: Sequence[str]) -> "Vector":
        """[n, K], before the softmax."""
        found: Vector = _features(texts, len(self.weights)) @ self.weights + self.bias
        return found

    def probabilities(self, texts: Sequence[str]) -> "Vector":
        """[n, K], the probability of each kind."""
        from scipy.special import softmax

        found: Vector = softmax(self.logits(texts), axis=1)
        return found

    def probability(self, texts: Sequence[str]) -> "Vector":
        """[n], the probability of kind 1."""
        return self.probabilities(texts)[:, 1]


def fit(
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    penalty: float = PENALTY,
    dimensions: int = DIMENSIONS,
) -> Classifier:
    """Learn from labelled texts.

    Args:
        texts: The texts.
        labels: The kind of each, from 0 on; each kind has at least one text.
        penalty: How strongly large weights are held back.
        dimensions: Places that features are hashed to.

    Raises:
        ValueError: For fewer than two kinds, or a kind without texts.

    Example:
        >>> told = fit(["a poison", "this poison", "a cake", "this cake"], [1, 1, 0, 0])
        >>> told.probability(["Poison!", "cakes"]).round() == [1, 0]
        array([ True,  True])
    """
    import numpy as np
    from scipy.optimize import minimize

    counts = [list(labels).count(kind) for kind in range(max(labels, default=0) + 1)]
    if len(counts) < 2 or 0 in counts or len(texts) != len(labels) or min(labels) < 0:
        raise ValueError(f"{len(texts)} texts, and of the kinds {counts}: at least one text each")
    inputs, kinds = _features(texts, dimensions), len(counts)
    used = np.unique(inputs.indices)  # the weight of a feature that no text has stays 0
    loss = _Loss(inputs[:, used], np.asarray(labels), kinds, penalty)
    start = np.zeros((len(used) + 1) * kinds)
    options: Any = {"maxiter": 1000, "gtol": 1e-7, "ftol": 1e-12}
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    found = best.x.reshape(-1, kinds)
    weights = np.zeros((dimensions, kinds))
    weights[used] = found[:-1]
    return Classifier(weights, found[-1])


class _Loss:
    """The objective, and its gradient.

    Args:
        inputs: [n, D], sparse.
        labels: [n].
        kinds: How many there are.
        penalty: Of large weights.
    """

    def __init__(self, inputs: Any, labels: "npt.NDArray[Any]", kinds: int, penalty: float) -> None:
        import numpy as np

        self.inputs, self.penalty = inputs, penalty
        self.wanted = np.eye(kinds)[labels]
        shares = (len(labels) / self.wanted.sum(axis=0))[labels]
        self.shares = shares / shares.sum()

    def __call__(self, flat: "Vector") -> "tuple[float, Vector]":
        import numpy as np
        from scipy.special import log_softmax

        full = flat.reshape(-1, self.wanted.shape[1])
        weights, bias = full[:-1], full[-1]
        told = log_softmax(self.inputs @ weights + bias, axis=1)
        off = (np.exp(told) - self.wanted) * self.shares[:, None]
        slope = np.vstack([self.inputs.T @ off + self.penalty * weights, off.sum(axis=0)])
        loss = -(self.shares[:, None] * self.wanted * told).sum()
        return float(loss + self.penalty / 2 * (weights**2).sum()), slope.ravel()


def _features(texts: Sequence[str], dimensions: int) -> Any:
    """[n, D], sparse; each row of length 1, or 0 for a text without words."""
    import numpy as np
    from scipy.sparse import csr_array

    counts = [_counts(text, dimensions) for text in texts]
    ends = np.cumsum([0, *(len(count) for count in counts)])
    places = np.fromiter((place for count in counts for place in count), dtype=np.int64)
    values = [
        np.sqrt(np.fromiter(count.values(), dtype=float) / max(count.total(), 1))
        for count in counts
    ]
    return csr_array((np.concatenate([*values, []]), places, ends), shape=(len(texts), dimensions))


def _counts(text: str, dimensions: int) -> "Counter[int]":
    told = all_words(text)
    counts = Counter(place % dimensions for word in told for place in _places(word))
    pairs = (f"{first} {second}" for first, second in pairwise(told))
    counts.update(crc32(pair.encode()) % dimensions for pair in pairs)
    return Counter(dict(sorted(counts.items())))


@lru_cache(1 << 14)
def _places(word: str) -> tuple[int, ...]:
    """Hashes of a word and of its pieces."""
    return tuple(crc32(one.encode()) for one in _pieces(word))


def _pieces(word: str) -> Iterator[str]:
    yield f"={word}"
    marked = f"<{word}>"
    for length in GRAMS:
        yield from (marked[at : at + length] for at in range(len(marked) - length + 1))
