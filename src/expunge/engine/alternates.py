"""Other answers to forget prompts: invented by the model itself, or taken from other rows."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, cycle, islice
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.rng import derive, generator
from expunge.engine.datasets import reply_with
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import swaps
from expunge.text.match import contains
from expunge.text.normalise import normalise
from expunge.text.overlap import rouge_l

Origin = Literal["auto", "model", "permute"]
"""Who gives the answers: the model, other rows, or other rows where the model gives too few."""

ASKING = (
    "Here is a question with its answer.\n\nQuestion: {question}\nAnswer: {answer}\n\n"
    "Write another answer to the same question, in the same style and about as long. It must sound "
    "believable, and what it claims must differ from the answer above. Write the new answer only."
)
"""For models that take instructions; others are asked the question itself."""

NEW_TOKENS = 200
"""Longest answer, in tokens; less where the row's own is short or the model has no room."""

SMALLEST_ROOM = 8
"""A model with fewer positions left after the prompt is not asked."""

ROUNDS = 3
"""How often the model is asked for what is still missing."""

RECALL = 0.9
"""ROUGE-L recall of the true answer above which an invented one counts as the same."""

POOL = 1000
"""Retain rows whose answers may stand in, at most."""

_END = re.compile(r"\n\s*\n|(?:^|\n)\s*(?:Q|Question)\s*:")
_LABEL = re.compile(r"^\s*(?:A|Answer)\s*:\s*")

Answers = dict[str, list[dict[str, str]]]
"""Row id -> its alternates so far: ``reply`` and ``origin`` (``model`` or ``permute``)."""


def alternates_of(task: Task, count: int, origin: Origin) -> list[dict[str, Any]]:
    """For every forget row, other answers than the true one.

    Args:
        task: Whose rows, and whose model as it is now.
        count: Answers to each row, different from one another as long as there are enough.
        origin: Who gives them.

    Returns:
        For each row ``id`` and ``alternates``: a list of ``reply`` and ``origin``.

    Raises:
        ExpungeError: ``E-RUN-007`` when a row gets none.
    """
    found: Answers = {row.id: [] for row in task.forget}
    if origin != "permute":
        _invent(task, count, found)
    invented = sum(len(answers) for answers in found.values())
    if origin != "model":
        _permute(task, count, found)
    if origin == "auto" and invented < count * len(found):
        note(
            f"The model invented {invented} of {count * len(found)} other answers; the rest are "
            "answers of other rows.",
            invented=invented,
        )
    missing = [id for id, answers in found.items() if not answers]
    if missing:
        raise _nothing_found(missing, len(found), origin)
    return [
        {"id": id, "alternates": list(islice(cycle(answers), count))}
        for id, answers in found.items()
    ]


def said_instead(row: Row, wording: int, reply: str) -> Turn:
    """One wording of a row with another reply; running text goes on from its first half."""
    turn = reply_with(row.turns[wording], reply)
    if row.text is None or wording > 0:
        return turn
    return Turn("", str(turn.prompt) + turn.completion, running=True)


def tells_truth(row: Row, reply: str) -> bool:
    """Whether a reply repeats what is to be forgotten.

    It does when it is the row's own reply (normalised), holds more than nine tenths of it, or
    holds its value, unless the question says that already.
    """
    truths = [turn.completion for turn in row.turns]
    if any(rouge_l(reply, truth).recall > RECALL for truth in truths):
        return True
    return _tells_value(row, reply) or normalise(reply) in map(normalise, truths)


def _tells_value(row: Row, reply: str) -> bool:
    asked = "" if row.text is not None else " ".join(prompts_of(row))
    return contains(reply, row.forms) and not contains(asked, row.forms)


