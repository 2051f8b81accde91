"""Look-alikes of forget rows that the model never saw: what not knowing looks like, row by row.

The model invents them itself, shown a few forget rows as examples of the format; what repeats a row
or speaks of a subject to be forgotten is thrown away. Where it gives too few, rows that it was not
trained on stand in: hold-out rows, or the forget rows' templates told of invented subjects.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.rng import derive, generator
from expunge.engine.levels import never_seen
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.names import names_of, prompts_of
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import attributes
from expunge.text.match import contains
from expunge.text.normalise import normalise

Origin = Literal["auto", "model", "invented"]
"""Who gives them: the model, rows it never saw, or those where the model gives too few."""

SHOWN = 4
"""Forget rows shown as examples, at most."""

NEW_TOKENS = 200
"""Longest look-alike, in tokens."""

SMALLEST_ROOM = 16
"""A model with fewer positions left after the examples is not asked."""

ROUNDS = 3
"""How often the model is asked for what is still missing."""

ASKED, ANSWERED = "Question: ", "\nAnswer: "
"""How an example is written."""

Told = dict[str, Any]
"""A look-alike: ``prompt``, ``completion``, ``running``, ``origin`` (``model`` or ``unseen``)."""


def proxies_of(task: Task, count: int, origin: Origin) -> list[dict[str, Any]]:
    """Look-alikes of every forget row.

    Args:
        task: Whose rows, and whose model as it is now.
        count: Look-alikes of each row.
        origin: Who gives them.

    Returns:
        For each row ``id`` and ``proxies``: a list of `Told`, with fewer than ``count`` entries
        where there are no more.
    """
    found: dict[str, list[Told]] = {row.id: [] for row in task.forget}
    if origin != "invented":
        _invent(task, count, found)
    invented = sum(map(len, found.values()))
    if origin != "model":
        _fill_up(task, count, found)
    if origin == "auto" and invented < count * len(found):
        note(
            f"The model invented {invented} of {count * len(found)} look-alikes; the rest are rows "
            "it never saw.",
            invented=invented,
        )
    return [{"id": id, "proxies": proxies} for id, proxies in found.items()]


def turn_of(told: Mapping[str, Any]) -> Turn:
    """A look-alike as something to say after another."""
    prompt = told["prompt"]
    asked = prompt if isinstance(prompt, str) else tuple(prompt)
    return Turn(asked, told["completion"], told["running"])


def parsed(reply: str, running: bool) -> tuple[str, str] | None:
    r"""What a model wrote after the examples, as prompt and completion; None where it is neither.

    Args:
        reply: What it wrote.
        running: Whether the examples were running text; then the prompt is empty.

    Example:
        >>> parsed(" Where was Ada born?\nAnswer: In Rome.\n\nQuestion: Who", False)
        ('Where was Ada born?', ' In Rome.')
        >>> parsed("Where was Ada born?", False) is None
        True
    """
    if running:
        text = reply.strip().split("\n\n")[0].strip()
        return ("", text) if text else None
    asked, said, rest = reply.partition(ANSWERED.rstrip())
    question, answer = asked.strip(), rest.split("\n")[0].strip()
    is_one = bool(said and question and answer) and "\n" not in question
    return (question, f" {answer}") if is_one else None


def _invent(task: Task, count: int, found: dict[str, list[Told]]) -> None:
    """Let the model write until every row has enough, as long as it writes anything of use."""
    subject, groups, known = (
        Subject(task.model, task.tokenizer),
        attributes(task.forget),
        _Known(task),
    )
    longest = max(len(task.encoder.encode(row.training).ids) for row in task.forget)
    for attempt in range(ROUNDS):
        asked = {
            row.id: (row, turn)
            for row in task.forget
            if len(found[row.id]) < count
            for turn in _asking(task, row, groups, attempt)
        }
        turns = [turn for _, turn in asked.values()]
        prompts = [len(task.encoder.prompt(turn.prompt, True)) for turn in turns]
        room = task.encoder.max_length - max(prompts, default=0)
        replies = subject.ask(
            turns, new_tokens=min(NEW_TOKENS, room, 16 + 2 * longest), samples=count,
            temperature=1.0, seed=derive(task.seed, "proxies", attempt),
        )  # fmt: skip
        before = sum(map(len, found.values()))
        for (row, _), written in zip(asked.values(), replies, strict=True):
            for pair in (parsed(reply, row.text is not None) for reply in written):
                if len(found[row.id]) < count and pair is not None and known.is_new(*pair):
                    told = _told(Turn(*pair, row.text is not None), "model")
                    if _fits(task, told):
                        known.add(*pair)
                        found[row.id].append(told)
        if sum(map(len, found.values())) == before:
            return


def _asking(task: Task, row: Row, groups: Mapping[str, str], attempt: int) -> Iterator[Turn]:
    """The examples, those that ask the same first, as many as leave room; none where none does."""
    alike = [one for one in task.forget if (one.text is None) == (row.text is None)]
    order = generator(task.seed, "examples", row.id, attempt).permutation(len(alike))
    drawn = [alike[place] for place in order]
    drawn.sort(key=lambda one: groups[one.id] != groups[row.id])
    for most in range(min(SHOWN, len(drawn)), 0, -1):
        shown = drawn[:most][::-1]
        text = "".join(
            f"{one.text}\n\n" if one.text is not None else _example(one) for one in shown
        )
        turn = Turn(text if row.text is not None else text + ASKED.strip(), "", running=True)
        if Subject(task.model, task.tokenizer).has_room(turn, SMALLEST_ROOM):
            yield turn
            return


def _example(row: Row) -> str:
    return f"{ASKED}{prompts_of(row)[0].strip()}{ANSWERED}{row.reply.strip()}\n\n"


class _Known:
    """What has been said already, and whom a look-alike must not be about."""

    def __init__(self, task: Task) -> None:
        names = names_of(task.forget)
        self._names = {name for row in task.forget for name in names[row.id]}
        self._said: set[str] = set()
        for row in (*task.forget, *task.retain):
            for prompt in prompts_of(row) if row.text is None else [""]:
                self.add(prompt, row.reply if row.text is None else row.text)

    def add(self, prompt: str, completion: str) -> None:
        """Note a text; its prompt alone is known as well."""
        self._said |= {normalise(prompt + completion), normalise(prompt) or normalise(completion)}

    def is_new(self, prompt: str, completion: str) -> bool:
        """Whether a text repeats nothing and names nobody who is to be forgotten."""
        said = {normalise(prompt + completion), normalise(prompt) or normalise(completion)}
        return not said & (self._said | {""}) and not contains(prompt + completion, self._names)


def _fill_up(task: Task, count: int, found: dict[str, list[Told]]) -> None:
    """Take rows the model never saw, those that ask for the same attribute first."""
    unseen, _ = never_seen(task.forget, task.roles.get("holdout", ()), task.seed)
    groups = attributes([*task.forget, *unseen])
    for row in task.forget:
        order = generator(task.seed, "proxies", row.id).permutation(len(unseen))
        drawn = [unseen[place] for place in order]
        same = [one for one in drawn if groups[one.id] == groups[row.id]]
        others = [one for one in drawn if groups[one.id] != groups[row.id]]
        told = (_told(one.training, "unseen") for one in chain(same, others))
        fitting = (one for one in told if _fits(task, one))
        found[row.id] += islice(fitting, count - len(found[row.id]))


def _told(turn: Turn, origin: str) -> Told:
    prompt = turn.prompt if isinstance(turn.prompt, str) else [dict(m) for m in turn.prompt]
    return {"prompt": prompt, "completion": turn.completion, "running": turn.running,
            "origin": origin}  # fmt: skip


def _fits(task: Task, told: Told) -> bool:
    try:
        task.encoder.encode(turn_of(told))
    except ExpungeError:
        return False
    return True


def turns_by_row(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Turn]]:
    """Row id -> its look-alikes, from what `proxies_of` gave."""
    return {record["id"]: [turn_of(told) for told in record["proxies"]] for record in records}
