"""What a guard decides about one exchange."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to a prompt, or to the answer drafted for it.

    Attributes:
        action: ``pass`` it on, or ``replace`` what the user would get by `reply`.
        reply: What the user gets instead; empty when it passes.
        score: How sure the guard is, in [0, 1].
        rule: Which of the guard's rules decided; empty when it passes.
    """

    action: Literal["pass", "replace"]
    reply: str = ""
    score: float = 0.0
    rule: str = ""


PASS = Decision("pass")
"""Nothing to object to."""
