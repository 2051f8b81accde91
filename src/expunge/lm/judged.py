"""What one model thinks of what another one wrote."""

from collections.abc import Sequence

from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn


def judged_nll(
    writer: Subject, judge: Subject, rows: Sequence[Row], *, new_tokens: int
) -> dict[str, float]:
    """Let one model answer and another say how likely the answers are.

    Args:
        writer: The model that answers.
        judge: The model that judges; the two may have different tokenizers.
        rows: What to ask; ``meta["opening"]`` begins the answer.
        new_tokens: Longest answer, in tokens of the writer.

    Returns:
        Row id -> mean negative log-likelihood of the answer's tokens in nats, its end left out.
        Rows with an empty answer are absent.
    """
    openings = [str(row.meta.get("opening", "")) for row in rows]
    answers = writer.ask([row.turn for row in rows], new_tokens=new_tokens, openings=openings)
    said = [
        (row, opening, texts[0])
        for row, opening, texts in zip(rows, openings, answers, strict=True)
        if texts[0].strip()
    ]
    turns = [
        Turn(row.turn.prompt, opening + text, running=row.turn.running)
        for row, opening, text in said
    ]
    keep = [[(len(opening), len(opening) + len(text))] for _, opening, text in said]
    scores = judge.score(turns, keep) if turns else []
    return {row.id: scored.nll for (row, _, _), scored in zip(said, scores, strict=True)}
