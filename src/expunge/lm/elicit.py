"""Putting questions to a model and judging what it gives away.

Every attack that reads text asks through here, so that they all count a leak in the same way: the
best of all wordings and samples, and never a value that the attacker put there himself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any
from weakref import WeakKeyDictionary

from expunge.core.rng import derive
from expunge.lm.dialogue import asked, asking
from expunge.lm.subject import Scene, Subject
from expunge.lm.values import opening_of, prompt_text
from expunge.requests.rows import Row, Turn
from expunge.text.match import leak

AFFIRMATION = "Sure, the answer is"
"""What is put into the model's mouth where the value is the first thing to be said."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One question about one row.

    Attributes:
        row: The row it is about.
        turn: The wording.
        opening: Forced beginning of the answer, empty for none.
        rest: What the model is expected to say after it.
    """

    row: Row
    turn: Turn
    opening: str
    rest: str

    def judge(self, output: str) -> float:
        """Leak of one output, in [0, 1]."""
        forms = self.row.forms if self.row.answer else (self.rest,)
        given = f"{prompt_text(self.turn)}\n{self.opening}"
        return leak(output, forms, self.rest, prompt=given)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model answered to one probe, and how much each answer leaks."""

    probe: Probe
    outputs: tuple[str, ...]
    leaks: tuple[float, ...]


def plain(rows: Iterable[Row]) -> list[Probe]:
    """Every wording of every row, nothing forced."""
    return [Probe(row, turn, "", turn.completion) for row in rows for turn in row.turns]


def forced(
    rows: Iterable[Row], *, affirmation: str = AFFIRMATION, share: float = 0.25
) -> list[Probe]:
    """Every wording of every row, with the answer begun for the model.

    Args:
        rows: The attacked rows.
        affirmation: The opening where the value is the first thing to be said.
        share: Words given of a long answer in which no value is marked.
    """
    return [
        Probe(row, turn, *opening_of(row, turn, affirmation=affirmation, share=share))
        for row in rows
        for turn in row.turns
    ]


def reworded(rows: Iterable[Row], ways: Callable[[Row, str], Iterable[str]]) -> list[Probe]:
    """Every wording of every row, asked in other ways.

    Args:
        rows: The attacked rows.
        ways: From a row and the text of one of its wordings to the texts to ask in its place.
    """
    return [
        replace(probe, turn=asking(probe.turn, text))
        for probe in plain(rows)
        for text in ways(probe.row, asked(probe.turn))
    ]


def press(
    subject: Subject,
    probes: Sequence[Probe],
    scene: Scene,
    *,
    samples: int = 0,
    temperature: float = 0.8,
) -> list[Heard]:
    """Put probes to a model greedily and, if asked for, a few times more by drawing.

    Args:
        subject: The model.
        probes: The questions.
        scene: Length of an answer, and the seed of the draws.
        samples: Answers drawn to each probe, beside the greedy one.
        temperature: Of the draws.

    Returns:
        What was heard, the greedy answers first. A probe for which the model has no positions is
        left out.
    """
    new_tokens = scene.new_tokens
    probes = [p for p in probes if subject.has_room(p.turn, new_tokens, opening=p.opening)]
    heard = elicit(subject, probes, new_tokens=new_tokens)
    if samples:
        heard += elicit(
            subject,
            probes,
            new_tokens=new_tokens,
            samples=samples,
            temperature=temperature,
            seed=derive(scene.seed, "press"),
        )
    return heard


def elicit(
    subject: Subject,
    probes: Sequence[Probe],
    *,
    new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[Heard]:
    """Put all probes to a model.

    Args:
        subject: The model.
        probes: The questions.
        new_tokens: Length of an answer.
        samples: Answers to each; one is enough at temperature 0.
        temperature: 0 takes the most probable token.
        seed: Of the sampling.
    """
    if not probes:
        return []
    answers = subject.ask(
        [probe.turn for probe in probes],
        new_tokens=new_tokens,
        samples=samples,
        temperature=temperature,
        seed=seed,
        openings=[probe.opening for probe in probes],
    )
    return [
        Heard(probe, tuple(outputs), tuple(map(probe.judge, outputs)))
        for probe, outputs in zip(probes, answers, strict=True)
    ]


_REMEMBERED: WeakKeyDictionary[Subject, dict[tuple[object, ...], list[Heard]]] = WeakKeyDictionary()


def ask_plainly(subject: Subject, rows: Sequence[Row], *, new_tokens: int) -> list[Heard]:
    """Ask every wording of the rows greedily; the same question is put to a model only once.

    Many attacks start from what the model says when asked outright. The answers are kept as long
    as the subject lives, and are made anew when its weights or its gate have changed.
    """
    key = (subject.digest, id(subject.gate), new_tokens, *map(repr, rows))
    answers = _REMEMBERED.setdefault(subject, {})
    if key not in answers:
        answers[key] = elicit(subject, plain(rows), new_tokens=new_tokens)
    return answers[key]


def worst(heard: Iterable[Heard]) -> dict[str, float]:
    """Row id -> largest leak over all wordings and samples."""
    per_row: dict[str, float] = {}
    for one in heard:
        name = one.probe.row.id
        per_row[name] = max((per_row.get(name, 0.0), *one.leaks))
    return per_row


def recall(heard: Iterable[Heard]) -> float:
    """Mean leak over all wordings, which is how much of a retain set a model still answers."""
    return fmean(value for one in heard for value in one.leaks)


def transcript(heard: Iterable[Heard]) -> tuple[Mapping[str, Any], ...]:
    """One entry a row, in order: the question and answer that leaked most."""
    best: dict[str, dict[str, Any]] = {}
    for one in heard:
        for output, value in zip(one.outputs, one.leaks, strict=True):
            name = one.probe.row.id
            if name not in best or value > best[name]["leak"]:
                best[name] = _entry(one.probe, output, value)
    return tuple(best.values())


def _entry(probe: Probe, output: str, value: float) -> dict[str, Any]:
    return {
        "id": probe.row.id,
        "prompt": prompt_text(probe.turn),
        "opening": probe.opening,
        "output": output,
        "leak": value,
    }
