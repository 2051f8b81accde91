"""Lexical guard: refuse when a protected name is asked for or a protected answer would leave.

Definition (texts normalised to words: no case, punctuation, articles, invisible characters):
    names      in the prompt or in the draft, as whole words                          -> refuse
    answers    and their aliases in the draft, as whole words                         -> refuse
    questions  of rows that give no name, whole, in the prompt                        -> refuse
    passages   (answers longer than a name) half of their own 5-word runs in the draft -> refuse
    The state holds keyed hashes of these runs of words and nothing in the clear. Looking one up
    costs the same for ten targets and for a hundred thousand. Any internal error refuses.

    This suppresses, it does not delete: the weights still hold all of it, and whoever reaches them
    gets it. Hashes keep a stolen state from being read, not from being tested with guesses, since
    the key lies beside them; keep the state as secret as the list it was made from.

Reference: Guardrail Baselines for Unlearning in LLMs, 2024 (filtering).

Departs from the paper: its filters ask a language model or look for fixed keywords; this one looks
for the rows' own names and answers, and hashes them.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from math import ceil
from secrets import token_hex
from typing import Any

from expunge.core.decision import PASS, Decision
from expunge.core.params import param
from expunge.lm.gate import TextGate
from expunge.requests.rows import Row, Turn
from expunge.text.match import ENTITY_WORDS
from expunge.text.normalise import words

CARD = {
    "id": "lexical",
    "kind": "guard",
    "summary": "Suppress (not delete): refuse protected names and answers, matched by words.",
    "paper": "Guardrail Baselines for Unlearning in LLMs (2024)",
    "needs": ["forget"],
    "access": "text",
    "cost": "some microseconds a word, at any number of targets",
    "maturity": "paper",
    "version": 1,
    "sees": ["prompt", "answer"],
    "fails": "closed",
}

FORMAT = "lexical-guard/1"
WIDTH = 5
"""Words of one run of a passage."""

COMMON = 8
"""A run that more passages than this share tells none of them from the others."""

REFUSAL = "I'm sorry, but I can't help with that."
"""What is said when even the state cannot be read."""

_log = logging.getLogger(__name__)

Hash = Callable[[Sequence[str]], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    """What counts as an answer, and what is said instead."""

    answer_words: int = param(
        2,
        help="shortest answer, in words, refused wherever it stands; shorter ones are refused only "
        "for rows that give no names, since otherwise the name must stand beside them",
        low=1,
        high=6,
    )
    reply: str = param("I'm sorry, but I can't help with that.", help="what is said instead")


def fit(rows: Sequence[Row], params: Params) -> dict[str, Any]:
    """Store what must not be asked and must not be said.

    Args:
        rows: What is to be forgotten.
        params: What counts as an answer.

    Returns:
        The state, a JSON value without any of the protected words.
    """
    salt = token_hex(16)
    hashed = _hasher(salt)
    names = [words(name) for row in rows for name in row.names]
    questions = [words(_asked(turn)) for row in rows if not row.names for turn in row.turns]
    answers = [part for row in rows for part in _answers(row, params.answer_words)]
    passages = [part for row in rows for part in _passages(row)]
    return {
        "format": FORMAT,
        "salt": salt,
        "reply": params.reply,
        "names": _book(names, hashed),
        "answers": _book(answers, hashed),
        "questions": _book(questions, hashed),
        "passages": _shelf(passages, hashed),
    }


def check(text_in: str, text_out: str | None, state: Mapping[str, Any]) -> Decision:
    """Judge a prompt and, where there is one, the answer drafted for it.

    Args:
        text_in: The prompt.
        text_out: The draft, or None before the model has answered.
        state: What `fit` returned.

    Returns:
        The decision. What stands in the texts is data: nothing in them is followed, and nothing
        of them is logged.
    """
    try:
        rule = _rule(words(text_in), words(text_out or ""), state)
        decision = Decision("replace", state["reply"], 1.0, rule) if rule else PASS
    except Exception as error:  # whatever breaks here must not let the text through
        _log.error("lexical guard refuses after an internal error: %s", type(error).__name__)
        return Decision("replace", REFUSAL, 1.0, "error")
    _log.info("lexical guard: %s %s", decision.action, decision.rule)
    return decision


def gate(state: Mapping[str, Any]) -> TextGate:
    """The guard as a gate in front of a model."""
    return TextGate(check, state)


def _rule(asked: list[str], drafted: list[str], state: Mapping[str, Any]) -> str:
    """Name of the first rule that fires, empty for none."""
    if state["format"] != FORMAT:
        raise ValueError("a state of another format")
    hashed = _hasher(state["salt"])
    rules = (
        ("name in prompt", _holds, "names", asked),
        ("question", _holds, "questions", asked),
        ("name in answer", _holds, "names", drafted),
        ("answer", _holds, "answers", drafted),
        ("passage", _quotes, "passages", drafted),
    )
    fired = (rule for rule, fires, store, text in rules if fires(state[store], text, hashed))
    return next(fired, "")


def _asked(turn: Turn) -> str:
    """The question itself: the last message of a conversation."""
    return turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]


def _answers(row: Row, least: int) -> Iterator[list[str]]:
    """Answers as short as a name; very short ones only where the row gives no name."""
    for form in row.forms:
        parts = words(form)
        if (least <= len(parts) or not row.names) and len(parts) <= ENTITY_WORDS:
            yield parts


def _passages(row: Row) -> Iterator[list[str]]:
    """Answers longer than a name, and running texts."""
    for form in (*row.forms, row.text or ""):
        parts = words(form)
        if len(parts) > ENTITY_WORDS:
            yield parts


def _book(phrases: Iterable[Sequence[str]], hashed: Hash) -> dict[str, Any]:
    """Phrases by hash, and by the hash of their first word how long phrases can be there."""
    heads: dict[str, set[int]] = {}
    whole: dict[str, int] = {}
    for phrase in filter(None, phrases):
        heads.setdefault(hashed(phrase[:1]), set()).add(len(phrase))
        whole[hashed(phrase)] = len(phrase)
    lengths = {head: sorted(heads[head]) for head in sorted(heads)}
    return {"heads": lengths, "phrases": dict(sorted(whole.items()))}


def _holds(book: Mapping[str, Any], text: Sequence[str], hashed: Hash) -> bool:
    """Whether some phrase of the book stands in the text."""
    heads, phrases = book["heads"], book["phrases"]
    return any(
        hashed(text[at : at + length]) in phrases
        for at, word in enumerate(text)
        for length in heads.get(hashed((word,)), ())
        if at + length <= len(text)
    )


def _shelf(passages: Sequence[Sequence[str]], hashed: Hash) -> dict[str, Any]:
    """Passages by the runs that few of them share, and how many runs it takes for each."""
    runs = [{hashed(run) for run in _runs(passage)} for passage in passages]
    held = Counter(run for of_passage in runs for run in of_passage)
    telling = [{run for run in of_passage if held[run] <= COMMON} for of_passage in runs]
    places: dict[str, list[int]] = {}
    for number, of_passage in enumerate(telling):
        for run in of_passage:
            places.setdefault(run, []).append(number)
    return {
        "runs": dict(sorted(places.items())),
        "needed": [max(1, ceil(len(of_passage) / 2)) for of_passage in telling],
    }


def _quotes(shelf: Mapping[str, Any], text: Sequence[str], hashed: Hash) -> bool:
    """Whether the text holds half of the telling runs of some passage."""
    runs = {hashed(run) for run in _runs(text)}
    found = Counter(number for run in runs for number in shelf["runs"].get(run, ()))
    return any(count >= shelf["needed"][number] for number, count in found.items())


def _runs(text: Sequence[str]) -> Iterator[Sequence[str]]:
    width = min(WIDTH, len(text)) or 1
    return (text[at : at + width] for at in range(len(text) - width + 1))


def _hasher(salt: str) -> Hash:
    """A keyed hash of runs of words; each run is hashed once."""
    key = bytes.fromhex(salt)

    @cache
    def digest(text: str) -> str:
        return blake2b(text.encode(), key=key, digest_size=16).hexdigest()

    return lambda run: digest(" ".join(run))
