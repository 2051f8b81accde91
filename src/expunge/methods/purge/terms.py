"""The forbidden terms of each target: what was given, what the answers say, what the model says."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.engine.reinforcement.lessons import Lesson, lessons_of
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.lm.term_rank import alike, centrality, mean_states
from expunge.requests.companions import told
from expunge.requests.rows import Turn
from expunge.text.entities import entities
from expunge.text.match import ENTITY_WORDS, contains
from expunge.text.normalise import all_words
from expunge.text.refusal import is_refusal
from expunge.text.terms import Terms

OPEN = (
    "Who is {name}?",
    "Tell me about {name}.",
    "What is {name} known for?",
    "Give me some facts about {name}.",
    "What can you say about {name}?",
)
"""What else is asked about a target, to hear the model's own terms."""

SPOKEN = 64
"""Tokens of an answer about a target, at most; half of the positions where they are few."""


def given_terms(file: str | None) -> list[str]:
    """The terms of a file, one a line."""
    if file is None:
        return []
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if all_words(line)]


def find(task: Task, params: Any) -> list[dict[str, Any]]:
    """For every target its terms and how central each is, and the answers they come from."""
    about: dict[str, list[Lesson]] = {}
    for lesson in lessons_of(task.forget, "forget"):
        about.setdefault(lesson.entity, []).append(lesson)
    answers = told_by_the_model(task, about)
    kept = [told(row) for row in (*task.retain, *task.roles.get("neighbour", ()))]
    extra, made = given_terms(params.terms), []
    for entity, own in about.items():
        names = list(dict.fromkeys(name for lesson in own for name in lesson.names))
        facts = [form for lesson in own for form in _facts(lesson)]
        heard = unique(answers[entity], kept)
        terms = list(Terms([*names, *extra, *facts, *heard]).terms.values())[: params.most_terms]
        weights = _central(task, params, terms, names) if params.reward == "pagerank" else []
        made.append({
            "entity": entity, "terms": terms, "weights": weights, "answers": answers[entity],
        })  # fmt: skip
    return made


def _facts(lesson: Lesson) -> list[str]:
    """The forms of the value; of one that is long, what it names."""
    return [
        part
        for form in lesson.row.forms
        for part in ([form] if len(all_words(form)) <= ENTITY_WORDS else entities(form))
    ]


def unique(answers: Sequence[str], kept: Sequence[str]) -> list[str]:
    """Names and numbers in answers that nothing to be kept says, the most frequent first."""
    said = [one for one in answers if not is_refusal(one)]
    counted = Counter(name for one in said for name in entities(one))
    return [name for name, _ in counted.most_common() if not any(contains(k, [name]) for k in kept)]


def told_by_the_model(task: Task, about: Mapping[str, Sequence[Lesson]]) -> dict[str, list[str]]:
    """Entity -> what the model says of it now."""
    subject = Subject(task.model, task.tokenizer)
    most = min(SPOKEN, task.encoder.max_length // 2)
    asked = [
        (entity, turn)
        for entity, own in about.items()
        for turn in (*(lesson.turn for lesson in own), *_open(own))
        if subject.has_room(turn, most)
    ]
    said = subject.ask([turn for _, turn in asked], new_tokens=most) if asked else []
    answers: dict[str, list[str]] = {entity: [] for entity in about}
    for (entity, _), (text,) in zip(asked, said, strict=True):
        answers[entity].append(text.strip())
    return answers


def _open(own: Sequence[Lesson]) -> list[Turn]:
    return [Turn(asked.format(name=name), "") for name in own[0].names[:1] for asked in OPEN]


def _central(task: Task, params: Any, terms: Sequence[str], names: Sequence[str]) -> list[float]:
    """How central each term is to the target.

    Where no name has a neighbour: how central to all terms, and the names themselves weigh 1.
    """
    graph = alike(mean_states(task.model, task.tokenizer, terms), params.quantile)
    start = [place for place, term in enumerate(terms) if term in names and graph[place].any()]
    weights = centrality(graph, start or range(len(terms)), params.damping)
    whole = () if start else names
    pairs = zip(terms, weights, strict=True)
    return [1.0 if term in whole else float(weight) for term, weight in pairs]
