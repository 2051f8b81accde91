"""Decisions of classifiers of word pieces."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from expunge.core.errors import ExpungeError
from expunge.engine.guarding.deciders.questions import checked, normal
from expunge.text.classifier import Classifier, fit

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt


class Worded:
    """Decisions of classifiers of word pieces, for the questions they were taught.

    Args:
        known: Question -> its classifier; kinds are no and yes, the options, or the levels, in
            their order.
    """

    def __init__(self, known: Mapping[str, Classifier]) -> None:
        self._known = dict(known)

    @classmethod
    def taught(cls, examples: Mapping[str, tuple[Sequence[str], Sequence[int]]]) -> "Worded":
        """Learn questions from texts with their answers.

        Args:
            examples: Question -> texts, and for each its kind: 1 for yes and 0 for no, the place
                of the right option, or the level less 1.
        """
        return cls({question: fit(*told) for question, told in examples.items()})

    @classmethod
    def of(
        cls, questions: Sequence[str], arrays: "Mapping[str, npt.NDArray[Any]]", prefix: str = ""
    ) -> "Worded":
        """A decider from its stored numbers; see `arrays`."""
        named = enumerate(questions)
        return cls({one: Classifier.of(arrays, f"{prefix}{at}.") for at, one in named})

    @property
    def questions(self) -> list[str]:
        """What it was taught, in the order of its numbers."""
        return list(self._known)

    def arrays(self, prefix: str = "") -> "dict[str, npt.NDArray[Any]]":
        """Its numbers, to be stored beside its questions."""
        each = enumerate(self._known.values())
        return {name: one for at, it in each for name, one in it.arrays(f"{prefix}{at}.").items()}

    def yes(self, state: str, question: str) -> float:
        """See `Decider.yes`."""
        return self._told(state, question, 2)[1]

    def choose(self, state: str, question: str, options: Sequence[str]) -> list[float]:
        """See `Decider.choose`."""
        return self._told(state, question, len(checked(options)))

    def rate(self, state: str, question: str, levels: int) -> list[float]:
        """See `Decider.rate`."""
        return self._told(state, question, levels)

    def _told(self, state: str, question: str, kinds: int) -> list[float]:
        known = self._known.get(question)
        found = [] if known is None else known.probabilities([state])[0].tolist()
        if len(found) != kinds:
            raise ExpungeError(
                "E-SERVE-001",
                f"A question with {kinds} answers that the classifier was not taught.",
                "a question that it knows.",
                "Teach it the question, or take a language model to decide.",
            )
        return normal(found)
