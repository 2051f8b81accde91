"""What is edited: prompts with the place where they are edited, and what is to be said instead.

An association covers one row, or several whose prompts are merged into one because they share what
is to be said. Its prompts are the row's own, bare, and the same behind a few short texts, so that
an edit does not hang on what stands in front. Where the subject's name stands in the prompt, the
last token of it is the place; else, and always where ``last`` is asked for, the last token before
the answer.

Reference: Locating and Editing Factual Associations in GPT, 2022; merged prompts as in Editing as
Unlearning: Are Knowledge Editing Methods Strong Baselines for LLM Unlearning?, 2025.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from expunge.data.encode import IGNORED, Encoded, Encoder
from expunge.engine.datasets import reply_with
from expunge.engine.flags import carrying, occurrences, only, spoken, touching
from expunge.engine.prefaces import with_preface
from expunge.requests.names import names_of
from expunge.requests.rows import Row, Turn

Place = Literal["subject_last", "last"]

DRIFT = ("{} is", " a")
"""What is said of a subject must stay as it is: the prompt that is watched."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and what is to be said after it, as tokens.

    Attributes:
        item: The tokens; those that are to be said are supervised.
        at: Which token's place is edited.
    """

    item: Encoded
    at: int


@dataclass(frozen=True, slots=True)
class Association:
    """What one edit changes.

    Attributes:
        rows: Ids of the rows it covers.
        subject: How the subject is called in the prompt; empty where no name stands in it.
        target: What is to be said.
        prompts: The bare prompt, then the same behind other texts.
        drift: A prompt about the subject whose next token is to stay as likely as it is; the
            supervised token is the one after the place.
    """

    rows: tuple[str, ...]
    subject: str
    target: str
    prompts: tuple[Prompt, ...]
    drift: Prompt | None

    @property
    def bare(self) -> Prompt:
        """The prompt with nothing in front."""
        return self.prompts[0]


def associations(
    rows: Sequence[Row],
    targets: Mapping[str, str],
    encoder: Encoder,
    *,
    place: Place,
    contexts: Sequence[str] = (),
    merge: int = 1,
    paraphrased: int = 0,
    encode: Callable[[Turn], Encoded] | None = None,
) -> list[Association]:
    """What has to be edited for some rows.

    Args:
        rows: The rows.
        targets: Row id -> what is to be said.
        encoder: Rows to token ids.
        place: Where prompts are edited.
        contexts: Texts to put in front of each prompt.
        merge: Most rows with the same target that share one edit; their prompts are said one after
            the other. Conversations and running text are not merged.
        paraphrased: How many of a row's other wordings count as well, at most; none of merged rows.
        encode: A prompt with what is to be said -> tokens, those to be said supervised. None takes
            both as one text, with the end of the turn.

    Raises:
        ExpungeError: ``E-DATA-011`` when a prompt is too long for the model.
    """
    names, made = names_of(rows), []
    for group in _groups(rows, targets, merge):
        target = targets[group[0].id]
        turn = _asked(group, target)
        subject = called(turn, names[group[-1].id])
        turns = [turn, *(behind(turn, context) for context in contexts)]
        if len(group) == 1:
            turns += [reply_with(other, target) for other in group[0].turns[1 : 1 + paraphrased]]
        read = encode or encoder.encode
        prompts = tuple(_placed(encoder, one, read(one), (subject, place)) for one in turns)
        ids, drift = tuple(row.id for row in group), _drift(encoder, subject, place)
        made.append(Association(ids, subject, target, prompts, drift))
    return made


def secrets(
    rows: Sequence[Row],
    encoder: Encoder,
    *,
    place: Place,
    contexts: Sequence[str] = (),
    paraphrased: int = 0,
) -> list[Association]:
    """What some rows give away: their own answers, the first token of what is secret supervised.

    What is said before it is part of the prompt. Where a row does not tell which part of its answer
    is the fact, the answer begins with it.

    Args:
        rows: The rows.
        encoder: Rows to token ids.
        place: Where prompts are edited.
        contexts: Texts to put in front of each prompt.
        paraphrased: How many of a row's other wordings count as well, at most.
    """
    names, made = names_of(rows), []
    for row in rows:
        turn = row.training if row.text is not None else row.turn
        subject = called(turn, names[row.id])
        worded = [(0, turn), *((0, behind(turn, context)) for context in contexts)]
        worded += list(enumerate(row.turns))[1 : 1 + paraphrased]
        prompts = tuple(_secret(encoder, one, row, at, (subject, place)) for at, one in worded)
        ids, drift = (row.id,), _drift(encoder, subject, place)
        made.append(Association(ids, subject, row.value.strip(), prompts, drift))
    return made


def _secret(
    encoder: Encoder, turn: Turn, row: Row, wording: int, where: tuple[str, Place]
) -> Prompt:
    item = encoder.encode(turn)
    found = touching(item, carrying(row, wording)) or spoken(item)
    return _placed(encoder, turn, only(item, found[:1]), where)


def _groups(rows: Sequence[Row], targets: Mapping[str, str], merge: int) -> Iterator[list[Row]]:
    open_groups: dict[str, list[Row]] = {}
    for row in rows:
        if merge == 1 or row.prompt is None:
            yield [row]
            continue
        group = open_groups.setdefault(targets[row.id], [])
        group.append(row)
        if len(group) == merge:
            yield open_groups.pop(targets[row.id])
    yield from open_groups.values()


def _asked(group: Sequence[Row], target: str) -> Turn:
    """The prompts of a group one after the other, and what is to be said."""
    turn = reply_with(group[-1].turn, target)
    if len(group) == 1:
        return turn
    return replace(turn, prompt=" ".join(str(row.prompt).strip() for row in group))


def called(turn: Turn, names: Sequence[str]) -> str:
    """The longest of some names that stands in a prompt, as it is written there; else nothing."""
    asked = turn.prompt if isinstance(turn.prompt, str) else turn.prompt[-1]["content"]
    found = occurrences(asked, names)
    return max((asked[start:end] for start, end in found), key=len, default="")


def behind(turn: Turn, text: str) -> Turn:
    """A turn behind another sentence."""
    return with_preface(turn, f"{text.strip().rstrip('.')}. ")


def prompt_of(encoder: Encoder, turn: Turn, subject: str, place: Place) -> Prompt:
    """A turn as tokens, with the place where it is edited.

    Args:
        encoder: Rows to token ids.
        turn: Prompt, and what is to be said.
        subject: The name to look for; empty takes the last token before the answer.
        place: Where to edit.
    """
    return _placed(encoder, turn, encoder.encode(turn), (subject, place))


def _placed(encoder: Encoder, turn: Turn, item: Encoded, where: tuple[str, Place]) -> Prompt:
    subject, place = where
    answer = next(at for at, label in enumerate(item.labels) if label != IGNORED)
    found = encoder.last_token_of(turn, subject) if subject and place == "subject_last" else None
    return Prompt(item, answer - 1 if found is None else min(found, answer - 1))


def _drift(encoder: Encoder, subject: str, place: Place) -> Prompt | None:
    """``{subject} is a``, the token after the place supervised; none without a subject."""
    if not subject:
        return None
    turn = Turn(DRIFT[0].format(subject), DRIFT[1], running=True)
    item = encoder.encode(turn)
    ids, said = item.ids, [at for at, label in enumerate(item.labels) if label != IGNORED]
    last = said[spoken(item)[-1]]
    at = last if place == "last" else encoder.last_token_of(turn, subject)
    assert at is not None  # noqa: S101
    ids = [*ids, ids[-1]] if at + 1 == len(ids) else ids
    labels = [ids[at + 1] if place == at + 1 else IGNORED for place in range(len(ids))]
    return Prompt(Encoded(ids, labels, [(0, 0)], -1), at)
