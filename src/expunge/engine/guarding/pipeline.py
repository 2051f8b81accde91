"""Guards in their order, around one model: what a client asks goes in, what it may read comes out.

A question passes the guards from the front to the model, an answer from the model to the front. The
first reply on the way in takes the place of the answer. Any error closes: the client gets a
refusal, the error is counted, and no text is logged.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from expunge.core.errors import ExpungeError, raise_all
from expunge.engine.guarding.exchange import Exchange, Reply
from expunge.engine.guarding.fitting import Working
from expunge.engine.guarding.ladder import Hit
from expunge.requests.rows import Turn

REFUSAL = "I'm sorry, but I can't help with that."
"""What is said when a guard breaks, where no guard has words of its own for a refusal."""

PLACES = ("front", "gate", "prompt", "model", "answer")
"""Where guards stand, from the client to the model; a card says it under ``place``."""

TEXT = frozenset({"text-in", "text-out"})
"""Stages that need nothing but texts; a card lists its stages under ``stages``."""

INSIDE = frozenset({"embeddings", "residual", "logits", "adapter"})
"""Stages inside the model."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Pipeline:
    """Guards in front of a model, for a subject (`before`, `after`) and for a gateway.

    Attributes:
        guards: In the order in which a question passes them.
        errors: Guard -> how often it broke, and closed.
        reply: What is said when a guard breaks: what guards say when they refuse, so that one
            cannot be told from the other.

    Args:
        guards: The guards, in any order; those of one place keep theirs.
        offers: The stages that the model's backend has room for.

    Raises:
        ExpungeError: ``E-SERVE-003`` for a guard that needs a stage the backend lacks,
            ``E-SERVE-004`` for two guards that both write into the prompt; all at once.
    """

    def __init__(self, guards: Sequence[Working], *, offers: Collection[str]) -> None:
        raise_all(problems_of([guard.card for guard in guards], offers))
        self.guards = tuple(sorted(guards, key=lambda guard: PLACES.index(guard.card["place"])))
        self.errors: Counter[str] = Counter()
        params = (guard.desk.params for guard in self.guards)
        self.reply: str = next((one.reply for one in params if hasattr(one, "reply")), REFUSAL)

    def enter(self, exchange: Exchange) -> Exchange | Reply:
        """What the model is asked, or a reply in the place of its answer."""
        now: Exchange | Reply = exchange
        for guard in self.guards:
            if isinstance(now, Exchange):
                now = self._closed(guard, partial(guard.enter, now))
        return now

    def leave(self, exchange: Exchange, draft: str) -> str | Reply:
        """What the client may read of the model's answer.

        Args:
            exchange: As the client asked it.
            draft: What the model answered.
        """
        now: str | Reply = draft
        for guard in reversed(self.guards):
            if isinstance(now, str):
                now = self._closed(guard, partial(guard.leave, exchange, now))
        return now

    def hits(self, exchange: Exchange) -> list[tuple[str, Hit]]:
        """Which guards' gates fire for a question, and for which targets."""
        return [(guard.id, hit) for guard in self.guards for hit in guard.hits(exchange)]

    def before(self, turn: Turn) -> str | Turn | None:
        """A reply, or what to ask in the turn's place; None where nothing fires."""
        exchange = Exchange.of(turn)
        entered = self.enter(exchange)
        if isinstance(entered, Reply):
            return entered.text
        return None if entered is exchange else entered.turn

    def after(self, turn: Turn, text: str) -> str:
        """What the client may read of the model's answer."""
        left = self.leave(Exchange.of(turn), text)
        return left.text if isinstance(left, Reply) else left

    def _closed(self, guard: Working, act: Callable[[], T]) -> T | Reply:
        try:
            return act()
        except Exception as error:  # whatever breaks here must not let the text through
            self.errors[guard.id] += 1
            _log.error(
                "guard %s closes after an internal error: %s", guard.id, type(error).__name__
            )
            return Reply(self.reply, "error")


def problems_of(cards: Sequence[Mapping[str, Any]], offers: Collection[str]) -> list[ExpungeError]:
    """What keeps guards from standing together in front of a backend.

    Args:
        cards: Cards of the guards.
        offers: The stages the backend has room for.
    """
    problems = []
    for card in cards:
        lacking = sorted(set(card["stages"]) - set(offers))
        if lacking:
            problems.append(
                ExpungeError(
                    "E-SERVE-003",
                    f"The guard {card['id']} works on the model's {', '.join(lacking)}, "
                    "and this backend has no way in there.",
                    "a model in this process for such a guard.",
                    "Serve the model with --model, or choose a guard that works on text.",
                )
            )
    writers = [card["id"] for card in cards if card["place"] == "prompt"]
    if len(writers) > 1:
        problems.append(
            ExpungeError(
                "E-SERVE-004",
                f"The guards {' and '.join(writers)} both write instructions into the prompt.",
                "at most one such guard: two contradict each other.",
                "Leave all but one of them out.",
            )
        )
    return problems
