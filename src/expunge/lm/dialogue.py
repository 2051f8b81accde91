"""Conversations with a model: through its chat template or, where it has none, written out."""

from collections.abc import Sequence
from itertools import islice

from expunge.lm.subject import Subject
from expunge.requests.rows import Row, Turn

WRITTEN = "\n\nQuestion: {}\nAnswer:"
"""How one more question follows where there is no chat template."""
ENDS = ("\nQuestion:", "###")
"""Where a model that was asked in writing begins to ask itself."""


def follow_up(subject: Subject, turn: Turn, said: str, question: str) -> Turn:
    """The turn in which a model, having answered, is asked again.

    Args:
        subject: The model.
        turn: What it was asked.
        said: What it answered.
        question: What it is asked now.

    Returns:
        A conversation for a model with a chat template; else one text: the prompt as it was, the
        answer up to where the model began to ask itself, and the question.
    """
    if subject.encoder.has_template and not turn.running:
        return Turn((*messages_of(turn), _says("assistant", said), _says("user", question)), "")
    return Turn(f"{turn.prompt}{spoken(said)}{WRITTEN.format(question)}", "", running=turn.running)


def spoken(said: str) -> str:
    """An answer up to where the model begins to ask itself."""
    ends = [at for at in map(said.find, ENDS) if at >= 0]
    return said[: min(ends, default=len(said))].rstrip()


def messages_of(turn: Turn) -> tuple[dict[str, str], ...]:
    """The prompt of a turn as a conversation."""
    if isinstance(turn.prompt, str):
        return (_says("user", turn.prompt),)
    return tuple(dict(message) for message in turn.prompt)


def question_of(row: Row) -> str:
    """What a row asks, as one text: its prompt, or the last message of its conversation."""
    prompt = row.turn.prompt
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


def asked_of(row: Row) -> str:
    """What a multiple-choice question asks, without its options."""
    return str(row.meta.get("asked", question_of(row)))


def picked(subject: Subject, prompts: Sequence[str], names: Sequence[Sequence[str]]) -> list[int]:
    """The option whose name a model finds most probable as the answer to each prompt.

    Args:
        subject: The model; a gate in front of it is passed by.
        prompts: Questions with their options, ending where the answer begins.
        names: The names of the options of each prompt.

    Returns:
        Index of the option of each prompt. A name's score is the sum of the log-probabilities of
        its tokens, without the end of the answer; the first of equal ones is taken.
    """
    has_template = subject.encoder.has_template
    turns = [
        Turn(prompt, name if has_template or prompt.endswith(("\n", "(")) else f" {name}")
        for prompt, own in zip(prompts, names, strict=True)
        for name in own
    ]
    scores = iter(subject.score(turns))
    chosen = []
    for own in names:
        logps = [float(each.logp[: each.text_tokens].sum()) for each in islice(scores, len(own))]
        chosen.append(logps.index(max(logps)))
    return chosen


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
