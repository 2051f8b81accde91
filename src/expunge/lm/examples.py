"""Questions behind worked examples, none of which gives away what is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from expunge.lm.dialogue import after_examples
from expunge.lm.elicit import Probe
from expunge.lm.subject import Subject
from expunge.lm.values import prompt_text
from expunge.requests.rows import Row, Turn


def solved(rows: Iterable[Row]) -> list[Row]:
    """The rows that can be shown as a question with its answer; running text cannot."""
    return [row for row in rows if not row.turn.running and row.reply.strip()]


def harmless(probe: Probe, rows: Iterable[Row], most: int) -> list[Turn]:
    """The first examples for a probe that say nothing of what it asks for.

    Args:
        probe: The question.
        rows: What may be shown. A row that says the value, in its question or in its answer, is
            passed over.
        most: Examples at most.
    """
    turns = (row.turn for row in rows)
    return list(islice((turn for turn in turns if not _gives_away(turn, probe)), most))


def behind(
    subject: Subject, shown: Iterable[tuple[Probe, Sequence[Turn]]], *, new_tokens: int
) -> list[Probe]:
    """Probes behind worked examples, the first dropped until prompt and answer fit the model.

    Args:
        subject: The model.
        shown: Questions with their examples, the ones nearest to the question last.
        new_tokens: Positions to be left behind the prompt.

    Returns:
        The probes that have an example before them.
    """
    return [
        replace(probe, turn=turn)
        for probe, examples in shown
        for turn in [after_examples(subject, probe.turn, examples, new_tokens=new_tokens)]
        if turn != probe.turn
    ]


def _gives_away(example: Turn, probe: Probe) -> bool:
    return probe.judge(f"{prompt_text(example)}\n{example.completion}") > 0
