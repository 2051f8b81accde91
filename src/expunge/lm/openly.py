"""What a model tells about subjects when it is asked openly and often enough."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from expunge.core.rng import derive
from expunge.lm.subject import Scene, Subject
from expunge.lm.values import find
from expunge.requests.chains import SOMETHING, Elicited, Onward, agreed
from expunge.requests.companions import companions, unnamed
from expunge.requests.names import names_of, prompts_of
from expunge.requests.rows import Row, Turn
from expunge.requests.scope import attributes as attributes_of
from expunge.text.match import ENTITY_WORDS, contains
from expunge.text.normalise import words

CALLED = "What else is {name} called?"
KNOWN_FOR = "What is {name} known for?"


@dataclass(frozen=True, slots=True)
class Voice:
    """A model that is asked the same question several times.

    Attributes:
        subject: The model.
        scene: Length of an answer, and the seed of the draws.
        samples: Answers to each question.
        agree: Answers that must tell the same.
        temperature: Of the draws.
    """

    subject: Subject
    scene: Scene
    samples: int
    agree: int
    temperature: float

    def tells(self, questions: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Question -> the value that enough answers tell, and an answer that tells it."""
        new_tokens = self.scene.new_tokens
        turns = {one: Turn(one, "") for one in questions}
        turns = {k: turn for k, turn in turns.items() if self.subject.has_room(turn, new_tokens)}
        if not turns:
            return {}
        drawn = self.subject.ask(
            list(turns.values()),
            new_tokens=new_tokens,
            samples=self.samples,
            temperature=self.temperature,
            seed=derive(self.scene.seed, "openly"),
        )
        return {
            question: (value, said.strip())
            for question, answers in zip(turns, drawn, strict=True)
            if (value := agreed(question, answers, self.agree))
            for said in [next((one for one in answers if contains(one, [value])), "")]
            if said
        }


@dataclass(frozen=True, slots=True)
class _Ask:
    """A question for the sake of a row."""

    kind: str
    row: Row
    question: str


def elicited(
    voice: Voice, rows: Sequence[Row], known: Sequence[Row], *, attributes: int
) -> Elicited:
    """Ask for other names, for attributes that no row tells, and what the values are known for.

    Args:
        voice: The model.
        rows: The rows whose subjects and values are asked about.
        known: Rows that are known, these among them; their questions are put to other subjects.
        attributes: Questions of the second kind about a row's subject at most.
    """
    names = names_of(known)
    asks = [
        *(_Ask("alias", r, CALLED.format(name=n)) for r in rows for n in names[r.id][:1]),
        *_lacking(rows, known, names, attributes),
        *(
            _Ask("end", row, KNOWN_FOR.format(name=row.value))
            for row in rows
            if len(words(row.value)) <= ENTITY_WORDS
        ),
    ]
    tells, found = voice.tells([ask.question for ask in asks]), Elicited()
    for ask in asks:
        value, said = tells.get(ask.question, ("", ""))
        if not value:
            continue
        if ask.kind == "alias" and (span := find(said, [value])):
            found.aliases[ask.row.id].append(said[slice(*span)])
        if ask.kind == "fact":
            found.facts[ask.row.id].append(f"{ask.question} {said}")
        if ask.kind == "end":
            found.ends[ask.row.id].append(Onward(KNOWN_FOR.format(name=SOMETHING), value))
    return found


def _lacking(
    rows: Sequence[Row],
    known: Sequence[Row],
    names: Mapping[str, Sequence[str]],
    most: int,
) -> Iterator[_Ask]:
    """What is known of other subjects, asked of the subjects of which no row tells it."""
    groups, others = attributes_of(known), companions(rows, known)
    templates = {
        groups[row.id]: row for row in reversed(known) if row.text is None and names[row.id]
    }
    for row in rows:
        told_of = {groups[other.id] for other in (row, *others[row.id])}
        for name in names[row.id][:1]:
            lacking = [one for group, one in templates.items() if group not in told_of]
            for one in lacking[:most]:
                yield _Ask("fact", row, unnamed(prompts_of(one)[0], names[one.id], name))