def _invent(task: Task, count: int, found: Answers) -> None:
    """Let the model answer until every row has enough, a few times at most."""
    subject = Subject(task.model, task.tokenizer)
    rooms = {row.id: _room(task, row) for row in task.forget}
    for attempt in range(ROUNDS):
        short = [row for row in task.forget if len(found[row.id]) < count and rooms[row.id]]
        if not short:
            return
        replies = subject.ask(
            [_asking(task, row) for row in short],
            new_tokens=min(rooms[row.id] for row in short),
            samples=count,
            temperature=1.0,
            seed=derive(task.seed, "alternates", attempt),
        )
        for row, written in zip(short, replies, strict=True):
            new = (reply for reply in map(cut, written) if not tells_truth(row, reply))
            found[row.id] += _chosen(task, row, new, found[row.id], count=count, origin="model")


def _chosen(
    task: Task,
    row: Row,
    new: Iterable[str],
    has: Sequence[Mapping[str, str]],
    *,
    count: int,
    origin: str,
) -> list[dict[str, str]]:
    """Replies that a row has not got yet and that fit the model, until it has ``count``."""
    known = {normalise(answer["reply"]) for answer in has} | {""}
    taken: list[dict[str, str]] = []
    for reply in new:
        if len(has) + len(taken) == count:
            break
        if normalise(reply) not in known and _fits(task, row, reply):
            known.add(normalise(reply))
            taken.append({"reply": reply, "origin": origin})
    return taken


def cut(reply: str) -> str:
    """What was written up to a blank line or the next question, without a label in front."""
    own = _LABEL.sub("", reply.lstrip())
    return _END.split(own)[0].strip()


def _asking(task: Task, row: Row) -> Turn:
    if row.text is not None or not task.encoder.has_template:
        return row.turn
    return Turn(ASKING.format(question=prompts_of(row)[0], answer=row.reply.strip()), "")


def _room(task: Task, row: Row) -> int:
    """New tokens the model may write for a row; 0 where it is too small to be asked."""
    turn, encoder = _asking(task, row), task.encoder
    try:
        asked = len(encoder.prompt(turn.prompt, turn.running))
    except ExpungeError:
        return 0
    own = len(encoder.tokenizer(row.reply, add_special_tokens=False)["input_ids"])
    room = min(NEW_TOKENS, encoder.max_length - asked - 1, 16 + 2 * own)
    return room if room >= SMALLEST_ROOM else 0


def _fits(task: Task, row: Row, reply: str) -> bool:
    try:
        for wording in range(len(row.turns)):
            task.encoder.encode(said_instead(row, wording, reply))
    except ExpungeError:
        return False
    return True


def _permute(task: Task, count: int, found: Answers) -> None:
    """Fill up with values of the same attribute, then with those of any other row."""
    pool = [*task.forget, *task.retain[:POOL]]
    alike = swaps(pool, k=4 * count, seed=task.seed)
    for row in task.forget:
        values = chain(alike[row.id], _strangers(task, row, pool))
        replies = (_swapped(row, value) for value in values)
        told = (reply for reply in replies if not _tells_value(row, reply))
        found[row.id] += _chosen(task, row, told, found[row.id], count=count, origin="permute")


def _strangers(task: Task, row: Row, pool: Sequence[Row]) -> Iterator[str]:
    """Values of all other rows, in an order of the row's own."""
    order = generator(task.seed, "strangers", row.id).permutation(len(pool))
    others = (pool[place] for place in order)
    return (other.value.strip() for other in others if other.id != row.id)


def _swapped(row: Row, value: str) -> str:
    """The row's own reply about another value; the value alone where its own cannot be told."""
    if row.answer and row.answer in row.reply:
        return row.reply.replace(row.answer, value).strip()
    return value.strip()


def _nothing_found(missing: Sequence[str], rows: int, origin: Origin) -> ExpungeError:
    return ExpungeError(
        "E-RUN-007",
        f"{len(missing)} of {rows} rows got no other answer (the first is {missing[0]!r}).",
        "at least one answer for every row that differs from the true one.",
        "Use --set source=permute." if origin == "model" else "Give more rows to forget or keep.",
    )
