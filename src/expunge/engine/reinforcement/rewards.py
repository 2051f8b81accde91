"""Rewards of a method as the trainer calls them, and what they would be before the first step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import Any

from expunge.core.rng import derive
from expunge.engine.reinforcement.lessons import Lesson, Reward, drawn
from expunge.engine.task import Task
from expunge.lm.subject import Subject

LOOKED_AT = 32
"""Lessons that are looked at before the first step, at most."""

MOSTLY_ALIKE = 0.9
"""From this share of such groups on, draws teach too little to begin with."""

ALIKE = 1e-8
"""Rewards of a group whose spread is below are the same."""


@dataclass(frozen=True, slots=True)
class Judging:
    """The rewards of a method on its lessons.

    Attributes:
        rewards: Name -> reward, as the method defines them.
        lessons: The lessons, by number.
        task: What was asked.
        params: The method's parameters.
    """

    rewards: Mapping[str, Reward]
    lessons: Sequence[Lesson]
    task: Task
    params: Any

    def total(self, said: str, lesson: Lesson) -> float:
        """The reward of one answer, those of all functions that judge it together."""
        found = [reward(said, lesson, self.task, self.params) for reward in self.rewards.values()]
        return sum(one for one in found if one is not None)

    def functions(self) -> list[Callable[..., list[float | None]]]:
        """One function a reward, called with the answers' tokens and the numbers of their lessons.

        The answers are decoded here, as everywhere else: without special tokens, and plain text
        whether a prompt was a conversation or not.
        """
        return [self._function(name, reward) for name, reward in self.rewards.items()]

    def _function(self, name: str, reward: Reward) -> Callable[..., list[float | None]]:
        def judge(
            *, completion_ids: Sequence[Sequence[int]], lesson: Sequence[int], **_: Any
        ) -> list[float | None]:
            texts = [self.task.encoder.decode(ids) for ids in completion_ids]
            return [
                reward(text, self.lessons[number], self.task, self.params)
                for text, number in zip(texts, lesson, strict=True)
            ]

        judge.__name__ = name
        return judge


def alike_share(judging: Judging, lessons: Sequence[Lesson], new_tokens: int) -> float:
    """Share of lessons whose drawn answers would all get the same reward, and teach nothing.

    Args:
        judging: The rewards.
        lessons: Which lessons; of many some at random.
        new_tokens: Length of an answer.
    """
    task, params = judging.task, judging.params
    lessons = drawn(lessons, LOOKED_AT, task.seed, "look")
    answers = answered(
        task, lessons, new_tokens,
        samples=params.num_generations, temperature=params.temperature, name="look",
    )  # fmt: skip
    spread = [
        pstdev([judging.total(said, lesson) for said in group])
        for lesson, group in zip(lessons, answers, strict=True)
    ]
    return sum(each < ALIKE for each in spread) / len(spread)


def answered(
    task: Task,
    lessons: Sequence[Lesson],
    new_tokens: int,
    *,
    samples: int,
    temperature: float,
    name: str,
) -> list[list[str]]:
    """What the model as it is now answers.

    Args:
        task: Whose model.
        lessons: What is asked.
        new_tokens: Length of an answer.
        samples: Answers to each.
        temperature: Of the draws.
        name: Of the draw.
    """
    subject = Subject(task.model, task.tokenizer)
    room = [one for one in lessons if subject.has_room(one.turn, new_tokens)]
    said = iter(
        subject.ask(
            [one.turn for one in room],
            new_tokens=new_tokens,
            samples=samples,
            temperature=temperature,
            seed=derive(task.seed, name),
        )
        if room
        else []
    )
    heard = set(map(id, room))
    return [next(said) if id(one) in heard else [""] * samples for one in lessons]
