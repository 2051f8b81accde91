"""What tells that a text asks for something to be forgotten: a score for each category.

Definition (x a text, u a stored rewording of target t, e its vector, C a classifier, 1[.] 1 or 0):
    privacy    s_t = EM_t(x) + max_u cos(e_u, e(x))         EM_t = 1 iff a name of t stands in x
    harmful    s_t = 1[p_C(x) > tau_1] + max_u resemblance(u, x) + max_u ROUGE-L(u, x)
    copyright  s_t = 1[p_C(x) > tau_1 for C of passages or of questions] + max_u cos(e_u, e(x))
    fires      iff max_t s_t > tau

A target has one category. Names are looked for as whole words, with unicode normalised and
disguises undone, so a name that is also a common word ("Rose Hill") does not fire on its parts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.calibration import Texts, highest, is_due, threshold, to_let_through
from expunge.engine.guarding.desk import Means
from expunge.engine.guarding.rungs.exact import Names
from expunge.engine.guarding.rungs.meaning import Meaning
from expunge.engine.guarding.targets import Target
from expunge.guards.dragon.rewording import Choosing, resemblance, rewordings
from expunge.requests.rows import Row
from expunge.text.classifier import Classifier, fit
from expunge.text.embedding import HASHING
from expunge.text.overlap import rouge_l

CATEGORIES = ("privacy", "harmful", "copyright")

NO_EMBEDDING = "none"

SHORTLIST = 32
"""Targets whose cosines count, and whose texts are compared word by word: the nearest ones."""

EVERY = 1 << 30


def category_of(target: Target, default: str) -> str:
    """The category of a target: what its rows say under ``meta["category"]``, else the default."""
    told = (row.meta.get("category") for row in target.rows)
    return next((one for one in told if one in CATEGORIES), default)


class Detector(ABC):
    """The gate of one category; a rung.

    Attributes:
        name: The category.
        threshold: tau.
        least: tau is set no lower by what texts to be let through score.
        is_calibrated: False: tau is set by `calibrated`, which knows what a name does.
        told: Classifiers, by what they were trained on.
        set_at: Size of the store when tau was set.
        set_on: Number of texts it was set on.

    Args:
        params: Of the guard.
        means: What it may use.
    """

    name = ""
    least = 0.5
    is_calibrated = False
    classifiers: tuple[str, ...] = ()

    def __init__(self, params: Any, means: Means) -> None:
        self._params, self._means = params, means
        self._threshold = float(params.unset_tau if params.tau is None else params.tau)
        self.told: Mapping[str, Classifier] = {}
        is_blind = params.embedding == NO_EMBEDDING
        self._source = HASHING if is_blind else params.embedding
        self._choosing = Choosing(
            candidates=params.candidates, source=self._source, sums_up=self.name == "copyright"
        )
        self._near = None if is_blind else Meaning(means.secret, params.embedding)
        self._sizes: dict[str, int] = {}
        self.set_at = self.set_on = 0

    @property
    def threshold(self) -> float:
        """Scores above it fire."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = value

    @property
    def size(self) -> int:
        """Number of rewordings stored."""
        return sum(self._sizes.values())

    def key(self, target: Target) -> Mapping[str, Any]:
        """What is stored of a target of this category; nothing of any other."""
        if category_of(target, self._params.category) != self.name:
            return {}
        told = rewordings(target, self._means, self._choosing)
        return {"size": len(told), "near": self._near_key(told), **self._own_key(target, told)}

    def add(self, id: str, key: Mapping[str, Any]) -> None:
        """Take a target in."""
        self.remove(id)
        if key:
            self._sizes[id] = key["size"]
            if self._near is not None and key["near"]:
                self._near.add(id, key["near"])
            self._own_add(id, key)

    def remove(self, id: str) -> None:
        """Leave a target out."""
        self._sizes.pop(id, None)
        if self._near is not None:
            self._near.remove(id)

    def scores(self, text: str, most: int) -> list[tuple[str, float]]:
        """s_t of the targets with the highest, where it is above 0."""
        if not self._sizes:
            return []
        found = self._scores(text)
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]

    def is_named(self, text: str) -> bool:
        """Whether a text names a target, which no threshold may let through."""
        return False

    @abstractmethod
    def _scores(self, text: str) -> dict[str, float]:
        """s_t of all targets of which something stands in the text."""

    def _own_key(self, target: Target, told: Sequence[str]) -> dict[str, Any]:
        return {}

    def _own_add(self, id: str, key: Mapping[str, Any]) -> None:  # noqa: B027  # most store no more
        """Take in what only this category stores."""

    def _near_key(self, told: Sequence[str]) -> Any:
        """Vectors of rewordings; `Meaning` reads them off a target's questions."""
        if self._near is None or not told:
            return []
        rows = tuple(Row(id=str(at), prompt=one, completion="") for at, one in enumerate(told))
        return self._near.key(Target(id="", rows=rows))

    def _cosines(self, text: str, most: int) -> dict[str, float]:
        return {} if self._near is None else dict(self._near.scores(text, most))

    def _is_told(self, text: str) -> float:
        """1 when one of the classifiers takes the text for one of its kind."""
        sure = (told.probability([text])[0] for told in self.told.values())
        return float(any(one > self._params.tau_1 for one in sure))


