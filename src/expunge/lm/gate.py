"""A guard that judges text, as a gate in front of a model. No torch."""

from collections.abc import Callable, Mapping
from typing import Any

from expunge.core.decision import Decision
from expunge.lm.values import prompt_text
from expunge.requests.rows import Turn

Check = Callable[[str, str | None, Mapping[str, Any]], Decision]
"""``check(text_in, text_out or None, state)``."""


class TextGate:
    """Asks a guard before the model answers, and again about what it answered.

    Attributes:
        check: The guard.
        state: What it was fitted to.
        reply: What is said where there is no room for a prompt; it never writes one.
    """

    reply = ""

    def __init__(self, check: Check, state: Mapping[str, Any]) -> None:
        self.check, self.state = check, state

    def before(self, turn: Turn) -> str | None:
        """The guard's reply to the prompt, or None to let the model answer."""
        decision = self.check(prompt_text(turn), None, self.state)
        return decision.reply if decision.action == "replace" else None

    def after(self, turn: Turn, text: str) -> str:
        """The model's answer, or the guard's in its place."""
        decision = self.check(prompt_text(turn), text, self.state)
        return decision.reply if decision.action == "replace" else text
