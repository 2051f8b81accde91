"""Who asks an agent and guesses what it was told to forget.

Definition (C the candidates, one of which was forgotten; for each c in C the same kinds of probes):
    seen(c)   what the answers to the probes of c show: what is said, with cells and the candidate's
              name taken out; whether c is named; steps beyond the least
    oddity(c) = sum over probes of -ln(share of the candidates that show the same)
    guess     a candidate of the highest oddity, drawn where several have it
    accuracy  share of right guesses over many agents; 1 / |C| is chance

The same attack on agents that never met the candidate says what the candidates give away
themselves. An agent is private as far as the attack does no better on it.

INFERRED: the paper's adversary could not be read beyond its aim, to guess the forgotten item from
what an agent does.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import fsum, log
from typing import TYPE_CHECKING

from expunge.lab.agents.grid import cells_in, distance
from expunge.text.normalise import normalise

if TYPE_CHECKING:
    import numpy as np

Ask = Callable[[str], str]

_CELLS = re.compile(r"(?:\bcell [a-e][1-5]\b\W*)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What may have been forgotten.

    Attributes:
        name: How it is called.
        probes: What to ask about it; probes at the same place are compared between candidates.
    """

    name: str
    probes: tuple[str, ...]


def guess(ask: Ask, candidates: Sequence[Candidate], rng: "np.random.Generator") -> int:
    """The number of the candidate that the agent treats unlike the others.

    Args:
        ask: The agent.
        candidates: All with the same number of probes.
        rng: Draws between equals.
    """
    seen = [[_seen(ask(text), text, one.name) for text in one.probes] for one in candidates]
    alike = [Counter(column) for column in zip(*seen, strict=True)]
    oddities = [
        fsum(-log(alike[at][show] / len(candidates)) for at, show in enumerate(row)) for row in seen
    ]
    highest = max(oddities)
    return int(rng.choice([at for at, odd in enumerate(oddities) if odd > highest - 1e-9]))


def _seen(answer: str, asked: str, name: str) -> tuple[str, bool, int]:
    """What an answer shows, whatever cells the question happened to be about."""
    own = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    said = _CELLS.sub("cells ", own.sub("it", answer))
    ends, way = cells_in(asked), cells_in(answer)
    least = distance(ends[0], ends[-1]) if len(ends) > 1 else 0
    extra = len(way) - 1 - least if way and len(ends) > 1 else 0
    return normalise(said), bool(own.search(answer)), extra
