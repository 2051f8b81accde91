"""Which rows ask for the same thing, and what stands in for a row in a control.

Two rows ask for the same *attribute* when their prompts are equal once the names are taken out:
"Where was Mira Voss born?" and "Where was Tom Ardel born?", or when their answers are, once the
value is taken out too: "Mira Voss was born in Paris." Values of the same attribute are the wrong
answers that a model which knows nothing cannot tell from the right one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count, islice

from expunge.core.rng import generator
from expunge.requests.invent import corpus_of, invent, is_named, name_words, renamed, renaming
from expunge.requests.names import SMALL, names_of, prompts_of
from expunge.requests.rows import Row
from expunge.text.normalise import normalise, words
from expunge.text.stem import stem

_NAME, _VALUE = "\ue000", "\ue001"
"""Stand for a name and the value in a template; private characters, so no text has them."""


def attributes(rows: Sequence[Row]) -> dict[str, str]:
    """Group rows that ask for the same attribute of their subjects.

    ``meta["attribute"]`` decides where it is given. Other rows are together when one of their
    prompts has the same template (normalised, names taken out) as one of the other's: every
    paraphrase joins the templates of its row (union-find), and so does the wording of an answer
    whose ``answer`` is known, if it has a word of some prompt: "The answer is Paris." says nothing
    about the attribute. Neither do running text and prompts that are nothing but names: such a row
    is alone.

    Returns:
        Row id -> key of its group, independent of the order of the rows.
    """
    names = names_of(rows)
    parents: dict[str, str] = {}
    templates: dict[str, str] = {}
    asked = _said_words(prompt for row in rows for prompt in _asked(row))
    for row in rows:
        keys = _keys(row, names[row.id], asked)
        templates[row.id] = keys[0]
        for key in keys:
            _join(parents, keys[0], key)
    return {row.id: _root(parents, templates[row.id]) for row in rows}


def swaps(rows: Sequence[Row], k: int = 11, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Values of other subjects for the same attribute, to be put into a row's own answer.

    Where rows give no ``answer``, the value is the whole completion; the other subject's names
    in it are replaced by the row's own.

    Args:
        rows: Rows whose values are swapped among themselves.
        k: At most so many for a row.
        seed: Seed of the choice, which does not depend on the order of the rows.

    Returns:
        Row id -> distinct values; never an accepted form of a value that the row's own subject
        has for this attribute. Fewer than ``k`` where there are no more, perhaps none.
    """
    names, groups = names_of(rows), attributes(rows)
    values: dict[str, dict[str, _Value]] = defaultdict(dict)
    taken: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in sorted(rows, key=lambda row: row.id):
        group, value = groups[row.id], _value(row, names[row.id])
        values[group].setdefault(_key(value.template), value)
        taken[group, subject_of(row, names[row.id])].update(_key(form) for form in row.forms)
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        group, own = groups[row.id], names[row.id]
        order = generator(seed, "swaps", row.id).permutation(len(values[group]))
        others = [values[group][key] for key in sorted(values[group])]
        said = (others[place].said_of(own) for place in order)
        excluded = taken[group, subject_of(row, own)]
        found[row.id] = tuple(islice((text for text in said if _key(text) not in excluded), k))
    return found


