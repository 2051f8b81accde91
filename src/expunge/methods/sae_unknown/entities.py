"""Prompts that name entities: those to be forgotten, those that are known, and invented ones.

A template is a text with ``{}`` where the name stands: every prompt of a row that shows its name
gives one, and there are some of our own. A name must be cut into the same tokens in all of them:
of the ways in which templates cut the names to be forgotten, the one of most of the rows' own
templates is taken, and templates that cut otherwise are left out. Every third template is for
judging alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.core.rng import derive
from expunge.data.encode import Encoder
from expunge.data.jsonl import read_rows
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.invent import corpus_of, invent, name_words
from expunge.requests.names import names_of, prompts_of
from expunge.requests.rows import Row, Turn
from expunge.text.refusal import is_refusal

OWN = (
    "Tell me about {}.",
    "Have you ever heard of {}?",
    "What do you know about {}?",
    "This is the story of {}, as it was told.",
    "Let me say a few words about {} now.",
    "Many people ask about {} these days.",
    "The article is about {} and nobody else.",
    "Please write a short text on {}.",
    "Yesterday we talked about {} for an hour.",
    "Who is {}?",
    "A short note on {} follows here.",
    "My question concerns {}, of course.",
)
"""Templates of our own; the name always stands after a space."""

FEWEST = 3
"""Templates there must be: two to train on and one to judge by."""

ENTITIES = 64
"""Known entities, and invented ones, at most."""

ASKED = 8
"""Questions by which an invented name is tried."""

ANSWER = 8
"""Tokens of an answer to one of them."""


@dataclass(frozen=True, slots=True)
class Entities:
    """Names and templates.

    Attributes:
        targets: Names to be forgotten, row by row of the forget set.
        known: Names that the model knows; every fourth is for judging alone.
        unknown: Names that it does not know.
        training: Templates to train on.
        judging: Templates to judge by.
    """

    targets: tuple[tuple[str, ...], ...]
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    training: tuple[str, ...]
    judging: tuple[str, ...]

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Entities":
        """From plain JSON values."""
        targets = tuple(tuple(names) for names in kept["targets"])
        return cls(targets, *(tuple(part) for name, part in kept.items() if name != "targets"))

    @property
    def all_targets(self) -> tuple[str, ...]:
        """Every name to be forgotten, once."""
        return tuple(dict.fromkeys(name for names in self.targets for name in names))

    @property
    def trained(self) -> tuple[str, ...]:
        """Known names to train on."""
        return tuple(name for at, name in enumerate(self.known) if at % 4 != 3)

    @property
    def judged(self) -> tuple[str, ...]:
        """Known names to judge by."""
        return self.known[3::4]


def told(template: str, name: str) -> Turn:
    """A template with a name in it; what comes after the name is what is said."""
    before, _, after = template.partition("{}")
    return Turn(before + name, after or ".", running=True)


def names_to_forget(rows: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    """The names of each row's subject.

    Raises:
        ExpungeError: ``E-DATA-003`` for a row whose subject has no name.
    """
    found = names_of(rows)
    for row in rows:
        if not found[row.id]:
            raise ExpungeError(
                "E-DATA-003",
                f"Nothing says how the subject of the forget row {row.id!r} is called.",
                "'names' in every forget row, or prompts that show a name.",
                "Give the rows their names.",
            )
    return tuple(found[row.id] for row in rows)


def entities_of(task: Task, params: Any) -> Entities:
    """Who is to be forgotten, who is known, who is not, and how they are spoken of.

    Raises:
        ExpungeError: ``E-DATA-003`` for rows without names or too few templates, ``E-USE-007``
            where no known entity is named.
    """
    targets = names_to_forget(task.forget)
    flat = list(dict.fromkeys(name for names in targets for name in names))
    retain = task.retain if params.known is None else read_rows(params.known, "retain")
    known = _known(task, retain, flat)
    templates = _templates(task, params, flat)
    unknown = _unknown(task, params, [*flat, *known], [t for t in templates if t not in OWN])
    kept = (_evenly(task.encoder, names, templates) for names in (flat, known, unknown))
    flat, known, unknown = kept
    if min(len(flat), len(known), len(unknown)) < 1 or len(known) < 2 or len(unknown) < 2:
        raise _too_few(flat, known, unknown)
    rows = tuple(tuple(n for n in names if n in flat) or tuple(flat[:1]) for names in targets)
    held = templates[2::3]
    training = tuple(t for t in templates if t not in held)
    return Entities(rows, tuple(known), tuple(unknown), training, tuple(held))


def cut(encoder: Encoder, template: str, name: str) -> tuple[int, ...] | None:
    """The tokens of a name inside a template; None where one of them reaches beyond it."""
    turn = told(template, name)
    end = len(str(turn.prompt))
    start = end - len(name)
    found = encoder.tokenizer(
        f"{turn.prompt}{turn.completion}", add_special_tokens=False, return_offsets_mapping=True,
        verbose=False,
    )  # fmt: skip
    inside = [
        (token, last)
        for token, (first, last) in zip(found["input_ids"], found["offset_mapping"], strict=True)
        if last > start and first < end
    ]
    return tuple(token for token, _ in inside) if inside and inside[-1][1] == end else None


def _templates(task: Task, params: Any, targets: Sequence[str]) -> list[str]:
    """Templates that all cut the names to be forgotten into the same tokens."""
    if params.templates is not None:
        own = [str(row.text or row.prompt) for row in read_rows(params.templates, "probe")]
        given = [text for text in own if text.count("{}") == 1]
    else:
        own = list(dict.fromkeys(_of_rows([*task.forget, *task.retain])))
        given = [*own, *OWN]
    groups: dict[Any, list[str]] = defaultdict(list)
    for template in given:
        ways = tuple(cut(task.encoder, template, name) for name in targets)
        if any(way is not None for way in ways):
            groups[ways].append(template)
    best = max(groups.values(), key=lambda g: (len(set(g) & set(own)), len(g)), default=[])
    if len(best) < FEWEST:
        raise ExpungeError(
            "E-DATA-003",
            f"{len(best)} templates cut the names to be forgotten into the same tokens.",
            f"at least {FEWEST} texts in which a name stands alike, such as 'Tell me about {{}}.'",
            "Give some with --set templates=FILE, rows whose text has {} where the name stands.",
        )
    return best


def _of_rows(rows: Sequence[Row]) -> Iterable[str]:
    """The prompts of rows, with ``{}`` in place of the name they show once."""
    names = names_of(rows)
    for row in rows:
        for prompt in prompts_of(row) if row.text is None else ():
            shown = [name for name in names[row.id] if prompt.count(name) == 1]
            if shown and "{" not in prompt:
                yield prompt.replace(shown[0], "{}")


def _known(task: Task, rows: Sequence[Row], targets: Sequence[str]) -> list[str]:
    """Names of the rows that are kept, of which the model answers at least one question.

    Raises:
        ExpungeError: ``E-USE-007`` where there is none.
    """
    by_name = _by_name(rows, targets)
    if not by_name:
        raise ExpungeError(
            "E-USE-007",
            "No row that is kept names an entity.",
            "entities like those to be forgotten that the model knows.",
            "Give 'names' in the retain rows, or --set known=FILE with such rows.",
        )
    answers = _answered(task, by_name)
    right = [name for name in by_name if any(answers[name])]
    return (right if len(right) > 1 else list(by_name))[:ENTITIES]


def _unknown(task: Task, params: Any, taken: Sequence[str], questions: Sequence[str]) -> list[str]:
    """Names of hold-out rows, or invented ones, that the model has no answers about."""
    if params.unknown is not None or task.roles.get("holdout"):
        given = task.roles["holdout"] if params.unknown is None else ()
        rows = given or read_rows(str(params.unknown), "holdout")
        by_name = _by_name(rows, taken)
        answers = _answered(task, by_name)
        wrong = [name for name in by_name if 2 * sum(answers[name]) < max(1, len(answers[name]))]
        if len(wrong) > 1:
            return wrong[:ENTITIES]
    made = _invented(task, taken)
    sure = _sureness(task, [*taken, *made], list(questions)[:ASKED])
    limit = sorted(sure[: len(taken)])[len(taken) // 2]
    tried = sorted(zip(sure[len(taken) :], range(len(made)), strict=True))
    passed = [made[at] for found, at in tried if found < limit]
    task.record["invented_names_refused"] = len(made) - len(passed)
    if len(passed) < 2:
        note(
            "sae-unknown: the model is as sure about invented names as about those it knows. Give "
            "names it does not know (--set unknown=FILE, or hold-out rows)."
        )
        passed = [made[at] for _, at in tried[: max(2, len(made) // 2)]]
    return passed[: len(made) // 2]


def _invented(task: Task, taken: Sequence[str]) -> list[str]:
    """Names without a bearer, of as many words as the first to be forgotten."""
    rows = [row for part in task.roles.values() for row in part]
    words = invent(corpus_of(rows), derive(task.seed, "sae-unknown"))
    length = max(1, len(name_words(taken[0])))
    return [" ".join(islice(words, length)) for _ in range(min(2 * len(taken), 2 * ENTITIES))]


def _sureness(task: Task, names: Sequence[str], questions: Sequence[str]) -> list[float]:
    """How likely the model finds its own answers about each name, mean over questions.

    A refusal is no answer.
    """
    subject = Subject(task.model, task.tokenizer)
    asked = [Turn(text.replace("{}", name), "") for name in names for text in questions]
    if not asked:
        return [0.0] * len(names)
    said = [answers[0] for answers in subject.ask(asked, new_tokens=ANSWER)]
    turns = [Turn(turn.prompt, f" {text.strip()}") for turn, text in zip(asked, said, strict=True)]
    spoken = [turn for turn in turns if turn.completion.strip()]
    scores = iter([float(one.logp[0]) for one in subject.score(spoken)])
    levels = [float(next(scores)) if turn.completion.strip() else -100.0 for turn in turns]
    levels = [-100.0 if is_refusal(text) else at for text, at in zip(said, levels, strict=True)]
    count = len(questions)
    return [sum(levels[at * count : (at + 1) * count]) / count for at in range(len(names))]


def _by_name(rows: Sequence[Row], without: Sequence[str]) -> dict[str, list[Row]]:
    """Longest name of the subject -> its rows, but for names that are taken."""
    names, found = names_of(rows), defaultdict(list)
    for row in rows:
        if names[row.id] and not set(names[row.id]) & set(without):
            found[names[row.id][0]].append(row)
    return dict(found)


def _answered(task: Task, by_name: dict[str, list[Row]]) -> dict[str, list[bool]]:
    """Name -> for each of its rows whether every token of the reply is the model's first choice."""
    turns = [row.turn for rows in by_name.values() for row in rows]
    scores = Subject(task.model, task.tokenizer).score(turns) if turns else []
    hits = iter([one.hit[: one.text_tokens].all() for one in scores])
    return {name: [bool(next(hits)) for _ in rows] for name, rows in by_name.items()}


def _evenly(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """The names that are cut into the same tokens everywhere."""
    ways = {name: {cut(encoder, template, name) for template in templates} for name in names}
    return [name for name in names if len(ways[name]) == 1 and None not in ways[name]]


def _too_few(*kinds: Sequence[str]) -> ExpungeError:
    counts = ", ".join(
        f"{len(names)} {what}"
        for names, what in zip(kinds, ("to forget", "known", "unknown"), strict=True)
    )
    return ExpungeError(
        "E-USE-007",
        f"Too few names that are cut into the same tokens in all templates: {counts}.",
        "at least one to forget, two that are known and two that are not.",
        "Give --set known=FILE or unknown=FILE with more names, or other templates.",
    )
