"""Conversations with a model: through its chat template or, where it has none, written out."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
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


def asked(turn: Turn) -> str:
    """What a turn asks, as one text: its prompt, or the last message of its conversation."""
    return turn.prompt if isinstance(turn.prompt, str) else str(turn.prompt[-1]["content"])


def asking(turn: Turn, text: str) -> Turn:
    """The same turn asking something else; what went before in a conversation stays."""
    if isinstance(turn.prompt, str):
        return replace(turn, prompt=text)
    return replace(turn, prompt=(*turn.prompt[:-1], {**turn.prompt[-1], "content": text}))


def question_of(row: Row) -> str:
    """What a row asks, in its own wording."""
    return asked(row.turn)


def after_examples(
    subject: Subject, turn: Turn, examples: Sequence[Turn], *, new_tokens: int
) -> Turn:
    """A turn behind worked examples, as many of the last ones as the model has positions for.

    A model with a chat template sees a conversation in which it answered them; any other one sees
    prompts with their answers, an empty line after each.

    Args:
        subject: The model.
        turn: What is asked in the end.
        examples: Turns with their completions, the ones nearest to the question last.
        new_tokens: Positions to be left for the answer.
    """

    def fits(first: int) -> bool:
        return subject.has_room(_behind(subject, turn, examples[first:]), new_tokens)

    first = bisect_left(range(len(examples)), True, key=fits)
    return _behind(subject, turn, examples[first:]) if first < len(examples) else turn


def _behind(subject: Subject, turn: Turn, examples: Sequence[Turn]) -> Turn:
    if subject.encoder.has_template and not turn.running:
        said = [(*messages_of(one), _says("assistant", one.completion.strip())) for one in examples]
        before = [m for conversation in said for m in conversation if m["role"] != "system"]
        own = messages_of(turn)
        rules = sum(m["role"] == "system" for m in own)  # templates want them first, and once
        return replace(turn, prompt=(*own[:rules], *before, *own[rules:]))
    shown = "".join(f"{asked(one)}{one.completion}\n\n" for one in examples)
    return replace(turn, prompt=f"{shown}{asked(turn)}")


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
