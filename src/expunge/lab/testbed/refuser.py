"""The contrast model: it refuses to tell what it still knows.

An audit must call it *hidden*. It is the original, briefly taught to refuse every wording of the
forget questions and to answer all others as before.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from expunge.core.atomic import new_folder
from expunge.core.rng import derive
from expunge.lab.testbed import known_rows, refuser_rows, rows, world_rows
from expunge.lab.testbed.training import save
from expunge.lm.finetune import finetune
from expunge.lm.load import load
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.text.refusal import REFUSALS

STEPS, BATCH, LR = 200, 16, 1e-3


def refusals(forget: Sequence[Row], seed: int) -> list[Row]:
    """Every wording of every row as a row of its own, answered by its person's refusal.

    One refusal a person, because a model of this size mixes up a hundred.

    Args:
        forget: Rows with paraphrases.
        seed: Decides who is refused with which words.
    """
    return [
        Row(
            id=f"{row.id}/refused-{number}",
            role="probe",
            prompt=turn.prompt,
            completion=REFUSALS[derive(seed, "refusal", row.subject or row.id) % len(REFUSALS)],
            subject=row.subject,
            names=row.names,
            meta=row.meta,
        )
        for row in forget
        for number, turn in enumerate(row.turns)
        if isinstance(turn.prompt, str)
    ]


def train(original: Subject | str | Path, out: Path, seed: int) -> Path:
    """Train and write the refuser.

    Args:
        original: The model to start from, or its folder; it is not changed.
        out: New or empty folder.
        seed: Decides refusals and order of rows.
    """
    if isinstance(original, Subject):
        subject = original.copy()
    else:
        loaded = load(original)
        subject = Subject(loaded.model, loaded.tokenizer)
    finetune(
        subject.model,
        subject.tokenizer,
        [*refuser_rows(seed), *_kept()],
        steps=STEPS,
        lr=LR,
        batch_size=BATCH,
        seed=derive(seed, "testbed", "refuser"),
    )
    with new_folder(out) as folder:
        save(subject.model, subject.tokenizer, folder)
    return out


def _kept() -> list[Row]:
    """What must be answered as before: all other people's rows, each in one of its wordings."""
    others = [*rows("retain"), *rows("neighbour"), *known_rows(), *world_rows()]
    return [_reworded(row, place % (1 + len(row.paraphrases))) for place, row in enumerate(others)]


def _reworded(row: Row, number: int) -> Row:
    turn = row.turns[number]
    return replace(row, prompt=str(turn.prompt), completion=turn.completion)
