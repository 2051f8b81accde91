"""A model that several audits score on the same texts, and that computes each score once."""

from collections.abc import Sequence

from expunge.lm.subject import Scored, Spans, Subject
from expunge.requests.rows import Turn


class Remembering(Subject):
    """A subject that keeps its scores; its weights must not change, and copies start afresh.

    Args:
        subject: The model.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__(
            subject.model,
            subject.tokenizer,
            digest=subject.digest,
            batch_size=subject.batch_size,
            gate=subject.gate,
        )
        self._scores: dict[str, list[Scored]] = {}

    def score(self, turns: Sequence[Turn], keep: Sequence[Spans] | None = None) -> list[Scored]:
        """As `Subject.score`; the same texts are scored once."""
        asked = repr((turns, keep))
        if asked not in self._scores:
            self._scores[asked] = super().score(turns, keep)
        return self._scores[asked]
