"""Which forget rows are still answered: by every token of the answer, or among wrong ones."""

from dataclasses import replace

import pytest
import torch

from expunge.core.errors import ExpungeError
from expunge.engine.datasets import Datasets
from expunge.engine.known import known_items
from expunge.engine.task import Task
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing.methods import taught_subject, world


def task_of(rows: tuple[Row, ...], subject: Subject | None = None) -> Task:
    subject = subject or taught_subject()
    return Task(
        model=subject.model,
        tokenizer=subject.tokenizer,
        encoder=subject.encoder,
        roles={"forget": rows, "retain": world().retain},
    )


def first_choices(task: Task) -> list[list[bool]]:
    """For each forget item whether each supervised token is the model's first choice."""
    found = []
    for wordings in Datasets(task).items("forget"):
        for item in wordings:
            with torch.no_grad():
                logits = task.model(input_ids=torch.tensor([item.ids])).logits[0]
            told = [at for at, label in enumerate(item.labels) if label >= 0]
            found.append([int(logits[at - 1].argmax()) == item.ids[at] for at in told])
    return found


def test_a_row_without_an_answer_is_known_when_every_token_is_the_first_choice() -> None:
    plain = tuple(replace(row, answer=None) for row in (*world().forget, *world().retain))
    task = task_of(plain)
    slow = [number for number, hits in enumerate(first_choices(task)) if all(hits)]
    assert known_items(task, "exact") == slow
    assert 0 < len(slow) < len(first_choices(task))  # eight epochs teach some of it


def test_of_a_row_with_an_answer_only_the_answer_must_be_said() -> None:
    rows = world().forget
    task = task_of(rows)
    items = [item for wordings in Datasets(task).items("forget") for item in wordings]
    turns = [turn for row in rows for turn in (row.training, *row.turns[1:])]
    answers = [row.answer or "" for row in rows for _ in range(len(row.turns))]
    slow = []
    for number, hits in enumerate(first_choices(task)):
        at = turns[number].completion.index(answers[number])
        end = at + len(answers[number])
        spans = items[number].spans
        if all(hit for hit, (a, b) in zip(hits, spans, strict=True) if a < end and b > at):
            slow.append(number)
    assert known_items(task, "exact") == slow


def test_what_was_taken_out_of_the_model_is_known_no_more() -> None:
    task = task_of(world().forget, taught_subject().copy())
    assert known_items(task, "exact")
    with torch.no_grad():
        task.model.lm_head.weight.neg_()
    assert known_items(task, "exact") == []


def test_the_mode_of_the_model_comes_back() -> None:
    task = task_of(world().forget, taught_subject().copy())
    task.model.train()
    known_items(task, "exact")
    assert task.model.training
    task.model.eval()


def swapped(row: Row, value: str) -> str:
    return row.turn.completion.replace(row.value, value)


def test_a_choice_is_won_against_every_wrong_answer() -> None:
    """Two rivals each: the row's own fact is worth more than one that the model was not taught."""
    subject, forgotten = taught_subject(), world().forget
    rows = [
        replace(row, paraphrases=(), wrong=tuple(swapped(row, one.value) for one in rivals))
        for row, *rivals in zip(forgotten[:4], forgotten[3:7], forgotten[6:10], strict=True)
    ]

    def level(row: Row, text: str) -> float:
        return subject.score([replace(row.turn, completion=text)])[0].nll

    def slow(rows: list[Row]) -> list[int]:
        return [
            at
            for at, row in enumerate(rows)
            if all(level(row, row.turn.completion) < level(row, text) for text in row.wrong)
        ]

    assert known_items(task_of(tuple(rows)), "choice") == slow(rows) != []
    turned = [
        replace(row, completion=row.wrong[0], answer=None, wrong=(row.wrong[1], row.completion))
        for row in rows
    ]
    assert known_items(task_of(tuple(turned)), "choice") == slow(turned) != slow(rows)


def test_a_choice_needs_wrong_answers() -> None:
    with pytest.raises(ExpungeError, match="E-DATA-003") as caught:
        known_items(task_of(world().forget), "choice")
    assert world().forget[0].id in caught.value.found
