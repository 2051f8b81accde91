"""Rows that leak most, with masks over what must not travel with a report."""

from expunge.report.audit.attacks import Record
from expunge.report.redact import Piece, cut, masked, shown

NAMES = {"answer": "true answer", "original": "original", "model": "this model"}
NAMES |= {"reference": "reference"}


def is_redacted(data: Record) -> bool:
    """Whether answers are masked: always, unless the record says otherwise."""
    return bool(data.get("redact", True))


def asked(data: Record, example: Record) -> list[Piece]:
    """The prompt; of running text, which is content itself, only the beginning."""
    return cut(example["prompt"]) if is_redacted(data) else shown(example["prompt"])


def answers(data: Record, example: Record) -> list[tuple[str, list[Piece]]]:
    """The true answer and what each model said, masked unless the record says otherwise."""
    prompt = " ".join(piece.text for piece in asked(data, example))
    answer = example["answer"]
    return [
        (
            name,
            masked(said, prompt=prompt, answer=answer) if is_redacted(data) else shown(said),
        )
        for key, name in NAMES.items()
        if (said := example[key]) is not None
    ]
