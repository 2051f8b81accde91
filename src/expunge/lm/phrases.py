"""How likely a model finds short phrases after a prompt, one number for each.

Editing benchmarks compare the values of a fact by the mean log-probability of their own tokens:
what ends an answer is not part of a value, and neither is a space that a tokenizer writes as a
token of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from expunge.lm.subject import Scored, Subject
from expunge.requests.rows import Row, Turn

Phrases = Mapping[str, Sequence[str]]
"""Name of a group -> completions."""


def phrase_logp(subject: Subject, turns: Sequence[Turn]) -> list[float]:
    """Mean log-probability of a token of each completion, in nats.

    Args:
        subject: The model; what stands in front of it is passed by.
        turns: Prompts with the phrases.

    Returns:
        One number a turn. The ending token and blank tokens before the first letter do not count.
    """
    return [
        own_tokens_mean(scored, turn.completion)
        for scored, turn in zip(subject.score(turns), turns, strict=True)
    ]


def own_tokens_mean(scored: Scored, phrase: str) -> float:
    """Mean log-probability of the tokens that carry the phrase."""
    spans = list(scored.spans)[: scored.text_tokens]
    carrying = (i for i, (start, end) in enumerate(spans) if phrase[start:end].strip())
    first = next(carrying, 0)
    return float(scored.logp[first : scored.text_tokens].mean())


def grouped_logp(
    subject: Subject, rows: Iterable[tuple[Row, Phrases]]
) -> dict[str, dict[str, list[float]]]:
    """`phrase_logp` of several groups of phrases after each row's prompt, in one pass.

    Args:
        subject: The model.
        rows: Each row with its groups.

    Returns:
        Row id -> name of a group -> one number for each phrase.
    """
    asked = [
        (row.id, name, replace(row.turn, completion=phrase))
        for row, groups in rows
        for name, phrases in groups.items()
        for phrase in phrases
    ]
    found: dict[str, dict[str, list[float]]] = {}
    for (row, name, _), logp in zip(
        asked, phrase_logp(subject, [turn for *_, turn in asked]), strict=True
    ):
        found.setdefault(row, {}).setdefault(name, []).append(logp)
    return found
