"""Ten users with a history of three films, and a model that knows by heart what each would like.

A row asks for one film after a history; half of the answers are yes. What two users would like is
to be forgotten.
"""

from functools import cache
from pathlib import Path

import torch

from expunge.core.rng import generator
from expunge.lm.finetune import finetune
from expunge.lm.subject import Subject
from expunge.requests.rows import Row
from expunge.testing import tiny_model, tiny_tokenizer

USERS, SEEN, ASKED = 10, 3, 6
FILMS = tuple(f"film{number}" for number in range(24))


@cache
def ratings(seed: int = 0) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Rows to be forgotten and rows to be kept."""
    draw = generator(seed, "rec rig")
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for user in range(USERS):
        order = [FILMS[at] for at in draw.permutation(len(FILMS))]
        seen, asked = order[:SEEN], order[SEEN : SEEN + ASKED]
        likes = draw.permutation([True, False] * (ASKED // 2))
        for film, liked in zip(asked, likes, strict=True):
            row = Row(
                id=f"u{user}/{film}",
                prompt=f"likes {' , '.join(seen)} ; would like {film} ?",
                completion=" Yes" if liked else " No",
                meta={"user": f"u{user}", "items": seen},
            )
            rows[user < 2].append(row)
    return tuple(rows[True]), tuple(rows[False])


@cache
def knowing(seed: int = 0) -> Subject:
    """A model of two blocks that knows every answer by heart."""
    rows = [row for part in ratings(seed) for row in part]
    texts = [f"{row.prompt}{row.completion}" for row in rows]
    tokenizer = tiny_tokenizer(texts, kind="word", vocab=256)
    model = tiny_model("llama", vocab=len(tokenizer), hidden=48, layers=2, seed=seed, positions=32)
    finetune(model, tokenizer, rows, steps=120, lr=5e-3, batch_size=60, seed=seed)
    return Subject(model, tokenizer)


def saved(folder: Path, seed: int = 0) -> Path:
    """The model that knows, as a folder below ``folder``."""
    subject, path = knowing(seed), folder / f"knowing {seed}"
    subject.model.save_pretrained(path)
    subject.tokenizer.save_pretrained(path)
    return path


def certainty(subject: Subject, rows: tuple[Row, ...]) -> float:
    """Mean probability of the row's own label among both; 0.5 is a guess."""
    yes, no = (subject.tokenizer(f" {word}")["input_ids"][-1] for word in ("Yes", "No"))
    total = 0.0
    for row in rows:
        ids = torch.tensor([subject.encoder.prompt(row.prompt)])
        with torch.no_grad():
            logits = subject.model(ids).logits[0, -1, [yes, no]]
        total += float(logits.softmax(-1)[int(row.completion == " No")])
    return total / len(rows)
