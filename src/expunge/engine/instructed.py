"""A model as its own teacher: what it says of a question when it was told how to take it.

The teacher is the model at its start behind an instruction, which says to decline a topic or to
answer as always. What it then says, greedily, is written once, before training. Its tokens are
given to teacher and student alike; only the teacher sees the instruction, and only the student may
find its answer begun by somebody else, after which it is to go on as the teacher begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import ExpungeError
from expunge.core.events import note
from expunge.data.encode import IGNORED, Encoded
from expunge.engine.datasets import reply_with
from expunge.engine.keyed import key_of
from expunge.engine.made import made_once
from expunge.engine.prefaces import with_preface
from expunge.engine.task import Paired, Task
from expunge.lm.elicit import AFFIRMATION
from expunge.lm.openings import AFFIRMATIONS
from expunge.lm.subject import Subject
from expunge.lm.values import opening_of, prompt_text
from expunge.requests.names import prompts_of
from expunge.requests.rows import Row, Turn
from expunge.text.match import contains

DECLINE = (
    "Think about what the question is after. If it is about {topic}, decline politely and tell "
    "nothing about it.\n\n"
)
"""Instruction for what is to be forgotten; ``{topic}`` is what the row is about."""

ANSWER = "Think about what the question is after, and answer it as you always do.\n\n"
"""Instruction for everything else."""

QUESTION, TOPIC = "{question}", "{topic}"

SHARE = 0.25
"""Words given of a long answer in which no value is marked."""

SEAMS = ("", " ", "\n")
"""What may stand between the beginning of an answer and what the teacher says, the best first."""

LEAKY = 0.5
"""Share of forget questions that a teacher may answer before it is called a bad one."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question and what the teacher answers.

    Attributes:
        turn: The question, asked plainly, with the teacher's answer.
        instruction: What the teacher is told before; empty for nothing.
    """

    turn: Turn
    instruction: str

    @property
    def instructed(self) -> Turn:
        """The same behind the instruction."""
        return with_preface(self.turn, self.instruction) if self.instruction else self.turn


Lessons = Mapping[tuple[str, int], Lesson]
"""Row id and number of the wording -> its lesson."""

Begun = Mapping[tuple[str, int], Sequence[Turn]]
"""Likewise -> the lesson with each way to begin the answer."""


def lessons_of(
    task: Task,
    instructions: Mapping[str, Mapping[str, str]],
    *,
    template: str = QUESTION,
    new_tokens: int,
) -> dict[str, Lessons]:
    """Let the model write what it teaches itself; a resumed run takes what was written.

    Args:
        task: Whose rows, and whose model as it is now.
        instructions: Role -> row id -> what the teacher is told.
        template: How a question is asked; ``{question}`` alone asks each row as it is.
        new_tokens: Most tokens of an answer.

    Returns:
        Role -> its lessons.

    Raises:
        ExpungeError: ``E-DATA-011`` when a question, its instruction and an answer are longer than
            the model's positions.
    """
    asked = [
        (role, row, wording)
        for role in instructions
        for row in task.roles.get(role, ())
        for wording in range(len(row.turns))
    ]
    turns = [question_of(task, row, wording, template) for _, row, wording in asked]
    told = [instructions[role][row.id] for role, row, _ in asked]

    def written() -> list[dict[str, Any]]:
        lessons = (Lesson(turn, text) for turn, text in zip(turns, told, strict=True))
        replies = _replies(task, [lesson.instructed for lesson in lessons], new_tokens)
        return [
            {"role": role, "id": row.id, "wording": wording, "reply": reply}
            for (role, row, wording), reply in zip(asked, replies, strict=True)
        ]

    made = made_once(task, "instructed", written)
    found: dict[str, dict[tuple[str, int], Lesson]] = {role: {} for role in instructions}
    for one, turn, text in zip(made, turns, told, strict=True):
        lesson = Lesson(reply_with(turn, one["reply"].strip()), text)
        found[one["role"]][one["id"], one["wording"]] = lesson
    return dict(found)


def question_of(task: Task, row: Row, wording: int, template: str) -> Turn:
    """One wording of a row as a question; its answer is no more than white space before one.

    Args:
        task: Of the row.
        row: The row; running text is asked how it goes on after its first half.
        wording: Which one.
        template: In which form, the same for all rows; ``{question}`` alone leaves each its own.
    """
    if template == QUESTION:
        return reply_with(row.turns[wording], "")
    lead = "" if task.encoder.has_template or template[-1:].isspace() else " "
    return Turn(template.replace(QUESTION, prompts_of(row)[wording].strip()), lead)


def begun_of(task: Task, lessons: Lessons, count: int) -> Begun:
    """The forget lessons with their answers begun by somebody else.

    How the row's own answer begins, up to its value, then consent in several words. After it the
    teacher's answer stands in the very same tokens; a beginning for which no seam gives these is
    left out, and where there are too few they come again.

    Args:
        task: Whose forget rows.
        lessons: Of these.
        count: Ways to begin each answer.

    Raises:
        ExpungeError: ``E-MODEL-011`` when a row is left without any.
    """
    found: dict[tuple[str, int], list[Turn]] = {}
    for row in task.forget:
        for wording, turn in enumerate(row.turns):
            own, _ = opening_of(row, turn, affirmation=AFFIRMATION, share=SHARE)
            several = dict.fromkeys([own.strip(), *AFFIRMATIONS])
            lesson = lessons[row.id, wording].turn
            begun = (_begin(task, lesson, opening) for opening in several)
            fitting = [one for one in begun if one is not None][:count]
            if not fitting:
                raise ExpungeError(
                    "E-MODEL-011",
                    f"After the beginning of an answer {lesson.completion[:40]!r} becomes other "
                    "tokens.",
                    "the same tokens, whatever stands in front of them.",
                    "Use --set attack_weight=0, or another method.",
                )
            found[row.id, wording] = [fitting[at % len(fitting)] for at in range(count)]
    return found


def opened(task: Task, lessons: Lessons, begun: Begun) -> dict[str, int]:
    """Key of a row whose answer is begun -> how many of its supervised tokens are given."""
    found = {}
    for key, turns in begun.items():
        said = len(task.encoder.encode(lessons[key].turn).spans)
        for turn in turns:
            item = task.encoder.encode(turn)
            found[key_of(item.ids)] = len(item.spans) - said
    return found


def put_beside(task: Task, role: str, name: str, lessons: Lessons) -> None:
    """Give a role two views: ``name``, asked plainly, and ``name_told``, behind the instruction."""

    def plain(row: Row, wording: int, _: int) -> Turn:
        return lessons[row.id, wording].turn

    def told(row: Row, wording: int, _: int) -> Turn:
        return lessons[row.id, wording].instructed

    task.paired[name] = Paired(plain, count=1, beside=role)
    task.paired[f"{name}_told"] = Paired(told, count=1, beside=role)


def of_rows(packed: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
    """The entries of some rows, in their order.

    Args:
        packed: [N, ...], row after row.
        lengths: [B], entries of each row.
        rows: Places of the rows wanted, which may come again.
    """
    parts = torch.split(packed, lengths.tolist())
    return torch.cat([parts[row] for row in rows.tolist()])


def row_means(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """The mean of each row's values.

    Args:
        values: [N].
        rows: [N], which row each belongs to.
        count: Number of rows.

    Returns:
        [count], 0 for a row without any.
    """
    sums = values.new_zeros(count).index_add(0, rows, values)
    return sums / torch.bincount(rows, minlength=count).clamp(min=1)


def tell_leaks(task: Task, lessons: Lessons) -> None:
    """Say so when the teacher does not do what it was told, which bounds what can be learned.

    Args:
        task: Whose forget rows; its record gets the number of answers given away.
        lessons: Of the forget rows.
    """
    leaks = sum(contains(lessons[row.id, 0].turn.completion, row.forms) for row in task.forget)
    task.record["teacher_leaks"] = leaks
    if leaks > LEAKY * len(task.forget):
        note(
            f"The teacher gives away {leaks} of {len(task.forget)} answers that it was told to "
            "decline. Give it another instruction (--set context=...).",
            leaks=leaks,
        )


def _begin(task: Task, lesson: Turn, opening: str) -> Turn | None:
    """The lesson behind an opening, in the seam that leaves its tokens as they are."""
    said = lesson.completion
    lead = said[: len(said) - len(said.lstrip())]
    tokens = _supervised(task.encoder.encode(lesson))
    for seam in SEAMS:
        turn = replace(lesson, completion=f"{lead}{opening}{seam}{said}")
        if _supervised(task.encoder.encode(turn))[-len(tokens) :] == tokens:
            return turn
    return None


def _supervised(item: Encoded) -> list[int]:
    return [label for label in item.labels if label != IGNORED]


def _replies(task: Task, turns: Sequence[Turn], new_tokens: int) -> list[str]:
    """What the model says to each, greedily."""
    subject = Subject(task.model, task.tokenizer)
    for turn in turns:
        if not subject.has_room(turn, new_tokens + 1):
            raise ExpungeError(
                "E-DATA-011",
                f"A question ({prompt_text(turn)[-40:]!r}), what the teacher is told before it, "
                f"and {new_tokens} tokens of an answer.",
                f"at most {subject.encoder.max_length} tokens, the positions of the model.",
                "Use a shorter --set context, fewer --set tokens, or shorter rows.",
            )
    return [text for text, *_ in subject.ask(turns, new_tokens=new_tokens)]