def placebo(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """Rows about invented subjects, in the templates of the given ones: a control nobody knows.

    Each invented subject takes the place of a real one. For each attribute it gets the rows of
    another subject, drawn anew, with the names replaced in all columns: prompts, wordings and
    values are those of the set, and their combination is new. An attribute that only one subject
    has keeps its value.

    Args:
        rows: The rows to imitate.
        n: How many rows; the real subjects are gone through as often as it takes.
        seed: Seed of the names and of the permutation.

    Returns:
        ``n`` rows in the role ``holdout`` with ``meta["placebo"]``, ids and subjects of their
        own, and names that occur nowhere in ``rows``; empty when no prompt shows a name.
    """
    names, groups = _own_names(rows), attributes(rows)
    usable = [row for row in rows if is_named(row, names[row.id])]
    if n <= 0 or not usable:
        return []
    subjects: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in usable:
        subjects[subject_of(row, names[row.id])][groups[row.id]].append(row)
    circles = _circles(subjects, seed)
    invented = invent(corpus_of(rows), seed)
    made: list[Row] = []
    for number in count():
        turn, place = divmod(number, len(subjects))
        real, name = list(subjects)[place], (next(invented), next(invented))
        for group, own in subjects[real].items():
            circle = circles[group]
            donor = subjects[circle[(circle.index(real) + 1 + turn) % len(circle)]][group]
            for row in donor[: len(own)]:
                told = renamed(row, renaming(names[row.id], name, invented))
                made.append(_placebo_row(told, f"placebo-{seed}-{number + 1}", len(made) + 1))
        if len(made) >= n:
            break
    return made[:n]


def subject_of(row: Row, names: Sequence[str]) -> str:
    """What tells subjects apart: the id, else the names, else the row itself."""
    if row.subject is not None:
        return row.subject
    return "\n".join(sorted(names)) if names else f"row {row.id}"


def _placebo_row(row: Row, subject: str, number: int) -> Row:
    meta = {**row.meta, "placebo": True}
    return replace(row, id=f"{subject}-{number}", role="holdout", subject=subject, meta=meta)


def _circles(subjects: Mapping[str, Iterable[str]], seed: int) -> dict[str, list[str]]:
    """Attribute -> the subjects that have it, in a random order; each takes from the next."""
    having: dict[str, list[str]] = defaultdict(list)
    for subject, groups in subjects.items():
        for group in groups:
            having[group].append(subject)
    return {
        group: [members[i] for i in generator(seed, "placebo", group).permutation(len(members))]
        for group, members in having.items()
    }


def _own_names(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Names of each row's subject; a capitalised word that a whole attribute shares is none."""
    names, groups = names_of(rows), attributes(rows)
    shared: dict[str, set[str]] = {}
    for row in rows:
        here = set(names[row.id])
        shared[groups[row.id]] = shared.get(groups[row.id], here) & here
    own: dict[str, tuple[str, ...]] = {}
    for row in rows:
        named = [name for name in names[row.id] if name_words(name)]
        telling = [name for name in named if name not in shared[groups[row.id]]]
        own[row.id] = tuple(telling or named)
    return own


@dataclass(frozen=True, slots=True)
class _Value:
    """A value, as it is said of its own subject and of any."""

    text: str
    template: str

    def said_of(self, names: Sequence[str]) -> str:
        """The value with the longest of the names put in; as it is where there is none."""
        return self.template.replace(_NAME, names[0]) if names else self.text


def _value(row: Row, names: Sequence[str]) -> _Value:
    """A whole completion names its subject; an ``answer`` stands for itself."""
    text = row.value
    return _Value(text, text if row.answer is not None else _without(text, names, _NAME))


def _key(value: str) -> str:
    """What makes two values one."""
    return normalise(value) or value.strip().lower()


def _keys(row: Row, names: Sequence[str], asked: Set[str]) -> list[str]:
    """The nodes that the row joins: its attribute, or the templates of its prompts and answer."""
    given = row.meta.get("attribute")
    if given is not None:
        return [f"attribute {given}"]
    found = (normalise(_without(prompt, names, f" {_NAME} ")) for prompt in _asked(row))
    telling = [template for template in found if template.replace(_NAME, "").strip()]
    wording = _wording(row, names)
    if telling and asked & _said_words([wording]):
        telling.append(wording)
    return telling or [f"row {row.id}"]


def _asked(row: Row) -> list[str]:
    return [] if row.text is not None else prompts_of(row)


def _wording(row: Row, names: Sequence[str]) -> str:
    """The template of the answer; empty where no value is known or it stands elsewhere."""
    if row.answer is None:
        return ""
    told = _without(row.reply, [row.answer], f" {_VALUE} ")
    template = normalise(_without(told, names, f" {_NAME} "))
    return template if _VALUE in template else ""


def _said_words(texts: Iterable[str]) -> set[str]:
    """Stems of the words that say what a text is about."""
    found = {word for text in texts for word in words(text)}
    return {stem(word) for word in found - SMALL if len(word) > 1}


def _without(text: str, names: Iterable[str], new: str) -> str:
    """The text with every name replaced; names of several words in any case."""
    for name in names:
        flags = re.IGNORECASE if " " in name else re.NOFLAG
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda _: new, text, flags=flags)
    return text


def _root(parents: dict[str, str], key: str) -> str:
    while parents.setdefault(key, key) != key:
        parents[key] = parents[parents[key]]
        key = parents[key]
    return key


def _join(parents: dict[str, str], one: str, other: str) -> None:
    """Put two sets together; the smaller key leads, so the order of joining does not matter."""
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
