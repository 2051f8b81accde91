"""Which value a set of answers points at: the candidate named most often.

A candidate is a word that could be a value. It is no word of the question or of the sentence the
value stands in, and none that most rows' answers share, as those of a refusal are. The value
itself counts as one candidate, in whichever of its forms it is named.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from expunge.lm.elicit import Heard
from expunge.lm.values import places, prompt_text
from expunge.requests.rows import Row
from expunge.text.normalise import words


def frequency(heard: Iterable[Heard]) -> dict[str, float]:
    """Row id -> share of its answers that give the value away."""
    leaks: dict[str, list[float]] = defaultdict(list)
    for one in heard:
        leaks[one.probe.row.id] += one.leaks
    return {row: sum(each) / len(each) for row, each in leaks.items() if each}


def pinpointed(heard: Sequence[Heard]) -> dict[str, float]:
    """Row id -> chance that naming the most frequent candidate names the value.

    That is 1 where the value is named in more answers than any other candidate, 1/n where n
    candidates share the first place with it, the value included, and 0 elsewhere.
    """
    rows = {one.probe.row.id: one.probe.row for one in heard}
    told: dict[str, int] = Counter()
    named: dict[str, Counter[str]] = defaultdict(Counter)
    given: dict[str, set[str]] = defaultdict(set)
    for one in heard:
        name = one.probe.row.id
        told[name] += sum(leak > 0 for leak in one.leaks)
        given[name].update(words(prompt_text(one.probe.turn)), words(one.probe.opening))
        for output in one.outputs:
            named[name].update(set(words(output)))
    shared = _shared(named)
    found = {}
    for name, row in rows.items():
        known = given[name] | shared | _sentence(row)
        others = [count for word, count in named[name].items() if word not in known]
        best = max(others, default=0)
        first = told[name] > 0 and told[name] >= best
        found[name] = 1 / (1 + others.count(told[name])) if first else 0.0
    return found


def _sentence(row: Row) -> set[str]:
    """The words around the value, and its own, in all wordings of the answer."""
    said = [turn.completion for turn in row.turns] + [
        place.turn.completion for place in places(row)
    ]
    return {word for text in (*said, *row.forms) for word in words(text)}


def _shared(named: dict[str, Counter[str]]) -> set[str]:
    """Words in the answers to more than half of the rows."""
    rows_with = Counter(word for counts in named.values() for word in counts)
    return {word for word, rows in rows_with.items() if rows > max(1, len(named) / 2)}
