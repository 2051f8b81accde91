"""Which groups of targets a text is near, and how much of each one's direction it gets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array, vstack

from expunge.core.rng import derive
from expunge.engine.guarding.rungs.exact import hasher
from expunge.guards.guardit.directions import direction, scaled
from expunge.guards.guardit.packed import unpacked
from expunge.text.clusters import kmeans
from expunge.text.embedding import embedder
from expunge.text.normalise import words

if TYPE_CHECKING:
    import numpy.typing as npt

    from expunge.guards.guardit import Params

    Vector = npt.NDArray[np.float64]

K1, B = 1.5, 0.75
"""Constants of BM25."""

GRID = 200
"""Thresholds that calibrate=youden tries."""

TOGETHER = 64
"""Prompts that are scored at once."""

Terms = Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Texts of one target that resemble one another.

    Attributes:
        target: Its id.
        count: How many texts.
        centre: [1, d_e], sparse: their mean vector.
        hidden: [d], their mean activation.
        norm: Mean norm of their activations.
        terms: Hashed words -> how often; empty unless mode=bm25.
    """

    target: str
    count: int
    centre: Any
    hidden: "Vector"
    norm: float
    terms: Terms


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What is stored of one target.

    Attributes:
        groups: Of its texts.
        prompts: [n, d_e], sparse: vectors of what its rows ask.
        asked: Hashed words of what its rows ask; empty unless mode=bm25.
    """

    groups: Sequence[Group]
    prompts: Any
    asked: Sequence[Sequence[str]]

    @classmethod
    def of(cls, target: str, entry: Mapping[str, Any]) -> "Read":
        """An entry, read."""
        told = entry["sealed"]
        centres, hidden = unpacked(told["centres"]), unpacked(told["hidden"]).astype(float)
        counts, norms, terms = told["counts"], told["norms"], told["terms"]
        groups = [
            Group(target, counts[k], csr_array(centres[k : k + 1]), hidden[k], norms[k], terms[k])
            for k in range(len(counts))
        ]
        return cls(groups, csr_array(unpacked(told["prompts"])), told["asked"])


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What is known of what is to be let through.

    Attributes:
        hidden: [d], mean activation.
        norm: Mean norm of the activations.
        prompts: [n, d_e], sparse: vectors of the prompts.
        centre: [d_e], of length 1: the mean direction of the texts.
        asked: Hashed words of the prompts; empty unless mode=bm25.
    """

    hidden: "Vector"
    norm: float
    prompts: Any
    centre: "Vector"
    asked: Sequence[Sequence[str]]


class Gate:
    """The gate over the targets of one moment.

    Args:
        reads: What is stored of the targets.
        kept: What is to be let through.
        params: The guard's parameters.
        secret: Key of the hashes of words.
        seed: For groups that are formed anew.

    Attributes:
        groups: In the order of the vectors.
        vectors: [K, d], where each group's rows are pushed.
        threshold: Above which a score fires; -inf in modes that have none.
    """

    def __init__(
        self, reads: Sequence[Read], kept: Kept, params: "Params", secret: bytes, seed: int = 0
    ) -> None:
        self._kept, self._params = kept, params
        self._embed, self._hash = embedder(params.embedder), hasher(secret)
        self.groups = _regrouped([g for read in reads for g in read.groups], params, seed)
        hidden = np.array([group.hidden for group in self.groups])
        norms = np.array([group.norm for group in self.groups])
        self.vectors = scaled(
            direction(hidden, kept.hidden, params.direction), norms, kept.norm, params.scaling
        )
        self._centres = _unit(vstack([group.centre for group in self.groups]).tocsr())
        self._bm25 = Bm25([group.terms for group in self.groups])
        self.threshold = self._calibrated(reads)

    def weights(self, texts: Sequence[str]) -> "Vector | None":
        """[K], how much of each group's vector a prompt gets; None where the gate is silent.

        Args:
            texts: What to look at; a group's score is its highest over them.
        """
        scores = self.scores(texts)
        if scores is None:
            return None
        mode, threshold = self._params.mode, self.threshold
        if mode == "best":
            return _only(scores)
        if mode == "soft":
            found = scores.clip(min=0.0)
        elif mode == "ratio":
            found = _only(scores) * (scores.max() > threshold)
        else:
            active = scores > threshold
            found = scores * active if mode == "weighted_threshold" else active.astype(float)
        total = float(found.sum())
        return np.asarray(found / total, dtype=float) if total > 0 else None

    def scores(self, texts: Sequence[str]) -> "Vector | None":
        """[K], the highest score of each group over the texts; None where what is kept is nearer.

        That is, where the cosine to the centre of what is kept passes ``retain_veto``.
        """
        vectors = self._embed(texts)
        near = vectors @ self._kept.centre
        if self._params.retain_veto and float(near.max()) > self._params.retain_veto:
            return None
        asked = [self._words(text) for text in texts] if self._params.mode == "bm25" else ()
        found: Vector = self._scored(vectors, asked).max(axis=0)
        return found

    def _scored(self, vectors: "Vector", asked: Sequence[Sequence[str]]) -> "Vector":
        """[n, K]."""
        if self._params.mode == "bm25":
            return np.array([self._bm25.scores(one) for one in asked]).reshape(-1, len(self.groups))
        found: Vector = (self._centres @ vectors.T).T
        if self._params.mode == "ratio":
            near = vectors @ self._kept.centre
            found = found / np.maximum(near, 1e-6)[:, None]
        return found

    def _words(self, text: str) -> list[str]:
        return [self._hash(word) for word in words(text)]

    def _calibrated(self, reads: Sequence[Read]) -> float:
        """The threshold, on the highest score that each prompt reaches over the whole store."""
        params = self._params
        if params.mode in ("best", "soft"):
            return -np.inf
        if params.tau is not None:
            return params.tau
        retain = self._highest(self._kept.prompts, self._kept.asked)
        if params.calibrate == "quantile":
            return quantile(retain, params.q)
        asked = [one for read in reads for one in read.asked]
        prompts = vstack([read.prompts for read in reads]).tocsr()
        return youden(self._highest(prompts, asked), retain, params.false_weight)

    def _highest(self, prompts: Any, asked: Sequence[Sequence[str]]) -> "Vector":
        """[n], the highest score of each prompt over all groups."""
        starts = range(0, prompts.shape[0], TOGETHER)
        parts = [
            self._scored(prompts[at : at + TOGETHER].toarray(), asked[at : at + TOGETHER])
            for at in starts
        ]
        return np.concatenate([part.max(axis=1) for part in parts])


