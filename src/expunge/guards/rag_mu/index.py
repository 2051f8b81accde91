"""The knowledge base: aspects that are looked for by their vectors, and what they lead to."""

from collections.abc import Mapping
from math import nextafter
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.rungs.meaning import Meaning
from expunge.engine.guarding.targets import Target
from expunge.guards.rag_mu.writing import Knowledge, Writing, of_concept, of_texts
from expunge.requests.rows import Row

OFFICIAL = nextafter(0.6, 0.0)
"""Scores above it are at least 0.6."""

REACH = 0.2
"""The raw cosine that is 0.6 on the official scale."""


class Items:
    """A rung: the targets of the items nearest to a text.

    Attributes:
        name: What it is called in reports.
        threshold: Cosines above it fire; under official numbers (1 + cosine) / 2.
        least: It is set no lower by what texts to be let through score.
        is_calibrated: False: the guard sets it itself.
        knowledge: Target -> aspects (``items``) and requirement (``rule``).
        verified: Target -> whether the model was seen to obey.
        set_at: Size of the store when the threshold was set.
        set_on: Number of texts it was set on.

    Args:
        params: Of the guard.
        means: What it may use.
    """

    name = "knowledge"
    least = REACH
    is_calibrated = False

    def __init__(self, params: Any, means: Means) -> None:
        self._params, self._means = params, means
        unset = params.unset_threshold if params.threshold is None else params.threshold
        self.threshold: float = OFFICIAL if params.official else unset
        self._near = Meaning(means.secret, params.embedding)
        self._homes: dict[str, str] = {}
        self.knowledge: dict[str, Mapping[str, Any]] = {}
        self.verified: dict[str, bool] = {}
        self.set_at = self.set_on = 0

    @property
    def size(self) -> int:
        """Number of items."""
        return len(self._homes)

    def key(self, target: Target) -> Mapping[str, Any]:
        """Vectors of the aspects; aspects and requirement to be sealed.

        Raises:
            ExpungeError: As `of_concept` and `of_texts`; ``E-SERVE-005`` when nothing would lead
                to the target.
        """
        params = self._params
        writing = Writing(**{name: getattr(params, name) for name in Writing.__dataclass_fields__})
        by_name = params.mode == "concept" or (params.mode == "auto" and bool(target.names))
        if by_name and not target.names:
            raise _unreachable(target, "It has no name that the model could be asked about.")
        told = (of_concept if by_name else of_texts)(target, self._means, writing)
        vectors = [self._vector(item, told) for item in told.items]
        if params.official and told.asked and not self._leads(told.asked, vectors):
            raise _unreachable(target, "A question about it does not retrieve it.")
        return {
            "mode": "concept" if by_name else "sample",
            "verified": told.is_verified,
            "near": vectors,
            "sealed": {"items": list(told.items), "rule": told.rule},
        }

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target in."""
        self.remove(id)
        for at, vectors in enumerate(key["near"]):
            self._near.add(f"{id}/{at}", vectors)
            self._homes[f"{id}/{at}"] = id
        self.knowledge[id], self.verified[id] = key["sealed"], bool(key["verified"])

    def remove(self, id: str) -> None:
        """Leave a target out, with all its items."""
        own = self.knowledge.pop(id, None)
        self.verified.pop(id, None)
        for at in range(len(own["items"]) if own else 0):
            self._near.remove(f"{id}/{at}")
            self._homes.pop(f"{id}/{at}", None)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """The targets of the few items that are retrieved."""
        best: dict[str, float] = {}
        for item, cosine in self._near.scores(text, self._params.retrieved):
            score = (1 + cosine) / 2 if self._params.official else cosine
            best.setdefault(self._homes[item], score)
        return list(best.items())[:most]

    def _vector(self, item: str, told: Knowledge) -> Any:
        text = f"{item}\n\n{told.rule}" if self._params.official else item
        row = Row(id="item", prompt=text, completion="")
        return self._near.key(Target(id="", rows=(row,)))

    def _leads(self, question: str, vectors: list[Any]) -> bool:
        trial = Meaning(self._means.secret, self._params.embedding)
        for at, vector in enumerate(vectors):
            trial.add(str(at), vector)
        return any(cosine >= REACH for _, cosine in trial.scores(question, 1))


def _unreachable(target: Target, found: str) -> ExpungeError:
    return ExpungeError(
        "E-SERVE-005",
        f"Nothing would lead from a question to the target {target.id}. {found}",
        "a name, or aspects that resemble what is asked.",
        "Give aliases or rows, or use another mode or embedding.",
    )