class Privacy(Detector):
    """Questions about people."""

    name = "privacy"

    def __init__(self, params: Any, means: Means) -> None:
        super().__init__(params, means)
        self._names = Names(means.secret)

    @property
    def threshold(self) -> float:
        """tau, below 1: a name alone fires, whatever it was set by."""
        return min(self._threshold, 0.999)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = value

    def is_named(self, text: str) -> bool:
        """Whether a name of a target stands in the text."""
        return bool(self._names.scores(text, 1))

    def remove(self, id: str) -> None:
        """Leave a target out."""
        super().remove(id)
        self._names.remove(id)

    def _own_key(self, target: Target, told: Sequence[str]) -> dict[str, Any]:
        return {"names": self._names.key(target)}

    def _own_add(self, id: str, key: Mapping[str, Any]) -> None:
        self._names.add(id, key["names"])

    def _scores(self, text: str) -> dict[str, float]:
        found = self._cosines(text, SHORTLIST)
        named = self._names.scores(text, EVERY)
        for id, score in named:
            found[id] = found.get(id, 0.0) + score
        return found


class Harmful(Detector):
    """Questions for what does harm."""

    name = "harmful"
    least = 0.7
    classifiers = ("harmful",)

    def __init__(self, params: Any, means: Means) -> None:
        super().__init__(params, means)
        self._texts: dict[str, list[str]] = {}

    def remove(self, id: str) -> None:
        """Leave a target out."""
        super().remove(id)
        self._texts.pop(id, None)

    def _own_key(self, target: Target, told: Sequence[str]) -> dict[str, Any]:
        return {"sealed": list(told)}

    def _own_add(self, id: str, key: Mapping[str, Any]) -> None:
        self._texts[id] = key["sealed"]

    def _scores(self, text: str) -> dict[str, float]:
        sure = self._is_told(text)
        near = self._texts if self._near is None else self._cosines(text, SHORTLIST)
        listed = [*near] or ([*self._texts][:1] if sure else [])
        return {id: sure + self._resemblance(text, self._texts[id]) for id in listed}

    def _resemblance(self, text: str, told: Sequence[str]) -> float:
        near = max((resemblance(one, text, self._source) for one in told), default=0.0)
        return near + max((rouge_l(text, one).f1 for one in told), default=0.0)


class Copyright(Detector):
    """Passages of a work, and questions about it."""

    name = "copyright"
    classifiers = ("passages", "questions")

    def _scores(self, text: str) -> dict[str, float]:
        sure = self._is_told(text)
        found = self._cosines(text, SHORTLIST) or (dict.fromkeys(self._sizes, 0.0) if sure else {})
        return {id: sure + score for id, score in found.items()}


DETECTORS = (Privacy, Harmful, Copyright)


def trained(targets: Sequence[Target], means: Means, default: str) -> dict[str, Classifier]:
    """The classifiers of the categories that targets have, by the name of the classifier.

    They learn from every second question to be let through; tau is set on the others, so that it
    does not rest on texts the classifier has seen. Without such questions there is none.
    """
    kept = [texts[0] for texts in _let_through(means)[::2]]
    found = {}
    for detector in DETECTORS:
        own = [target for target in targets if category_of(target, default) == detector.name]
        for name in detector.classifiers:
            kind = _texts_of(own, name)
            if kind and kept:
                against = [*kept, *map(_half, kept)] if name == "questions" else kept
                found[name] = fit([*kind, *against], [1] * len(kind) + [0] * len(against))
    return found


def calibrated(detector: Detector, params: Any, means: Means) -> dict[str, Any]:
    """Set tau on the highest score over the store, and say by what.

    Args:
        detector: Its tau is set, where nobody gave one and there are questions to be let through.
            Those that name a target are left out, since a name fires whatever tau is.
        params: Of the guard.
        means: Whose retain rows are to be let through.

    Returns:
        ``tau``; the size of the ``store``, and what it was when tau was set (``set_at``); the
        number of ``texts`` it was set on, and of those left out since they are ``named``.
    """
    texts = _let_through(means)
    held = texts[1::2] if detector.told else texts
    unnamed = [one for one in held if not any(map(detector.is_named, one))]
    if params.tau is None and unnamed and is_due(detector.set_at, detector.size):
        told = threshold([highest(detector, one) for one in unnamed], params.alarms)[0]
        detector.threshold = max(detector.least, told)
        detector.set_at, detector.set_on = detector.size, len(unnamed)
    return {
        "tau": detector.threshold,
        "store": detector.size,
        "set_at": detector.set_at,
        "texts": detector.set_on,
        "named": len(held) - len(unnamed),
        "classifiers": sorted(detector.told),
    }


def bound(detector: Detector, told: Mapping[str, Classifier]) -> None:
    """Give a detector its classifiers."""
    detector.told = {name: told[name] for name in detector.classifiers if name in told}


def nothing_to_go_by(target: Target) -> ExpungeError:
    """A target without questions, texts or names."""
    return ExpungeError(
        "E-SERVE-005",
        f"The target {target.id} has neither a question, nor a text, nor, for privacy, a name.",
        "something that a question about it can be known by.",
        "Give rows or aliases.",
    )


def _let_through(means: Means) -> list[Texts]:
    return to_let_through(means.retain, (), means.seed) if means.retain else []


def _texts_of(targets: Sequence[Target], name: str) -> list[str]:
    questions = [one for target in targets for one in target.questions]
    if name == "passages":
        return [one for target in targets for one in target.texts]
    return [*questions, *map(_half, questions)] if name == "questions" else questions


def _half(text: str) -> str:
    """A partial question: the first half of its words."""
    words = text.split()
    return " ".join(words[: ceil(len(words) / 2)])