class Bm25:
    """Words shared with groups, as a share of what a text of all these words would score.

    ``score(q, k) = sum_{t in q} idf_t tf (k1 + 1) / (tf + k1 (1 - b + b len_k / mean len))
    / sum_{t in q} idf_t (k1 + 1)``, ``idf_t = log((K - df_t + .5) / (df_t + .5) + 1)``.

    Args:
        terms: Of each group: word -> how often.
    """

    def __init__(self, terms: Sequence[Terms]) -> None:
        self._count = len(terms)
        self._places: dict[str, list[tuple[int, int]]] = {}
        for place, own in enumerate(terms):
            for term, often in own.items():
                self._places.setdefault(term, []).append((place, often))
        lengths = np.array([sum(own.values()) for own in terms], dtype=float)
        self._scale = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1e-9))

    def scores(self, asked: Sequence[str]) -> "Vector":
        """[K], in [0, 1]."""
        found, most = np.zeros(self._count), 0.0
        for term in dict.fromkeys(asked):
            places = self._places.get(term, ())
            idf = log((self._count - len(places) + 0.5) / (len(places) + 0.5) + 1)
            most += idf * (K1 + 1)
            for place, often in places:
                found[place] += idf * often * (K1 + 1) / (often + self._scale[place])
        return found / max(most, 1e-9)


def quantile(retain: "Vector", q: float) -> float:
    """The (1 - q)-quantile: at most a share q of these scores lies above it."""
    return float(np.quantile(retain, 1 - q, method="higher"))


def youden(forget: "Vector", retain: "Vector", false_weight: float) -> float:
    """The first of 200 thresholds with the largest ``recall - lambda fpr``, scores above firing."""
    every = np.concatenate([forget, retain])
    grid = np.linspace(every.min(), every.max(), GRID)
    values = [(forget > t).mean() - false_weight * (retain > t).mean() for t in grid]
    return float(grid[int(np.argmax(values))])


def _only(scores: "Vector") -> "Vector":
    """1 for the highest, 0 for all others."""
    found = np.zeros(len(scores))
    found[int(scores.argmax())] = 1.0
    return found


def _regrouped(groups: Sequence[Group], params: "Params", seed: int) -> list[Group]:
    """Groups as they came; with more than ``regroup`` of them, at most ``clusters`` anew.

    Means over the new ones are exact: each is the mean over all texts of its parts.
    """
    if not params.regroup or len(groups) <= params.regroup:
        return list(groups)
    points = vstack([group.centre for group in groups]).toarray()
    points = points[:, points.any(axis=0)]
    count = min(params.clusters, len(np.unique(points, axis=0)))
    labels = kmeans(points, count, derive(seed, "guardit", "regroup"))
    return [
        _merged([one for one, label in zip(groups, labels, strict=True) if label == number])
        for number in range(int(labels.max()) + 1)
    ]


def _merged(parts: Sequence[Group]) -> Group:
    counts = np.array([part.count for part in parts], dtype=float)
    shares = counts / counts.sum()
    centre = sum(share * part.centre for share, part in zip(shares, parts, strict=True))
    hidden = np.array([part.hidden for part in parts])
    terms: Counter[str] = Counter()
    for part in parts:
        terms.update(part.terms)
    return Group(
        " ".join(dict.fromkeys(part.target for part in parts)),
        int(counts.sum()),
        csr_array(centre),
        shares @ hidden,
        float(shares @ np.array([part.norm for part in parts])),
        terms,
    )


def _unit(rows: Any) -> Any:
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    return csr_array(rows.multiply((1 / np.maximum(lengths, 1e-12))[:, None]))
