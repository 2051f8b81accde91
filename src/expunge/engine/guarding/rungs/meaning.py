"""Texts near a target's questions, by their vectors.

Definition (e the vector of a text, of length 1; F a linear map drawn from the store's secret):
    stored   F e(question) for each question of a target, for each name where it has none
    score    = the highest cosine of a stored vector with that of the text or of a sentence of it

F of the built-in hashing vectors adds each of their 16,384 places, with a sign, to one of 512; F of
shorter vectors turns them (an orthogonal matrix), which changes no cosine. Either way vectors of
two stores cannot be compared, and without the secret none can be tested with guesses. A stored
vector has one byte for each place; in memory it has four.

The search is flat: one product with all vectors. The built-in vectors are of a text without its
function words, and know spelling but not meaning; a folder with a static embedding model knows
some. Neither tells a question about somebody from the same question about somebody else by more
than a name, so the threshold must be set on such questions where they are to be let through (see
`calibration`).

Reference: Feature Hashing for Large Scale Multitask Learning, 2009 (the signed places).
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from expunge.core.rng import generator
from expunge.engine.guarding.targets import Target
from expunge.text.embedding import HASHING, embedder
from expunge.text.normalise import words
from expunge.text.stop import STOP_WORDS

if TYPE_CHECKING:
    import numpy.typing as npt

    from expunge.text.embedding import Embedder

    Vectors = npt.NDArray[np.float32]

WIDTH = 512
"""Places of a folded vector."""

BLOCK = 4096
"""Vectors that lie together; a store grows by blocks and is never copied."""

STEPS = 127
"""Of a stored place, to either side."""

_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\n+")


class Meaning:
    """The rung.

    Args:
        secret: Decides the folding.
        embed: ``hashing``, the folder of a static embedding model, or what makes vectors of texts.
        width: Places of a folded vector.
    """

    name = "meaning"
    threshold = 0.8
    least = 0.4
    is_calibrated = True

    def __init__(
        self, secret: bytes, embed: "str | Embedder" = HASHING, width: int = WIDTH
    ) -> None:
        self._embed = _named(embed) if isinstance(embed, str) else embed
        self._fold = _Fold(secret, self._embed(["width"]).shape[1], width)
        self._blocks: list[Vectors] = []
        self._owners: list[str | None] = []
        self._places: dict[str, list[int]] = {}
        self._free: list[int] = []

    def key(self, target: Target) -> list[str]:
        """Folded vectors of the questions, else of the names."""
        told = target.questions or target.names
        return [_packed(vector) for vector in self._vectors(told)] if told else []

    def add(self, id: str, key: Sequence[str]) -> None:
        """Take a target in, in the place of what it was."""
        self.remove(id)
        self._places[id] = [self._place(id, _unpacked(one)) for one in key]

    def remove(self, id: str) -> None:
        """Leave a target out; its places are free for others."""
        for place in self._places.pop(id, ()):
            self._owners[place] = None
            self._row(place)[:] = 0
            self._free.append(place)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """Cosine of the nearest question of each target."""
        if not self._places or most <= 0:
            return []
        vectors = self._vectors(_pieces(text))
        near = np.concatenate([(block @ vectors.T).max(axis=1) for block in self._blocks])
        return self._best(near[: len(self._owners)], most)

    def _best(self, near: "Vectors", most: int) -> list[tuple[str, float]]:
        """The targets with the nearest vectors: among ever more of them, until there are enough."""
        wanted = 4 * most
        while True:
            wanted = min(wanted, len(near))
            last = np.partition(near, len(near) - wanted)[len(near) - wanted]
            found: dict[str, float] = {}
            for place in np.flatnonzero(near >= max(last - 1e-6, 1e-6)):
                if (owner := self._owners[place]) is not None:
                    found[owner] = max(round(float(near[place]), 6), found.get(owner, 0.0))
            if len(found) >= most or wanted == len(near):
                return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]
            wanted *= 4

    def _vectors(self, texts: Sequence[str]) -> "Vectors":
        folded = self._fold(self._embed(texts))
        lengths = np.linalg.norm(folded, axis=1, keepdims=True)
        return np.asarray(folded / lengths.clip(1e-12), np.float32)

    def _place(self, id: str, vector: "Vectors") -> int:
        if self._free:
            place = self._free.pop()
            self._owners[place] = id
        else:
            place = len(self._owners)
            self._owners.append(id)
            if place % BLOCK == 0:
                self._blocks.append(np.zeros((BLOCK, self._fold.width), np.float32))
        self._row(place)[:] = vector
        return place

    def _row(self, place: int) -> "Vectors":
        return np.asarray(self._blocks[place // BLOCK][place % BLOCK])


class _Fold:
    """The map from the vectors of texts to those that are stored."""

    def __init__(self, secret: bytes, wide: int, width: int) -> None:
        seed = int.from_bytes(blake2b(b"meaning", key=secret, digest_size=7).digest(), "big")
        draw = generator(seed, "fold")
        self.width = min(wide, width)
        self._turn = None
        if wide <= width:
            self._turn = np.linalg.qr(draw.standard_normal((wide, wide)))[0]
        else:
            self._to = draw.integers(0, width, wide)
            self._signs = draw.choice([-1.0, 1.0], wide)

    def __call__(self, vectors: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
        if self._turn is not None:
            return np.asarray(vectors @ self._turn)
        return np.array([self._folded(vector) for vector in vectors]).reshape(-1, self.width)

    def _folded(self, vector: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
        places = np.flatnonzero(vector)
        signed = vector[places] * self._signs[places]
        added = np.bincount(self._to[places], weights=signed, minlength=self.width)
        return np.asarray(added, np.float64)


def _named(source: str) -> "Embedder":
    """An embedder by its name; the built-in one reads no function words."""
    made = embedder(source)
    return made if source != HASHING else lambda texts: made([_telling(text) for text in texts])


def _telling(text: str) -> str:
    told = words(text)
    return " ".join([word for word in told if word not in STOP_WORDS] or told)


def _pieces(text: str) -> list[str]:
    """The text, and its sentences where it has several."""
    parts = [part for part in _SENTENCE.split(text) if part.strip()]
    return list(dict.fromkeys(chain([text], parts)))


def _packed(vector: "Vectors") -> str:
    scale = STEPS / max(float(np.abs(vector).max()), 1e-12)
    return b64encode(np.round(vector * scale).astype(np.int8).tobytes()).decode()


def _unpacked(text: str) -> "Vectors":
    vector = np.frombuffer(b64decode(text), np.int8).astype(np.float32)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
